//! A convolution together with the pooling that follows it.

use super::{Conv, Pool};
use crate::base::dims::{Conv2dDims, Pool2dDims};

/// A convolution with bias and ReLU together with the max pooling that follows, for backends where the activations in
/// between need not leave the core that computes them.
pub trait ConvPool: Conv + Pool {
    /// [`Pool::max_pool2d_fwd`] of [`Conv::conv2d_fwd`] with ReLU.
    fn conv2d_pool_fwd(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        x: &Self::Batch,
        w: &Self::Buf,
        b: Option<&Self::Buf>,
    ) -> (Self::Batch, Self::Winners) {
        self.max_pool2d_fwd(p, &self.conv2d_fwd(d, x, w, b, true))
    }

    /// Gradient with respect to `x`: [`Conv::conv2d_bwd_input`] of [`Pool::max_pool2d_bwd`], where `y` is the output.
    #[allow(clippy::too_many_arguments)]
    fn conv2d_pool_bwd_input(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        winners: &Self::Winners,
        x: &Self::Batch,
        y: &Self::Batch,
        dy: &Self::Batch,
        w: &Self::Buf,
    ) -> Self::Batch {
        self.conv2d_bwd_input(d, x, &self.max_pool2d_bwd(p, winners, Some(y), dy), w)
    }
}
