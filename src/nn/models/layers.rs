//! Layers: where their parameters are, and how they run.

use std::cell::RefCell;
use std::sync::Arc;

use crate::autograd::ops;
use crate::autograd::tape::{ParamVar, Tape, Var};
use crate::backend::{Activation, Backend, ChannelStats};
use crate::base::dims::Conv2dDims;
use crate::base::error::{Error, Result};
use crate::base::nvtx;
use crate::nn::params::{LayerSpec, NormOf, NormSpec, ParamSpec, Role};

/// Added to the variance of a batch normalisation: PyTorch's default.
pub(super) const BN_EPS: f32 = 1e-5;

/// Where a network's layout has arrived: the activations that the next layer reads.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// `[c, h, w]`.
    pub shape: [usize; 3],
    /// The channel space, an index into [`Builder::spaces`].
    pub space: usize,
}

/// Collects the parameters of a network while its layers are laid out; each layer goes on from `at`.
pub(super) struct Builder {
    pub at: At,
    pub params: Vec<ParamSpec>,
    pub norms: Vec<NormSpec>,
    pub layers: Vec<LayerSpec>,
    /// Number of channels of each space.
    pub spaces: Vec<usize>,
    /// Outputs of each layer, where they are not those of the width: of a network that was shrunk.
    outputs: Option<Vec<usize>>,
}

pub(super) struct Conv2d {
    pub weight: usize,
    pub bias: Option<usize>,
    pub stride: usize,
    pub pad: usize,
}

pub(super) struct Linear {
    pub weight: usize,
    pub bias: usize,
}

pub(super) struct BatchNorm2d {
    pub gamma: usize,
    pub beta: usize,
    pub norm: usize,
}

impl Builder {
    /// For images of this shape.
    pub fn new(shape: [usize; 3], outputs: Option<Vec<usize>>) -> Self {
        Builder {
            at: At { shape, space: 0 },
            params: Vec::new(),
            norms: Vec::new(),
            layers: Vec::new(),
            spaces: vec![shape[0]],
            outputs,
        }
    }

    /// Outputs of the next layer, which has `nominal` at this width.
    fn outputs(&self, nominal: usize) -> Result<usize> {
        let Some(outputs) = &self.outputs else { return Ok(nominal) };
        let index = self.layers.len();
        match outputs.get(index) {
            Some(&n) if (1..=nominal).contains(&n) => Ok(n),
            found => Err(Error::Usage(format!(
                "outputs: layer {index} must have 1 to {nominal}, got {}",
                found.map_or("none".to_string(), usize::to_string)
            ))),
        }
    }

    /// Books a layer that reads the present activations and writes `shape` into a space of its own.
    fn layer(&mut self, name: &str, weight: usize, bias: Option<usize>, shape: [usize; 3]) {
        let positions = shape[1] * shape[2];
        self.spaces.push(shape[0]);
        let writes = self.spaces.len() - 1;
        let multiply_adds = (self.params[weight].len() * positions) as u64;
        let reads = self.at.space;
        self.layers.push(LayerSpec { name: name.to_string(), weight, bias, norm: None, reads, writes, multiply_adds });
        self.at = At { shape, space: writes };
    }

    /// Makes the present activations and those at `other`, which are added, one channel space.
    pub fn add(&mut self, other: At) -> Result<()> {
        if self.at.shape != other.shape {
            return Err(Error::Usage(format!(
                "outputs: {:?} and {:?} cannot be added; the layers of a residual stream must have equally many",
                self.at.shape, other.shape
            )));
        }
        let joined = self.at.space;
        self.layers.iter_mut().filter(|l| l.writes == joined).for_each(|l| l.writes = other.space);
        self.at.space = other.space;
        Ok(())
    }

    fn param(&mut self, layer: &str, name: &str, shape: &[usize], role: Role) -> usize {
        self.params.push(ParamSpec { name: format!("{layer}.{name}"), shape: shape.to_vec(), role });
        self.params.len() - 1
    }

    pub fn conv2d(
        &mut self,
        name: &str,
        c_out: usize,
        k: usize,
        (stride, pad): (usize, usize),
        bias: bool,
    ) -> Result<Conv2d> {
        let [c, h, w] = self.at.shape;
        let c_out = self.outputs(c_out)?;
        let d = Conv2dDims::new([1, c, h, w], c_out, k, stride, pad)?;
        let fan_in = c * k * k;
        let weight = self.param(name, "weight", &d.w(), Role::ConvWeight);
        let bias = bias.then(|| self.param(name, "bias", &[c_out], Role::Bias { fan_in }));
        let [_, c_out, h, w] = d.y();
        self.layer(name, weight, bias, [c_out, h, w]);
        Ok(Conv2d { weight, bias, stride, pad })
    }

    /// A fully connected layer that other layers follow.
    pub fn linear(&mut self, name: &str, f_out: usize) -> Result<Linear> {
        let f_out = self.outputs(f_out)?;
        Ok(self.classifier(name, f_out))
    }

    /// The fully connected layer whose outputs are the logits: it always has one a class.
    pub fn classifier(&mut self, name: &str, classes: usize) -> Linear {
        let f_in = self.at.shape.iter().product();
        let weight = self.param(name, "weight", &[classes, f_in], Role::LinearWeight);
        let bias = self.param(name, "bias", &[classes], Role::Bias { fan_in: f_in });
        self.layer(name, weight, Some(bias), [classes, 1, 1]);
        Linear { weight, bias }
    }

    /// Normalises what the last layer writes.
    pub fn batch_norm2d(&mut self, name: &str) -> BatchNorm2d {
        let channels = self.at.shape[0];
        self.norms.push(NormSpec { name: name.to_string(), channels });
        let gamma = self.param(name, "weight", &[channels], Role::Gamma);
        let beta = self.param(name, "bias", &[channels], Role::Beta);
        let norm = self.norms.len() - 1;
        if let Some(layer) = self.layers.last_mut() {
            layer.norm = Some(NormOf { gamma, beta, norm });
        }
        BatchNorm2d { gamma, beta, norm }
    }

    /// A `k`×`k` max pooling at stride `k`.
    pub fn max_pool(&mut self, k: usize) {
        let [c, h, w] = self.at.shape;
        self.at.shape = [c, h / k, w / k];
    }

    /// Averages over height and width.
    pub fn global_avg_pool(&mut self) {
        self.at.shape = [self.at.shape[0], 1, 1];
    }
}

/// Statistics that a batch normalisation computed in one pass.
pub(super) struct BatchStats<Buf> {
    /// Which normalisation.
    pub norm: usize,
    pub stats: Arc<ChannelStats<Buf>>,
    /// How many values each channel's are made of.
    pub count: usize,
}

/// Does the layers on a tape, in one forward pass.
pub(super) struct TapeOps<'p, 'a, B: Backend> {
    pub tape: &'p Tape<'a, B>,
    pub params: &'p [ParamVar<B>],
    /// Their names, shapes and roles.
    pub specs: &'p [ParamSpec],
    /// Running statistics per normalisation, in evaluation mode.
    pub running: Option<&'p [Arc<ChannelStats<B::Buf>>]>,
    /// Batch statistics met on the way, in training mode.
    pub stats: RefCell<Vec<BatchStats<B::Buf>>>,
}

impl<B: Backend> TapeOps<'_, '_, B> {
    /// A profiler's range around the layer with this parameter.
    fn range(&self, param: usize) -> nvtx::Range {
        nvtx::range(|| layer_name(self.specs, param).to_string())
    }
}

/// PyTorch's name of the layer that a parameter is of.
pub(super) fn layer_name(specs: &[ParamSpec], param: usize) -> &str {
    let name = &specs[param].name;
    name.rsplit_once('.').map_or(name.as_str(), |(layer, _)| layer)
}

/// Interpreter of a network: a network says once which layer follows which, and this does the layers, on a batch of images
/// ([`TapeOps`]) or to a list of operations for other programs ([`super::graph::Recorder`]).
pub(super) trait LayerOps {
    /// A value between two layers.
    type Value: Clone;

    fn conv2d(&self, layer: &Conv2d, x: &Self::Value, activation: Activation) -> Result<Self::Value>;
    /// With a monotonically non-decreasing activation and max pooling of `pool`×`pool` windows.
    fn conv2d_pool(&self, layer: &Conv2d, x: &Self::Value, activation: Activation, pool: usize) -> Result<Self::Value>;
    fn linear(&self, layer: &Linear, x: &Self::Value, activation: Activation) -> Result<Self::Value>;
    fn batch_norm2d(
        &self,
        layer: &BatchNorm2d,
        x: &Self::Value,
        residual: Option<&Self::Value>,
        activation: Activation,
    ) -> Result<Self::Value>;
    /// Windows of `k`×`k` at stride `k`.
    fn max_pool2d(&self, x: &Self::Value, k: usize) -> Result<Self::Value>;
    fn global_avg_pool(&self, x: &Self::Value) -> Result<Self::Value>;
}

impl<'a, B: Backend> LayerOps for TapeOps<'_, 'a, B>
where
    B: 'a,
{
    type Value = Var<B>;

    fn conv2d(&self, layer: &Conv2d, x: &Var<B>, activation: Activation) -> Result<Var<B>> {
        let _range = self.range(layer.weight);
        let bias = layer.bias.map(|b| &self.params[b]);
        ops::conv2d(self.tape, x, &self.params[layer.weight], bias, (layer.stride, layer.pad), activation)
    }

    fn conv2d_pool(&self, layer: &Conv2d, x: &Var<B>, activation: Activation, pool: usize) -> Result<Var<B>> {
        let _range = self.range(layer.weight);
        let bias = layer.bias.map(|b| &self.params[b]);
        ops::conv2d_pool(self.tape, x, &self.params[layer.weight], bias, (layer.stride, layer.pad), activation, pool)
    }

    fn linear(&self, layer: &Linear, x: &Var<B>, activation: Activation) -> Result<Var<B>> {
        let _range = self.range(layer.weight);
        ops::linear(self.tape, x, &self.params[layer.weight], &self.params[layer.bias], activation)
    }

    fn batch_norm2d(
        &self,
        layer: &BatchNorm2d,
        x: &Var<B>,
        residual: Option<&Var<B>>,
        activation: Activation,
    ) -> Result<Var<B>> {
        let _range = self.range(layer.gamma);
        let (gamma, beta) = (&self.params[layer.gamma], &self.params[layer.beta]);
        let bn = ops::BatchNorm { eps: BN_EPS, gamma, beta, residual, activation };
        let running = self.running.map(|r| r[layer.norm].clone());
        let (y, stats) = ops::batch_norm(self.tape, x, bn, running)?;
        if self.running.is_none() {
            let [n, _, h, w] = x.dims();
            self.stats.borrow_mut().push(BatchStats { norm: layer.norm, stats, count: n * h * w });
        }
        Ok(y)
    }

    fn max_pool2d(&self, x: &Var<B>, k: usize) -> Result<Var<B>> {
        ops::max_pool2d(self.tape, x, k, k)
    }

    fn global_avg_pool(&self, x: &Var<B>) -> Result<Var<B>> {
        Ok(ops::global_avg_pool(self.tape, x))
    }
}
