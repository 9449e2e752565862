//! Losses of the logits.

use crate::autograd::tape::{ParamVar, Tape, Var};
use crate::autograd::tensor::Param;
use crate::backend::{Backend, LossKind};
use crate::base::dims::LogitDims;

/// `weight × Σ loss(logits, labels)`, a scalar: `weight` is 1 / n for the mean.
pub fn loss<'a, B: Backend>(
    tape: &Tape<'a, B>,
    kind: LossKind,
    weight: f32,
    logits: &Var<B>,
    labels: &B::Labels,
) -> ParamVar<B>
where
    B::Batch: 'a,
{
    let dims = logits.dims();
    let d = LogitDims { n: dims[0] as u32, classes: dims[1] as u32 };
    let backend = tape.backend();
    let out = backend.loss_fwd(&d, kind, weight, logits.buf(), labels);
    tape.record_scalar(Param::new(out.loss, vec![1]), logits, out.dlogits)
}
