//! Layers: where their parameters are, and how they run.

use std::cell::RefCell;
use std::sync::Arc;

use crate::backend::{Backend, ChannelStats};
use crate::dims::Conv2dDims;
use crate::error::Result;
use crate::ops;
use crate::params::{NormSpec, ParamSpec, Role};
use crate::tape::{Tape, Var};

/// PyTorch's default for the variance of a batch normalisation.
const BN_EPS: f32 = 1e-5;

/// Collects the parameters of a network while its layers are laid out. `shape` is the `[c, h, w]` of the activations
/// at this point; each layer takes it from there.
pub(super) struct Builder {
    pub shape: [usize; 3],
    pub params: Vec<ParamSpec>,
    pub norms: Vec<NormSpec>,
    /// Of the forward pass of one image.
    pub multiply_adds: u64,
}

pub(super) struct Conv2d {
    weight: usize,
    bias: Option<usize>,
    stride: usize,
    pad: usize,
}

pub(super) struct Linear {
    weight: usize,
    bias: usize,
}

pub(super) struct BatchNorm2d {
    gamma: usize,
    beta: usize,
    norm: usize,
}

impl Builder {
    pub fn new(shape: [usize; 3]) -> Self {
        Builder { shape, params: Vec::new(), norms: Vec::new(), multiply_adds: 0 }
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
        let [c, h, w] = self.shape;
        let d = Conv2dDims::new([1, c, h, w], c_out, k, stride, pad)?;
        let fan_in = c * k * k;
        let weight = self.param(name, "weight", &d.w(), Role::ConvWeight);
        let bias = bias.then(|| self.param(name, "bias", &[c_out], Role::Bias { fan_in }));
        let [_, c_out, h, w] = d.y();
        self.shape = [c_out, h, w];
        self.multiply_adds += d.multiply_adds();
        Ok(Conv2d { weight, bias, stride, pad })
    }

    pub fn linear(&mut self, name: &str, f_out: usize) -> Linear {
        let f_in = self.shape.iter().product();
        self.shape = [f_out, 1, 1];
        self.multiply_adds += (f_in * f_out) as u64;
        Linear {
            weight: self.param(name, "weight", &[f_out, f_in], Role::LinearWeight),
            bias: self.param(name, "bias", &[f_out], Role::Bias { fan_in: f_in }),
        }
    }

    pub fn batch_norm2d(&mut self, name: &str) -> BatchNorm2d {
        let channels = self.shape[0];
        self.norms.push(NormSpec { name: name.to_string(), channels });
        BatchNorm2d {
            gamma: self.param(name, "weight", &[channels], Role::Gamma),
            beta: self.param(name, "bias", &[channels], Role::Beta),
            norm: self.norms.len() - 1,
        }
    }

    /// A `k`×`k` max pooling at stride `k`.
    pub fn max_pool(&mut self, k: usize) {
        let [c, h, w] = self.shape;
        self.shape = [c, h / k, w / k];
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

/// One forward pass through a network.
pub(super) struct Pass<'p, 'a, B: Backend> {
    pub tape: &'p Tape<'a, B>,
    pub params: &'p [Var<B>],
    /// Running statistics per normalisation, in evaluation mode.
    pub running: Option<&'p [Arc<ChannelStats<B::Buf>>]>,
    /// Batch statistics met on the way, in training mode.
    pub stats: RefCell<Vec<BatchStats<B::Buf>>>,
}

impl Conv2d {
    pub fn forward<'a, B: Backend>(&self, pass: &Pass<'_, 'a, B>, x: &Var<B>, relu: bool) -> Result<Var<B>>
    where
        B::Buf: 'a,
    {
        let bias = self.bias.map(|b| &pass.params[b]);
        ops::conv2d(pass.tape, x, &pass.params[self.weight], bias, (self.stride, self.pad), relu)
    }
}

impl Linear {
    pub fn forward<'a, B: Backend>(&self, pass: &Pass<'_, 'a, B>, x: &Var<B>, relu: bool) -> Result<Var<B>>
    where
        B::Buf: 'a,
    {
        ops::linear(pass.tape, x, &pass.params[self.weight], &pass.params[self.bias], relu)
    }
}

impl BatchNorm2d {
    pub fn forward<'a, B: Backend>(
        &self,
        pass: &Pass<'_, 'a, B>,
        x: &Var<B>,
        residual: Option<&Var<B>>,
        relu: bool,
    ) -> Result<Var<B>>
    where
        B::Buf: 'a,
    {
        let (gamma, beta) = (&pass.params[self.gamma], &pass.params[self.beta]);
        let bn = ops::BatchNorm { eps: BN_EPS, gamma, beta, residual, relu };
        let running = pass.running.map(|r| r[self.norm].clone());
        let (y, stats) = ops::batch_norm(pass.tape, x, bn, running)?;
        if pass.running.is_none() {
            let [n, _, h, w] = x.batch_dims("batch_norm")?;
            pass.stats.borrow_mut().push(BatchStats { norm: self.norm, stats, count: n * h * w });
        }
        Ok(y)
    }
}
