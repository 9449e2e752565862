//! Pooling.

use super::{Activated, Memory};
use crate::base::dims::{ChannelDims, Pool2dDims};

/// Max pooling and global average pooling.
pub trait Pool: Memory {
    /// Argmax indices of a max pooling: the largest pixel of each window.
    type Indices: Send + Sync;

    /// Maximum of each window, and where it is. Of equal pixels it is the first; NaN is larger than numbers.
    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Self::Batch) -> (Self::Batch, Self::Indices);
    /// `dy` at the largest pixel of each window, summed where windows overlap. With `activated`, of the shape of `dy`, `dy`
    /// goes through the activation first.
    fn max_pool2d_bwd(
        &self,
        d: &Pool2dDims,
        indices: &Self::Indices,
        activated: Option<Activated<'_, Self::Batch>>,
        dy: &Self::Batch,
    ) -> Self::Batch;
    /// Mean over height and width.
    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Self::Batch) -> Self::Batch;
    /// `dy / hw` at every pixel.
    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Self::Batch) -> Self::Batch;
}
