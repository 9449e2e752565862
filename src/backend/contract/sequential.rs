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

impl<'p, Buf> SequentialLayer<'p, Buf> {
    /// The same layer with `f` of its parameters.
    pub fn map_params<Other>(&self, f: impl Fn(&'p Buf) -> &'p Other) -> SequentialLayer<'p, Other> {
        match *self {
            SequentialLayer::Conv2d { d, w, b } => SequentialLayer::Conv2d { d, w: f(w), b: b.map(f) },
            SequentialLayer::Activation(activation) => SequentialLayer::Activation(activation),
            SequentialLayer::MaxPool2d(d) => SequentialLayer::MaxPool2d(d),
            SequentialLayer::Linear { d, w, b } => SequentialLayer::Linear { d, w: f(w), b: f(b) },
        }
    }
}
