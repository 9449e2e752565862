//! Residual addition and ReLU.

use crate::autograd::tape::{Gradient, Tape, Var};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::{Error, Result};

/// `a + b`, of the same shape.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
pub fn add<'a, B: Backend>(tape: &Tape<'a, B>, a: &Var<B>, b: &Var<B>) -> Result<Var<B>> {
    let (a_shape, b_shape) = (a.tensor().shape(), b.tensor().shape());
    if a_shape != b_shape {
        return Err(Error::Shape { op: "add", expected: format!("{a_shape:?}"), got: format!("{b_shape:?}") });
    }
    let backend = tape.backend();
    let y = Tensor::new(backend.add(a.buf(), b.buf()), a_shape.clone());
    let copy = move |dy: &B::Batch| Gradient::Batch(backend.copy_batch(dy));
    Ok(tape.record(y, &[a.id(), b.id()], move |dy, needs| needs.iter().map(|&n| n.then(|| copy(dy))).collect()))
}

/// `max(x, 0)`; the gradient at 0 is 0.
pub fn relu<'a, B: Backend>(tape: &Tape<'a, B>, x: &Var<B>) -> Var<B> {
    let backend = tape.backend();
    let y = Tensor::new(backend.relu_fwd(x.buf()), x.tensor().shape().clone());
    let saved = y.clone();
    tape.record(y, &[x.id()], move |dy, _| vec![Some(Gradient::Batch(backend.relu_bwd(saved.buf(), dy)))])
}
