//! 2-d convolution with an activation and max pooling.

use std::cell::LazyCell;

use super::conv::conv2d_dims;
use crate::autograd::tape::{Gradient, NodeId, ParamVar, Tape, Var};
use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::{Activated, Activation, Backend};
use crate::base::dims::{ChannelDims, Pool2dDims};
use crate::base::error::Result;

/// The maximum over `pool`×`pool` windows, side by side, of the activation of `x * w + b`: what [`super::conv2d`] and
/// [`super::max_pool2d`] compute one after the other, for a monotonically non-decreasing activation. The backward pass works on the pooled
/// output.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if the shapes do not fit.
pub fn conv2d_pool<'a, B: Backend>(
    tape: &Tape<'a, B>,
    x: &Var<B>,
    w: &ParamVar<B>,
    b: Option<&ParamVar<B>>,
    (stride, pad): (usize, usize),
    activation: Activation,
    pool: usize,
) -> Result<Var<B>>
where
    B::Indices: 'a,
{
    let d = conv2d_dims("conv2d_pool", x, w, b, (stride, pad))?;
    let p = Pool2dDims::new(d.y(), pool, pool)?;
    let backend = tape.backend();
    let (y, indices) = backend.conv2d_pool_fwd(&d, &p, x.buf(), w.buf(), b.map(ParamVar::buf), activation);
    let y = Tensor::new(y, Shape(p.y()));
    let (saved_x, saved_w, saved_y) = (x.tensor().clone(), w.param().clone(), y.clone());
    let inputs: Vec<NodeId> = [Some(x.id()), Some(w.id()), b.map(ParamVar::id)].into_iter().flatten().collect();
    Ok(tape.record(y, &inputs, move |dy, needs| {
        let (x, w, activated) = (saved_x.buf(), saved_w.buf(), Activated { activation, y: saved_y.buf() });
        // For weights and bias; the gradient of the input goes through the activation on its way.
        let before_activation = LazyCell::new(|| backend.activation_bwd(activated, &dy));
        let mut gradients = vec![
            needs[0].then(|| Gradient::Batch(backend.conv2d_pool_bwd_input(&d, &p, &indices, x, activated, &dy, w))),
            needs[1].then(|| {
                let dy = backend.max_pool2d_bwd(&p, &indices, None, &before_activation);
                Gradient::Param(backend.conv2d_bwd_weight(&d, x, &dy))
            }),
        ];
        if let Some(&needed) = needs.get(2) {
            // Every gradient goes to one pixel, so their sum is the same.
            gradients
                .push(needed.then(|| Gradient::Param(backend.bias_bwd(&ChannelDims::new(p.y()), &before_activation))));
        }
        gradients
    }))
}
