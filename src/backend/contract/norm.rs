//! Batch normalisation.

use super::Memory;
use crate::base::dims::ChannelDims;

/// Mean and biased variance per channel, plain `[c]` each.
#[derive(Debug)]
pub struct ChannelStats<Buf> {
    pub mean: Buf,
    pub var: Buf,
}

/// What a batch normalisation's backward pass starts from.
#[derive(Debug)]
pub struct NormBwd<'a, Buf> {
    /// Added to the variance.
    pub eps: f32,
    /// Input of the forward pass.
    pub x: &'a Buf,
    /// Statistics that it was normalised with.
    pub stats: &'a ChannelStats<Buf>,
    /// Whether they are those of `x` itself, so that the gradient flows through them too.
    pub batch_stats: bool,
    /// Scale.
    pub gamma: &'a Buf,
    /// Output of the forward pass, if a ReLU came last.
    pub relu: Option<&'a Buf>,
    /// Whether a residual was added; then its gradient is wanted.
    pub residual: bool,
    /// Gradient with respect to the output.
    pub dy: &'a Buf,
}

/// Gradients of a batch normalisation.
#[derive(Debug)]
pub struct NormGrads<Buf> {
    /// With respect to the input: a batch.
    pub dx: Buf,
    /// With respect to the scale: `[c]`.
    pub dgamma: Buf,
    /// With respect to the shift: `[c]`.
    pub dbeta: Buf,
    /// With respect to the residual, a batch, where it is wanted.
    pub dresidual: Option<Buf>,
}

/// Running statistics of a normalisation and those of a batch.
#[derive(Debug)]
pub struct RunningMove<'a, Buf> {
    /// From a biased variance to an unbiased one.
    pub unbias: f32,
    /// Of the batch.
    pub batch: &'a ChannelStats<Buf>,
    /// What follows them.
    pub running: &'a mut ChannelStats<Buf>,
}

/// Batch normalisation (Ioffe & Szegedy, 2015): `y = gamma (x - mean) / sqrt(var + eps) + beta`.
pub trait Norm: Memory {
    /// Statistics of the batch itself.
    fn channel_stats(&self, d: &ChannelDims, x: &Self::Buf) -> ChannelStats<Self::Buf>;
    /// Normalises with `stats`, adds `residual`, then ReLU if `relu`.
    #[allow(clippy::too_many_arguments)]
    fn batch_norm_fwd(
        &self,
        d: &ChannelDims,
        eps: f32,
        x: &Self::Buf,
        stats: &ChannelStats<Self::Buf>,
        gamma: &Self::Buf,
        beta: &Self::Buf,
        residual: Option<&Self::Buf>,
        relu: bool,
    ) -> Self::Buf;
    /// Gradients of all inputs.
    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Self::Buf>) -> NormGrads<Self::Buf>;
    /// Moves running statistics towards those of a batch: `running += momentum (batch - running)`, the batch's variance
    /// multiplied by `unbias` before.
    fn move_running(&self, momentum: f32, moves: &mut [RunningMove<'_, Self::Buf>]);
}
