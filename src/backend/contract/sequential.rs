//! Networks as data.

use super::Activation;
use crate::base::dims::{Conv2dDims, LinearDims, Pool2dDims};

/// A layer of a network that is a chain of layers, with its sizes for a batch and its parameters. Each layer reads what the one
/// before it writes.
pub enum SequentialLayer<'p, Buf> {
    /// Convolution with weights `[c_out, c_in, k, k]`.
    Conv2d {
        /// Sizes.
        d: Conv2dDims,
        /// Weights.
        w: &'p Buf,
        /// Biases, one for each output channel.
        b: Option<&'p Buf>,
    },
    /// A function of each element.
    Activation(Activation),
    /// Max pooling.
    MaxPool2d(Pool2dDims),
    /// `x W^T + b` with weights `[f_out, f_in]`, of features in PyTorch's order.
    Linear {
        /// Sizes.
        d: LinearDims,
        /// Weights.
        w: &'p Buf,
        /// Biases, one for each output.
        b: &'p Buf,
    },
}
