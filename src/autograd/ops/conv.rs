//! 2-d convolution.

use super::{expect_dims, saved_output};
use crate::autograd::tape::{Gradient, NodeId, ParamVar, Tape, Var};
use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::{Activated, Activation, Backend};
use crate::base::dims::{ChannelDims, Conv2dDims};
use crate::base::error::Result;

/// Checks the shapes of a convolution in the name of `op`.
pub(super) fn conv2d_dims<B: Backend>(
    op: &'static str,
    x: &Var<B>,
    w: &ParamVar<B>,
    b: Option<&ParamVar<B>>,
    (stride, pad): (usize, usize),
) -> Result<Conv2dDims> {
    let (c_out, k) = (w.dims()[0], *w.dims().last().unwrap_or(&0));
    let d = Conv2dDims::new(x.dims(), c_out, k, stride, pad)?;
    expect_dims(op, "weight", w, &d.w())?;
    if let Some(b) = b {
        expect_dims(op, "bias", b, &[c_out])?;
    }
    Ok(d)
}

/// `x * w + b`, then the activation: `[n, c_in, h, w]` with `[c_out, c_in, k, k]` and `[c_out]`.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if the shapes do not fit.
pub fn conv2d<'a, B: Backend>(
    tape: &Tape<'a, B>,
    x: &Var<B>,
    w: &ParamVar<B>,
    b: Option<&ParamVar<B>>,
    (stride, pad): (usize, usize),
    activation: Activation,
) -> Result<Var<B>> {
    let d = conv2d_dims("conv2d", x, w, b, (stride, pad))?;
    let backend = tape.backend();
    let y = Tensor::new(backend.conv2d_fwd(&d, x.buf(), w.buf(), b.map(ParamVar::buf), activation), Shape(d.y()));
    let (saved_x, saved_w, saved_y) = (x.tensor().clone(), w.param().clone(), saved_output(activation, &y));
    let inputs: Vec<NodeId> = [Some(x.id()), Some(w.id()), b.map(ParamVar::id)].into_iter().flatten().collect();
    Ok(tape.record_accumulating(y, &inputs, move |dy, needs, accumulation| {
        let before_activation = saved_y.map(|y| backend.activation_bwd(Activated { activation, y: y.buf() }, &dy));
        let dy = before_activation.as_ref().unwrap_or(&dy);
        let mut gradients = vec![
            needs[0].then(|| {
                Gradient::Batch(backend.conv2d_bwd_input_accumulated(
                    &d,
                    saved_x.buf(),
                    dy,
                    saved_w.buf(),
                    accumulation,
                ))
            }),
            needs[1].then(|| Gradient::Param(backend.conv2d_bwd_weight(&d, saved_x.buf(), dy))),
        ];
        if let Some(&needed) = needs.get(2) {
            gradients.push(needed.then(|| Gradient::Param(backend.bias_bwd(&ChannelDims::new(d.y()), dy))));
        }
        gradients
    }))
}
