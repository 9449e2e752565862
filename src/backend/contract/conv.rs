//! 2-d convolution.

use super::{Activation, Elementwise};
use crate::base::dims::{ChannelDims, Conv2dDims};

/// The contributions of other ops to the gradient of an op's input, at the time when the op's backward pass runs.
pub enum Accumulation<Batch> {
    /// Other ops are still to contribute: the op returns its own gradient.
    Partial,
    /// The op is the last: it returns the whole gradient, of which this is the sum so far.
    Last(Option<Batch>),
}

impl<Batch> Accumulation<Batch> {
    /// The sum so far, which an op that is the last adds its own gradient to.
    pub(crate) fn sum(self) -> Option<Batch> {
        match self {
            Accumulation::Partial => None,
            Accumulation::Last(sum) => sum,
        }
    }
}

/// An op's own gradient of its input, added to the sum so far if the op is the last to contribute.
pub(crate) fn accumulate<B: Elementwise>(backend: &B, own: B::Batch, accumulation: Accumulation<B::Batch>) -> B::Batch {
    match accumulation.sum() {
        None => own,
        Some(mut sum) => {
            backend.add_assign(&own, &mut sum);
            sum
        }
    }
}

/// 2-d convolution, with the bias and the activation that follow it.
pub trait Conv: Elementwise {
    /// `y = x * w + b`, then the activation. `b` is `[c_out]`.
    fn conv2d_fwd(
        &self,
        d: &Conv2dDims,
        x: &Self::Batch,
        w: &Self::Buf,
        b: Option<&Self::Buf>,
        activation: Activation,
    ) -> Self::Batch;
    /// Gradient with respect to `x`. The values of `x` are not read, only how it is stored.
    fn conv2d_bwd_input(&self, d: &Conv2dDims, x: &Self::Batch, dy: &Self::Batch, w: &Self::Buf) -> Self::Batch;
    /// The same with what other ops have contributed. If this op is the last, a backend may go on to the gradient of the op
    /// that computed `x`.
    fn conv2d_bwd_input_accumulated(
        &self,
        d: &Conv2dDims,
        x: &Self::Batch,
        dy: &Self::Batch,
        w: &Self::Buf,
        accumulation: Accumulation<Self::Batch>,
    ) -> Self::Batch {
        accumulate(self, self.conv2d_bwd_input(d, x, dy, w), accumulation)
    }
    /// Gradient with respect to `w`.
    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Self::Batch, dy: &Self::Batch) -> Self::Buf;
    /// Gradient with respect to a per-channel bias: `[c]`. Linear layers use it with `hw = 1`.
    fn bias_bwd(&self, d: &ChannelDims, dy: &Self::Batch) -> Self::Buf;
}
