//! Losses, predictions and counters.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::{Cuda, Precision, tuning};
use crate::backend::{Loss, LossKind, LossOut, MARGIN_CONFIDENCE, Metrics};
use crate::base::dims::LogitDims;
use crate::base::layout::layout;

kernels! { "f32/loss":
    loss_fwd(
        d: LogitDims, kind: u32, confidence: f32, weight: f32, logits: &Device<f32>, labels: &Device<u8>,
        loss: &mut Device<f32>, dlogits: &mut Device<f32>,
    );
    predictions(d: LogitDims, logits: &Device<f32>, classes: &mut Device<u8>);
    metrics_add(d: LogitDims, logits: &Device<f32>, labels: &Device<u8>, metrics: &mut Device<MetricsArg>);
    metrics_from(counts: MetricsArg, metrics: &mut Device<MetricsArg>);
}

/// Most classes that the kernels know of.
const CLASSES: u32 = 256;

/// [`Metrics`] as the kernels have them (`kernels/primitives/metrics.cuh`).
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct MetricsArg {
    samples: u64,
    correct: u64,
    loss: f64,
    gradients: u64,
    zero_gradients: u64,
}

layout!(MetricsArg { samples, correct, loss, gradients, zero_gradients });
by_value!(MetricsArg);

/// A loss in the kernels (`kernels/primitives/logits.cuh`).
pub(super) fn kind(loss: LossKind) -> u32 {
    match loss {
        LossKind::CrossEntropy => 0,
        LossKind::Margin => 1,
    }
}

/// Counters on the device.
pub struct MetricsBuf(pub(super) Device<MetricsArg>);

/// Labels of a batch.
pub struct Labels(Arc<Device<u8>>);

impl Labels {
    /// Those of a batch of `n`.
    pub(super) fn of(&self, n: u32) -> &Device<u8> {
        assert_eq!(self.0.len(), n as usize);
        &self.0
    }

    fn of_logits(&self, d: &LogitDims, logits: &Device<f32>) -> &Device<u8> {
        assert_eq!(logits.len(), d.n as usize * d.classes as usize);
        assert!(d.classes <= CLASSES, "{} classes, but labels are bytes", d.classes);
        self.of(d.n)
    }
}

impl<P: Precision> Loss for Cuda<P> {
    type Labels = Labels;
    type MetricsBuf = MetricsBuf;

    fn labels(&self, labels: &[u8]) -> Labels {
        Labels(Arc::new(self.upload_slice(labels)))
    }

    fn labels_part(&self, range: Range<usize>, labels: &Labels) -> Labels {
        assert_eq!(range, 0..labels.0.len(), "map_parts makes one part");
        Labels(labels.0.clone())
    }

    fn loss_fwd(&self, d: &LogitDims, of: LossKind, weight: f32, logits: &P::Batch, labels: &Labels) -> LossOut<Self> {
        let logits = &*P::cast_f32(self, logits);
        let labels = labels.of_logits(d, logits);
        let (mut loss, mut dlogits) = (self.alloc(1), self.alloc(logits.len()));
        // SAFETY: the logits are `n` × `classes` as checked, and there are `n` labels.
        unsafe {
            launch::loss_fwd(
                self,
                tuning::loss(),
                *d,
                kind(of),
                MARGIN_CONFIDENCE,
                weight,
                logits,
                labels,
                &mut loss,
                &mut dlogits,
            );
        }
        LossOut { loss: loss.into(), dlogits: dlogits.into() }
    }

    fn predictions(&self, d: &LogitDims, logits: &P::Batch) -> Vec<u8> {
        let logits = &*P::cast_f32(self, logits);
        assert_eq!(logits.len(), d.n as usize * d.classes as usize);
        assert!(d.classes <= CLASSES, "{} classes, but predictions are bytes", d.classes);
        let mut classes = self.alloc(d.n as usize);
        // SAFETY: the logits are `n` × `classes` as checked.
        unsafe { launch::predictions(self, tuning::predictions(d), *d, logits, &mut classes) };
        self.download_slice(&classes)
    }

    /// The counts are passed as an argument, so that counters can begin within a step.
    fn metrics_from(&self, counts: &Metrics) -> MetricsBuf {
        let &Metrics { samples, correct, loss, gradients, zero_gradients } = counts;
        let counts = MetricsArg { samples, correct, loss, gradients, zero_gradients };
        let mut metrics = self.alloc(1);
        // SAFETY: `metrics` has one element.
        unsafe { launch::metrics_from(self, tuning::metrics(), counts, &mut metrics) };
        MetricsBuf(metrics)
    }

    fn metrics_add(&self, d: &LogitDims, logits: &P::Batch, labels: &Labels, metrics: &mut MetricsBuf) {
        let logits = &*P::cast_f32(self, logits);
        let labels = labels.of_logits(d, logits);
        // SAFETY: the logits are `n` × `classes` as checked, there are `n` labels, `metrics` has one element.
        unsafe { launch::metrics_add(self, tuning::loss(), *d, logits, labels, &mut metrics.0) };
    }

    fn metrics_read(&self, metrics: &MetricsBuf) -> Metrics {
        let MetricsArg { samples, correct, loss, gradients, zero_gradients } = self.download_slice(&metrics.0)[0];
        Metrics { samples, correct, loss, gradients, zero_gradients }
    }
}
