//! Pooling.

use crate::autograd::tape::{Gradient, Tape, Var};
use crate::autograd::tensor::{Shape, Tensor};
use crate::backend::Backend;
use crate::base::dims::{ChannelDims, Pool2dDims};
use crate::base::error::Result;

/// Maximum over `k`×`k` windows; the first of equal pixels gets the gradient.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if no window fits.
pub fn max_pool2d<'a, B: Backend>(tape: &Tape<'a, B>, x: &Var<B>, k: usize, stride: usize) -> Result<Var<B>>
where
    B::Indices: 'a,
{
    let d = Pool2dDims::new(x.dims(), k, stride)?;
    let backend = tape.backend();
    let (y, indices) = backend.max_pool2d_fwd(&d, x.buf());
    let y = Tensor::new(y, Shape(d.y()));
    Ok(tape.record(y, &[x.id()], move |dy, _| {
        vec![Some(Gradient::Batch(backend.max_pool2d_bwd(&d, &indices, None, &dy)))]
    }))
}

/// Mean over height and width: `[n, c, h, w] -> [n, c, 1, 1]`.
pub fn global_avg_pool<'a, B: Backend>(tape: &Tape<'a, B>, x: &Var<B>) -> Var<B> {
    let dims = x.dims();
    let d = ChannelDims::new(dims);
    let backend = tape.backend();
    let y = Tensor::new(backend.avg_pool_fwd(&d, x.buf()), Shape([dims[0], dims[1], 1, 1]));
    tape.record(y, &[x.id()], move |dy, _| vec![Some(Gradient::Batch(backend.avg_pool_bwd(&d, &dy)))])
}
