//! 2-d convolution.

use super::expect_plain;
use crate::autograd::tape::{Tape, Var};
use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::Backend;
use crate::base::dims::{ChannelDims, Conv2dDims};
use crate::base::error::Result;

/// Checks the shapes of a convolution in the name of `op`.
pub(super) fn conv2d_dims<B: Backend>(
    op: &'static str,
    x: &Var<B>,
    w: &Var<B>,
    b: Option<&Var<B>>,
    (stride, pad): (usize, usize),
) -> Result<Conv2dDims> {
    let x_dims = x.batch_dims(op)?;
    let (c_out, k) = (w.shape().dims()[0], *w.shape().dims().last().unwrap_or(&0));
    let d = Conv2dDims::new(x_dims, c_out, k, stride, pad)?;
    expect_plain(op, "weight", w, &d.w())?;
    if let Some(b) = b {
        expect_plain(op, "bias", b, &[c_out])?;
    }
    Ok(d)
}

/// `x * w + b`, then ReLU if `relu`: `[n, c_in, h, w]` with `[c_out, c_in, k, k]` and `[c_out]`.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if the shapes do not fit.
pub fn conv2d<'a, B: Backend>(
    tape: &Tape<'a, B>,
    x: &Var<B>,
    w: &Var<B>,
    b: Option<&Var<B>>,
    (stride, pad): (usize, usize),
    relu: bool,
) -> Result<Var<B>> {
    let d = conv2d_dims("conv2d", x, w, b, (stride, pad))?;
    let backend = tape.backend();
    let y = Tensor::new(backend.conv2d_fwd(&d, x.buf(), w.buf(), b.map(Var::buf), relu), Shape::Batch(d.y()));
    let (saved_x, saved_w, saved_y) = (x.tensor().clone(), w.tensor().clone(), relu.then(|| y.clone()));
    let inputs: Vec<&Var<B>> = [Some(x), Some(w), b].into_iter().flatten().collect();
    Ok(tape.record_gathering(y, &inputs, move |dy, needs, gathered| {
        let masked = saved_y.map(|y| backend.relu_bwd(y.buf(), dy));
        let dy = masked.as_ref().unwrap_or(dy);
        let mut grads = vec![
            needs[0].then(|| backend.conv2d_bwd_gathered(&d, saved_x.buf(), dy, saved_w.buf(), gathered)),
            needs[1].then(|| backend.conv2d_bwd_weight(&d, saved_x.buf(), dy)),
        ];
        if let Some(&needed) = needs.get(2) {
            grads.push(needed.then(|| backend.bias_bwd(&ChannelDims::new(d.y()), dy)));
        }
        grads
    }))
}
