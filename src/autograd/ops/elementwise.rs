//! Residual addition and ReLU.

use crate::autograd::tape::{Tape, Var};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::{Error, Result};

/// `a + b`, of the same shape.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
pub fn add<'a, B: Backend>(tape: &Tape<'a, B>, a: &Var<B>, b: &Var<B>) -> Result<Var<B>> {
    if a.shape() != b.shape() {
        return Err(Error::Shape { op: "add", expected: format!("{:?}", a.shape()), got: format!("{:?}", b.shape()) });
    }
    let backend = tape.backend();
    let y = Tensor::new(backend.add(a.buf(), b.buf()), a.shape().clone());
    Ok(tape.record(y, &[a, b], move |dy, needs| needs.iter().map(|&n| n.then(|| backend.copy(dy))).collect()))
}

/// `max(x, 0)`; the gradient at 0 is 0.
pub fn relu<'a, B: Backend>(tape: &Tape<'a, B>, x: &Var<B>) -> Var<B> {
    let backend = tape.backend();
    let y = Tensor::new(backend.relu_fwd(x.buf()), x.shape().clone());
    let saved = y.clone();
    tape.record(y, &[x], move |dy, _| vec![Some(backend.relu_bwd(saved.buf(), dy))])
}
