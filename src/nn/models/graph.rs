//! A network as a list of operations, for programs that do not know its name.

use std::cell::RefCell;

use super::layers::{BN_EPS, BatchNorm2d, Conv2d, LayerOps, Linear, layer_name};
use crate::backend::Activation;
use crate::base::error::Result;
use crate::nn::params::ParamSpec;

/// An operation on one or two values. Numbers called after a parameter are indices into
/// [`super::Architecture::params`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Convolution with zero padding on all sides.
    Conv2d {
        /// OIHW.
        weight: usize,
        /// One an output.
        bias: Option<usize>,
        /// Of both directions.
        stride: usize,
        /// Of all sides.
        pad: usize,
    },
    /// Normalisation by the running statistics.
    BatchNorm2d {
        /// Scale.
        gamma: usize,
        /// Shift.
        beta: usize,
        /// Index into [`super::Architecture::norms`].
        norm: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// `x W^T + b`.
    Linear {
        /// `[out, in]`.
        weight: usize,
        /// `[out]`.
        bias: usize,
    },
    /// An activation of each element.
    Activation(Activation),
    /// Sum of two values.
    Add,
    /// Windows of `k`×`k` at stride `k`; what is left at the lower and right edge is dropped.
    MaxPool2d {
        /// Side of a window.
        k: usize,
    },
    /// Mean over height and width, each of which becomes 1.
    GlobalAvgPool,
    /// From `[n, c, h, w]` to `[n, c h w]`.
    Flatten,
}

/// An operation and where its inputs are from.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// PyTorch's name of the layer, and behind it what follows the layer: `bn1.relu`. No two are the same.
    pub name: String,
    /// The operation.
    pub operation: Operation,
    /// Values: 0 are the images, `i + 1` is what node `i` makes.
    pub inputs: Vec<usize>,
}

/// Writes down what a network does.
pub(super) struct Recorder<'p> {
    specs: &'p [ParamSpec],
    nodes: RefCell<Vec<Node>>,
}

/// A value that exists only by its number.
#[derive(Clone, Copy)]
pub(super) struct Recorded {
    value: usize,
    /// Whether it is `[n, features]`, as linear layers read it.
    flat: bool,
}

impl<'p> Recorder<'p> {
    pub fn new(specs: &'p [ParamSpec]) -> Self {
        Recorder { specs, nodes: RefCell::default() }
    }

    /// The input of the first layer.
    pub fn images(&self) -> Recorded {
        Recorded { value: 0, flat: false }
    }

    pub fn into_nodes(self) -> Vec<Node> {
        self.nodes.into_inner()
    }

    /// A layer with parameters, one of which is `param`.
    fn layer(&self, param: usize, operation: Operation, x: Recorded) -> Recorded {
        self.push(layer_name(self.specs, param).to_string(), operation, vec![x.value], x.flat)
    }

    /// An operation behind the one that made `x`.
    fn then(&self, what: &str, operation: Operation, x: Recorded, flat: bool) -> Recorded {
        let before = x.value.checked_sub(1).map(|node| self.nodes.borrow()[node].name.clone());
        self.push(format!("{}.{what}", before.as_deref().unwrap_or("images")), operation, vec![x.value], flat)
    }

    fn activate(&self, x: Recorded, activation: Activation) -> Recorded {
        if activation.is_identity() {
            return x;
        }
        self.then(activation.name(), Operation::Activation(activation), x, x.flat)
    }

    fn push(&self, name: String, operation: Operation, inputs: Vec<usize>, flat: bool) -> Recorded {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { name, operation, inputs });
        Recorded { value: nodes.len(), flat }
    }
}

impl LayerOps for Recorder<'_> {
    type Value = Recorded;

    fn conv2d(&self, layer: &Conv2d, x: &Recorded, activation: Activation) -> Result<Recorded> {
        let &Conv2d { weight, bias, stride, pad } = layer;
        let y = self.layer(weight, Operation::Conv2d { weight, bias, stride, pad }, *x);
        Ok(self.activate(y, activation))
    }

    fn conv2d_pool(&self, layer: &Conv2d, x: &Recorded, activation: Activation, pool: usize) -> Result<Recorded> {
        self.max_pool2d(&self.conv2d(layer, x, activation)?, pool)
    }

    fn linear(&self, layer: &Linear, x: &Recorded, activation: Activation) -> Result<Recorded> {
        let &Linear { weight, bias } = layer;
        let x = if x.flat { *x } else { self.then("flatten", Operation::Flatten, *x, true) };
        let y = self.layer(weight, Operation::Linear { weight, bias }, x);
        Ok(self.activate(y, activation))
    }

    fn batch_norm2d(
        &self,
        layer: &BatchNorm2d,
        x: &Recorded,
        residual: Option<&Recorded>,
        activation: Activation,
    ) -> Result<Recorded> {
        let &BatchNorm2d { gamma, beta, norm } = layer;
        let y = self.layer(gamma, Operation::BatchNorm2d { gamma, beta, norm, eps: BN_EPS }, *x);
        let name = format!("{}.add", layer_name(self.specs, gamma));
        let y = residual.map_or(y, |r| self.push(name, Operation::Add, vec![y.value, r.value], false));
        Ok(self.activate(y, activation))
    }

    fn max_pool2d(&self, x: &Recorded, k: usize) -> Result<Recorded> {
        Ok(self.then("pool", Operation::MaxPool2d { k }, *x, false))
    }

    fn global_avg_pool(&self, x: &Recorded) -> Result<Recorded> {
        Ok(self.then("mean", Operation::GlobalAvgPool, *x, false))
    }
}
