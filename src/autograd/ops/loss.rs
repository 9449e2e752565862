//! Losses of the logits.

use crate::autograd::tape::{Tape, Var};
use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::{Backend, LossKind};
use crate::base::dims::LogitDims;
use crate::base::error::Result;

/// `weight × Σ loss(logits, labels)`, a scalar: `weight` is 1 / n for the mean.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if `logits` is not a batch.
pub fn loss<'a, B: Backend>(
    tape: &Tape<'a, B>,
    kind: LossKind,
    weight: f32,
    logits: &Var<B>,
    labels: &B::Labels,
) -> Result<Var<B>>
where
    B::Buf: 'a,
{
    let dims = logits.batch_dims("loss")?;
    let d = LogitDims { n: dims[0] as u32, classes: dims[1] as u32 };
    let backend = tape.backend();
    let out = backend.loss_fwd(&d, kind, weight, logits.buf(), labels);
    Ok(tape.record_scalar(Tensor::new(out.loss, Shape::Plain(vec![1])), logits, out.dlogits))
}
