//! Fully connected layers.

use super::{expect_dims, saved_output};
use crate::autograd::tape::{Gradient, ParamVar, Tape, Var};
use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::{Activated, Activation, Backend};
use crate::base::dims::{ChannelDims, LinearDims};
use crate::base::error::Result;

/// `x wᵀ + b`, then the activation: `[n, ...]` flattened to `[n, f_in]`, with `[f_out, f_in]` and `[f_out]`.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if the shapes do not fit.
pub fn linear<'a, B: Backend>(
    tape: &Tape<'a, B>,
    x: &Var<B>,
    w: &ParamVar<B>,
    b: &ParamVar<B>,
    activation: Activation,
) -> Result<Var<B>> {
    let [n, c, height, width] = x.dims();
    let (f_in, f_out) = (c * height * width, w.dims()[0]);
    expect_dims("linear", "weight", w, &[f_out, f_in])?;
    expect_dims("linear", "bias", b, &[f_out])?;
    let d = LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
    let backend = tape.backend();
    let shape = [n, f_out, 1, 1];
    let y = Tensor::new(backend.linear_fwd(&d, x.buf(), w.buf(), Some(b.buf()), activation), Shape(shape));
    let (saved_x, saved_w, saved_y) = (x.tensor().clone(), w.param().clone(), saved_output(activation, &y));
    Ok(tape.record(y, &[x.id(), w.id(), b.id()], move |dy, needs| {
        let before_activation = saved_y.map(|y| backend.activation_bwd(Activated { activation, y: y.buf() }, &dy));
        let dy = before_activation.as_ref().unwrap_or(&dy);
        vec![
            needs[0].then(|| Gradient::Batch(backend.linear_bwd_input(&d, dy, saved_w.buf()))),
            needs[1].then(|| Gradient::Param(backend.linear_bwd_weight(&d, saved_x.buf(), dy))),
            needs[2].then(|| Gradient::Param(backend.bias_bwd(&ChannelDims::new(shape), dy))),
        ]
    }))
}
