//! Pooling.

use crate::autograd::tape::{Tape, Var};
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
    B::Winners: 'a,
{
    let d = Pool2dDims::new(x.batch_dims("max_pool2d")?, k, stride)?;
    let backend = tape.backend();
    let (y, winners) = backend.max_pool2d_fwd(&d, x.buf());
    let y = Tensor::new(y, Shape::Batch(d.y()));
    Ok(tape.record(y, &[x], move |dy, _| vec![Some(backend.max_pool2d_bwd(&d, &winners, None, dy))]))
}

/// Mean over height and width: `[n, c, h, w] -> [n, c, 1, 1]`.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if `x` is not a batch.
pub fn global_avg_pool<'a, B: Backend>(tape: &Tape<'a, B>, x: &Var<B>) -> Result<Var<B>> {
    let dims = x.batch_dims("global_avg_pool")?;
    let d = ChannelDims::new(dims);
    let backend = tape.backend();
    let y = Tensor::new(backend.avg_pool_fwd(&d, x.buf()), Shape::Batch([dims[0], dims[1], 1, 1]));
    Ok(tape.record(y, &[x], move |dy, _| vec![Some(backend.avg_pool_bwd(&d, dy))]))
}
