//! Losses, predictions and counters.

use std::ops::Range;
use std::sync::Arc;

use super::kernel::{Arg, Args, by_value, kernels};
use super::pool::Device;
use super::{Buf, Cuda, tuning};
use crate::backend::{Counts, Loss, LossKind, LossOut, MARGIN_CONFIDENCE};
use crate::dims::LogitDims;

kernels! { "loss":
    loss_fwd(
        d: LogitDims, kind: u32, confidence: f32, weight: f32, logits: &Device<f32>, first: u32, labels: &Device<u8>,
        loss: &mut Device<f32>, dlogits: &mut Device<f32>,
    );
    predictions(d: LogitDims, logits: &Device<f32>, classes: &mut Device<u8>);
    tally_add(
        d: LogitDims, logits: &Device<f32>, first: u32, labels: &Device<u8>, tally: &mut Device<TallyCounts>,
    );
    tally_from(counts: TallyCounts, tally: &mut Device<TallyCounts>);
    tally_merge(part: &Device<TallyCounts>, tally: &mut Device<TallyCounts>);
}

/// Most classes that the kernels know of.
const CLASSES: u32 = 256;

/// [`Counts`] as the kernels have them (`kernels/tally.cuh`).
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct TallyCounts {
    samples: u64,
    correct: u64,
    loss: f64,
    gradients: u64,
    zero_gradients: u64,
}

by_value!(TallyCounts);

/// A loss in the kernels (`kernels/logits.cuh`).
pub(super) fn kind(loss: LossKind) -> u32 {
    match loss {
        LossKind::CrossEntropy => 0,
        LossKind::Margin => 1,
    }
}

/// Counters on the device.
pub struct Tally(pub(super) Device<TallyCounts>);

/// Labels of a batch, or of a part of it.
pub struct Labels {
    values: Arc<Device<u8>>,
    /// Which of `values` they are.
    range: Range<usize>,
}

impl Labels {
    /// All labels, and the place of the first of these `n` among them.
    pub(super) fn of(&self, n: u32) -> (&Device<u8>, u32) {
        assert_eq!(self.range.len(), n as usize);
        (&self.values, self.range.start as u32)
    }

    fn first(&self, d: &LogitDims, logits: &Buf) -> u32 {
        assert_eq!((logits.len(), self.range.len()), (d.n as usize * d.classes as usize, d.n as usize));
        assert!(d.classes <= CLASSES, "{} classes, but labels are bytes", d.classes);
        self.range.start as u32
    }
}

impl Loss for Cuda {
    type Labels = Labels;
    type Tally = Tally;

    fn labels(&self, labels: &[u8]) -> Labels {
        Labels { values: Arc::new(self.upload_slice(labels)), range: 0..labels.len() }
    }

    fn labels_part(&self, range: Range<usize>, labels: &Labels) -> Labels {
        let start = labels.range.start;
        assert!(range.end <= labels.range.len());
        Labels { values: labels.values.clone(), range: start + range.start..start + range.end }
    }

    fn loss_fwd(&self, d: &LogitDims, of: LossKind, weight: f32, logits: &Buf, labels: &Labels) -> LossOut<Buf> {
        let first = labels.first(d, logits);
        let (mut loss, mut dlogits) = (self.alloc(1), self.alloc(logits.len()));
        // SAFETY: the logits are `n` × `classes` as checked, and there are `n` labels from `first`.
        unsafe {
            launch::loss_fwd(
                self,
                tuning::loss(),
                *d,
                kind(of),
                MARGIN_CONFIDENCE,
                weight,
                logits,
                first,
                &labels.values,
                &mut loss,
                &mut dlogits,
            );
        }
        LossOut { loss, dlogits }
    }

    fn predictions(&self, d: &LogitDims, logits: &Buf) -> Vec<u8> {
        assert_eq!(logits.len(), d.n as usize * d.classes as usize);
        assert!(d.classes <= CLASSES, "{} classes, but predictions are bytes", d.classes);
        let mut classes = self.alloc(d.n as usize);
        // SAFETY: the logits are `n` × `classes` as checked.
        unsafe { launch::predictions(self, tuning::predictions(d), *d, logits, &mut classes) };
        self.download_slice(&classes)
    }

    /// The counts are passed as an argument, so that a tally can begin within a step.
    fn tally_from(&self, counts: &Counts) -> Tally {
        let &Counts { samples, correct, loss, gradients, zero_gradients } = counts;
        let counts = TallyCounts { samples, correct, loss, gradients, zero_gradients };
        let mut tally = self.alloc(1);
        // SAFETY: a tally is one element.
        unsafe { launch::tally_from(self, tuning::tally(), counts, &mut tally) };
        Tally(tally)
    }

    fn tally_merge(&self, part: &Tally, tally: &mut Tally) {
        // SAFETY: a tally is one element.
        unsafe { launch::tally_merge(self, tuning::tally(), &part.0, &mut tally.0) };
    }

    fn tally_add(&self, d: &LogitDims, logits: &Buf, labels: &Labels, tally: &mut Tally) {
        let first = labels.first(d, logits);
        // SAFETY: the logits are `n` × `classes` as checked, there are `n` labels from `first`, a tally is one element.
        unsafe { launch::tally_add(self, tuning::loss(), *d, logits, first, &labels.values, &mut tally.0) };
    }

    fn tally_read(&self, tally: &Tally) -> Counts {
        let TallyCounts { samples, correct, loss, gradients, zero_gradients } = self.download_slice(&tally.0)[0];
        Counts { samples, correct, loss, gradients, zero_gradients }
    }
}
