//! 2-d convolution.

use super::{Elementwise, Memory};
use crate::base::dims::{ChannelDims, Conv2dDims};

/// What other ops have contributed to the gradient of an op's input when the op's turn comes.
pub enum Gathered<Buf> {
    /// Others are still to contribute: the op gives its part.
    Part,
    /// The op is the last: it gives the whole, of which this is what there is so far.
    Rest(Option<Buf>),
}

/// An op's part of a gradient on top of what was gathered.
pub(crate) fn sum_gathered<B: Elementwise>(backend: &B, part: B::Buf, gathered: Gathered<B::Buf>) -> B::Buf {
    match gathered {
        Gathered::Part | Gathered::Rest(None) => part,
        Gathered::Rest(Some(mut sum)) => {
            backend.axpy(1.0, &part, &mut sum);
            sum
        }
    }
}

/// 2-d convolution, with the bias and the ReLU that follow it.
pub trait Conv: Memory {
    /// `y = x * w + b`, then ReLU if `relu`. `b` is `[c_out]`.
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Self::Buf, w: &Self::Buf, b: Option<&Self::Buf>, relu: bool) -> Self::Buf;
    /// Gradient with respect to `x`, of which a backend may want to know how it is stored.
    fn conv2d_bwd_input(&self, d: &Conv2dDims, x: &Self::Buf, dy: &Self::Buf, w: &Self::Buf) -> Self::Buf;
    /// The same, or where this op is the last to contribute, the whole gradient: then a backend may go on with it, to where
    /// `x` came from.
    fn conv2d_bwd_gathered(
        &self,
        d: &Conv2dDims,
        x: &Self::Buf,
        dy: &Self::Buf,
        w: &Self::Buf,
        gathered: Gathered<Self::Buf>,
    ) -> Self::Buf
    where
        Self: Elementwise,
    {
        sum_gathered(self, self.conv2d_bwd_input(d, x, dy, w), gathered)
    }
    /// Gradient with respect to `w`.
    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Self::Buf, dy: &Self::Buf) -> Self::Buf;
    /// Gradient with respect to a per-channel bias: `[c]`. Linear layers use it with `hw = 1`.
    fn bias_bwd(&self, d: &ChannelDims, dy: &Self::Buf) -> Self::Buf;
}
