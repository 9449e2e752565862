//! Batch normalisation.

use super::{Activated, Activation, Memory};
use crate::base::dims::ChannelDims;

/// Mean and biased variance per channel, plain `[c]` each.
#[derive(Debug)]
pub struct ChannelStats<Buf> {
    pub mean: Buf,
    pub var: Buf,
}

/// Inputs of the forward pass of a batch normalisation, but for the statistics.
pub struct NormFwd<'a, B: Memory> {
    /// Added to the variance.
    pub eps: f32,
    /// Input.
    pub x: &'a B::Batch,
    /// Scale.
    pub gamma: &'a B::Buf,
    /// Shift.
    pub beta: &'a B::Buf,
    /// Added to the normalised values.
    pub residual: Option<&'a B::Batch>,
    /// Comes last.
    pub activation: Activation,
}

/// Inputs of the backward pass of a batch normalisation.
pub struct NormBwd<'a, B: Memory> {
    /// Added to the variance.
    pub eps: f32,
    /// Input of the forward pass.
    pub x: &'a B::Batch,
    /// Statistics that it was normalised with.
    pub stats: &'a ChannelStats<B::Buf>,
    /// Whether they are those of `x` itself, so that the gradient flows through them too.
    pub batch_stats: bool,
    /// Scale.
    pub gamma: &'a B::Buf,
    /// Shift.
    pub beta: &'a B::Buf,
    /// The activation that came last, if one did, with the output of the forward pass, which a backend may compute anew;
    /// never the identity.
    pub activated: Option<Activated<'a, B::Batch>>,
    /// Whether a residual was added; then its gradient is wanted.
    pub residual: bool,
}

/// Gradients of a batch normalisation.
pub struct NormGrads<B: Memory> {
    /// With respect to the input.
    pub dx: B::Batch,
    /// With respect to the scale: `[c]`.
    pub dgamma: B::Buf,
    /// With respect to the shift: `[c]`.
    pub dbeta: B::Buf,
    /// With respect to the residual, where it is wanted.
    pub dresidual: Option<B::Batch>,
}

/// Running statistics of a normalisation and those of a batch.
#[derive(Debug)]
pub struct RunningUpdate<'a, Buf> {
    /// Factor from a biased variance to an unbiased one.
    pub unbias: f32,
    /// Statistics of the batch.
    pub batch: &'a ChannelStats<Buf>,
    /// Running statistics, which follow them.
    pub running: &'a mut ChannelStats<Buf>,
}

/// Batch normalisation (Ioffe & Szegedy, 2015): `y = gamma (x - mean) / sqrt(var + eps) + beta`.
pub trait Norm: Memory {
    /// Statistics of the batch itself.
    fn channel_stats(&self, d: &ChannelDims, x: &Self::Batch) -> ChannelStats<Self::Buf>;
    /// Normalises with `stats`, adds the residual, then the activation.
    fn batch_norm_fwd(&self, d: &ChannelDims, f: &NormFwd<'_, Self>, stats: &ChannelStats<Self::Buf>) -> Self::Batch;
    /// The same with the statistics of `x` itself, which are returned too.
    fn batch_norm_train_fwd(&self, d: &ChannelDims, f: &NormFwd<'_, Self>) -> (Self::Batch, ChannelStats<Self::Buf>) {
        let stats = self.channel_stats(d, f.x);
        (self.batch_norm_fwd(d, f, &stats), stats)
    }
    /// Gradients of all inputs. `dy` is the gradient with respect to the output, and a backend may write `dx` in its place.
    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Self>, dy: Self::Batch) -> NormGrads<Self>;
    /// Moves running statistics towards those of a batch: `running += momentum (batch - running)`, the batch's variance
    /// multiplied by `unbias` before.
    fn update_running_stats(&self, momentum: f32, updates: &mut [RunningUpdate<'_, Self::Buf>]);
}
