//! Residual addition and activations.

use crate::autograd::tape::{Gradient, Tape, Var};
use crate::autograd::tensor::Tensor;
use crate::backend::{Activated, Activation, Backend};
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
    Ok(tape.record(y, &[a.id(), b.id()], move |dy, needs| needs.iter().map(|&n| n.then(|| copy(&dy))).collect()))
}

/// The activation of each element; the gradient of ReLU at 0 is 0.
pub fn activate<'a, B: Backend>(tape: &Tape<'a, B>, x: &Var<B>, activation: Activation) -> Var<B> {
    let backend = tape.backend();
    let y = Tensor::new(backend.activation_fwd(activation, x.buf()), x.tensor().shape().clone());
    let saved = y.clone();
    tape.record(y, &[x.id()], move |dy, _| {
        vec![Some(Gradient::Batch(backend.activation_bwd(Activated { activation, y: saved.buf() }, &dy)))]
    })
}
