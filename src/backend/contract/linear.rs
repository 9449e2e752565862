//! Fully connected layers.

use super::{Activation, Memory};
use crate::base::dims::LinearDims;

/// Fully connected layers, with the bias and the activation that follow.
pub trait Linear: Memory {
    /// `y = x wᵀ + b`, then the activation. `b` is `[f_out]`.
    fn linear_fwd(
        &self,
        d: &LinearDims,
        x: &Self::Batch,
        w: &Self::Buf,
        b: Option<&Self::Buf>,
        activation: Activation,
    ) -> Self::Batch;
    /// Gradient with respect to `x`.
    fn linear_bwd_input(&self, d: &LinearDims, dy: &Self::Batch, w: &Self::Buf) -> Self::Batch;
    /// Gradient with respect to `w`.
    fn linear_bwd_weight(&self, d: &LinearDims, x: &Self::Batch, dy: &Self::Batch) -> Self::Buf;
}
