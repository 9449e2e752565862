//! Fully connected layers.

use super::expect_plain;
use crate::autograd::tape::{Tape, Var};
use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::Backend;
use crate::base::dims::{ChannelDims, LinearDims};
use crate::base::error::Result;

/// `x wᵀ + b`, then ReLU if `relu`: `[n, ...]` flattened to `[n, f_in]`, with `[f_out, f_in]` and `[f_out]`.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if the shapes do not fit.
pub fn linear<'a, B: Backend>(tape: &Tape<'a, B>, x: &Var<B>, w: &Var<B>, b: &Var<B>, relu: bool) -> Result<Var<B>> {
    let [n, c, height, width] = x.batch_dims("linear")?;
    let (f_in, f_out) = (c * height * width, w.shape().dims()[0]);
    expect_plain("linear", "weight", w, &[f_out, f_in])?;
    expect_plain("linear", "bias", b, &[f_out])?;
    let d = LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
    let backend = tape.backend();
    let shape = [n, f_out, 1, 1];
    let y = Tensor::new(backend.linear_fwd(&d, x.buf(), w.buf(), Some(b.buf()), relu), Shape::Batch(shape));
    let (saved_x, saved_w, saved_y) = (x.tensor().clone(), w.tensor().clone(), relu.then(|| y.clone()));
    Ok(tape.record(y, &[x, w, b], move |dy, needs| {
        let masked = saved_y.map(|y| backend.relu_bwd(y.buf(), dy));
        let dy = masked.as_ref().unwrap_or(dy);
        vec![
            needs[0].then(|| backend.linear_bwd_input(&d, dy, saved_w.buf())),
            needs[1].then(|| backend.linear_bwd_weight(&d, saved_x.buf(), dy)),
            needs[2].then(|| backend.bias_bwd(&ChannelDims::new(shape), dy)),
        ]
    }))
}
