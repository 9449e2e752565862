//! Losses, and the counters of a training or an evaluation.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Memory;
use crate::base::dims::LogitDims;

/// A loss of the logits of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Softmax cross-entropy.
    CrossEntropy,
    /// Carlini & Wagner's margin (2017) as attack loss: `-max(z_y - max_{j != y} z_j + confidence, 0)` with
    /// [`MARGIN_CONFIDENCE`].
    Margin,
}

/// Confidence of the margin loss, so large that it never saturates in practice.
pub const MARGIN_CONFIDENCE: f32 = 50.0;

/// A loss and its gradient.
pub struct LossOut<B: Memory> {
    /// `weight × Σ` over the batch: one element.
    pub loss: B::Buf,
    /// Gradient of `loss` with respect to the logits.
    pub dlogits: B::Batch,
}

/// Sums over many batches, on the device until they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Samples seen by [`Loss::metrics_add`].
    pub samples: u64,
    /// Of those, classified correctly.
    pub correct: u64,
    /// Sum of their cross-entropies.
    pub loss: f64,
    /// Input-gradient elements seen by [`super::Pgd::pgd_step`].
    pub gradients: u64,
    /// Of those, exactly zero.
    pub zero_gradients: u64,
}

impl std::ops::AddAssign for Metrics {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.correct += other.correct;
        self.loss += other.loss;
        self.gradients += other.gradients;
        self.zero_gradients += other.zero_gradients;
    }
}

impl Metrics {
    /// Percent of the samples classified correctly.
    pub fn accuracy(&self) -> f64 {
        100.0 * self.correct as f64 / self.samples.max(1) as f64
    }

    /// Mean cross-entropy.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.samples.max(1) as f64
    }

    /// Fraction of the gradient's elements that were exactly zero.
    pub fn zero_gradient(&self) -> f64 {
        self.zero_gradients as f64 / self.gradients.max(1) as f64
    }
}

/// Losses and counters.
pub trait Loss: Memory {
    /// Class labels of a batch.
    type Labels: Send + Sync;
    /// A [`Metrics`] on the device.
    type MetricsBuf: Send + Sync;

    /// Labels of a batch, 0 to classes - 1.
    fn labels(&self, labels: &[u8]) -> Self::Labels;
    /// Labels of the samples `range`, one that [`Memory::map_parts`] hands out.
    fn labels_part(&self, range: Range<usize>, labels: &Self::Labels) -> Self::Labels;
    /// `weight × Σ loss(logits, labels)` and its gradient, in full precision.
    fn loss_fwd(
        &self,
        d: &LogitDims,
        kind: LossKind,
        weight: f32,
        logits: &Self::Batch,
        labels: &Self::Labels,
    ) -> LossOut<Self>;
    /// The most likely class of each sample; the first one wins a tie.
    fn predictions(&self, d: &LogitDims, logits: &Self::Batch) -> Vec<u8>;
    /// Counters that go on from `counts`.
    fn metrics_from(&self, counts: &Metrics) -> Self::MetricsBuf;
    /// Counters at zero.
    fn metrics(&self) -> Self::MetricsBuf {
        self.metrics_from(&Metrics::default())
    }
    /// Adds a batch's samples, correct predictions and cross-entropies.
    fn metrics_add(&self, d: &LogitDims, logits: &Self::Batch, labels: &Self::Labels, metrics: &mut Self::MetricsBuf);
    /// Reads the counters.
    fn metrics_read(&self, metrics: &Self::MetricsBuf) -> Metrics;
}
