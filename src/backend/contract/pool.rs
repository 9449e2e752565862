//! Pooling.

use super::Memory;
use crate::base::dims::{ChannelDims, Pool2dDims};

/// Pooling.
pub trait Pool: Memory {
    /// What the backward pass of a max pooling needs: which pixel of each window won.
    type Winners: Send + Sync;

    /// Maximum of each window; the first one wins a tie, NaN wins over numbers.
    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Self::Batch) -> (Self::Batch, Self::Winners);
    /// `dy` at each window's winner, summed where windows overlap. With `relu`, the output, a ReLU came before or after the
    /// pooling, which is the same; then `dy` goes through it first.
    fn max_pool2d_bwd(
        &self,
        d: &Pool2dDims,
        winners: &Self::Winners,
        relu: Option<&Self::Batch>,
        dy: &Self::Batch,
    ) -> Self::Batch;
    /// Mean over height and width.
    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Self::Batch) -> Self::Batch;
    /// `dy / hw` at every pixel.
    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Self::Batch) -> Self::Batch;
}
