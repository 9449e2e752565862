//! A convolution together with the pooling that follows it.

use super::{Activated, Activation, Conv, Pool};
use crate::base::dims::{Conv2dDims, Pool2dDims};

/// A convolution with bias and activation together with the max pooling that follows, for backends where the activations in
/// between need not leave the core that computes them.
pub trait ConvPool: Conv + Pool {
    /// [`Pool::max_pool2d_fwd`] of [`Conv::conv2d_fwd`]. The activation must never fall: then it may come before or after the
    /// pooling.
    fn conv2d_pool_fwd(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        x: &Self::Batch,
        w: &Self::Buf,
        b: Option<&Self::Buf>,
        activation: Activation,
    ) -> (Self::Batch, Self::Indices) {
        self.max_pool2d_fwd(p, &self.conv2d_fwd(d, x, w, b, activation))
    }

    /// Gradient with respect to `x`: [`Conv::conv2d_bwd_input`] of [`Pool::max_pool2d_bwd`], from the output `activated`.
    #[allow(clippy::too_many_arguments)]
    fn conv2d_pool_bwd_input(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        indices: &Self::Indices,
        x: &Self::Batch,
        activated: Activated<'_, Self::Batch>,
        dy: &Self::Batch,
        w: &Self::Buf,
    ) -> Self::Batch {
        self.conv2d_bwd_input(d, x, &self.max_pool2d_bwd(p, indices, Some(activated), dy), w)
    }
}
