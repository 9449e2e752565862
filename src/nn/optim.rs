//! Optimisers and learning-rate schedules.

use serde::{Deserialize, Serialize};

use crate::autograd::tensor::Param;
use crate::backend::{AdamParam, AdamStep, Backend, Constraint, SgdParam, SgdStep};
use crate::base::error::Result;
use crate::base::named_enum::named_enum;
use crate::nn::params::ParamSpec;

/// Update rule with its constants, as PyTorch defines them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum and coupled weight decay.
    Sgd { lr: f32, momentum: f32, weight_decay: f32 },
    /// Adam (Kingma & Ba, 2015) with coupled weight decay.
    Adam { lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32 },
}

named_enum! {
    /// Shape of the learning rate over training.
    pub enum LrShape: "learning-rate schedule" {
        /// The base rate throughout.
        Constant = "constant",
        /// Multiplied by `gamma` at each epoch of `milestones`.
        MultiStep = "multi-step",
        /// Half a cosine from the base rate to zero, a new value each step (Loshchilov & Hutter, 2017).
        Cosine = "cosine",
        /// Starts over every `period` epochs and is multiplied by `gamma` after each third of one, as the authors do
        /// between two updates of ADMM's variables.
        Periodic = "periodic",
    }
}

/// The learning rate over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LrSchedule {
    /// Its shape.
    pub shape: LrShape,
    /// For `multi-step`: the epochs, counted from 0, at whose start the rate drops.
    pub milestones: Vec<usize>,
    /// For `multi-step` and `periodic`: the factor.
    pub gamma: f32,
    /// For `periodic`: epochs until the rate starts over.
    pub period: usize,
    /// Linear warm-up from zero over the first epochs.
    pub warmup_epochs: f64,
}

impl OptimizerConfig {
    /// The base learning rate.
    pub fn lr(&self) -> f32 {
        match self {
            OptimizerConfig::Sgd { lr, .. } | OptimizerConfig::Adam { lr, .. } => *lr,
        }
    }

    /// The same rule with another base learning rate, if there is one.
    pub fn with_lr(mut self, new: Option<f32>) -> Self {
        match &mut self {
            OptimizerConfig::Sgd { lr, .. } | OptimizerConfig::Adam { lr, .. } => *lr = new.unwrap_or(*lr),
        }
        self
    }

    /// Names of the buffers kept per parameter, as PyTorch calls them.
    fn slots(&self) -> &'static [&'static str] {
        match self {
            OptimizerConfig::Sgd { .. } => &["momentum_buffer"],
            OptimizerConfig::Adam { .. } => &["exp_avg", "exp_avg_sq"],
        }
    }
}

impl LrSchedule {
    /// Factor of the base rate at `step`, counted from 0 over all epochs.
    pub fn factor(&self, step: u64, steps_per_epoch: u64, epochs: usize) -> f64 {
        let epoch = (step / steps_per_epoch) as usize;
        let shape = match self.shape {
            LrShape::Constant => 1.0,
            LrShape::MultiStep => {
                f64::from(self.gamma).powi(self.milestones.iter().filter(|&&m| epoch >= m).count() as i32)
            }
            LrShape::Cosine => {
                let t = step as f64 / (steps_per_epoch * epochs as u64) as f64;
                (1.0 + (std::f64::consts::PI * t).cos()) / 2.0
            }
            LrShape::Periodic => {
                let period = (self.period.max(1) as u64) * steps_per_epoch;
                f64::from(self.gamma).powi((3 * (step % period) / period) as i32)
            }
        };
        let warm_up = self.warmup_epochs * steps_per_epoch as f64;
        if warm_up > 0.0 { shape * ((step + 1) as f64 / warm_up).min(1.0) } else { shape }
    }
}

/// An update rule with its state: per parameter, one buffer for each slot.
pub struct Optimizer<B: Backend> {
    config: OptimizerConfig,
    slots: Vec<Vec<B::Buf>>,
    /// Updates done.
    updates: u32,
}

impl<B: Backend> Optimizer<B> {
    /// Fresh state, all zero, for `params`.
    pub fn new(backend: &B, config: &OptimizerConfig, params: &[Param<B>]) -> Self {
        let zeros = |p: &Param<B>| backend.zeros(p.len());
        let slots = config.slots().iter().map(|_| params.iter().map(zeros).collect()).collect();
        Optimizer { config: config.clone(), slots, updates: 0 }
    }

    /// One update of all parameters with learning rate `lr`, each under what `constraint` says of its index.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] while a tape still shares a parameter.
    pub fn step<'c>(
        &mut self,
        backend: &B,
        lr: f32,
        grads: &[Param<B>],
        params: &mut [Param<B>],
        constraint: impl Fn(usize) -> Constraint<'c, B::Buf>,
    ) -> Result<()>
    where
        B: 'c,
    {
        self.updates += 1;
        let weights = params.iter_mut().map(Param::buf_mut).collect::<Result<Vec<_>>>()?;
        let params = weights.into_iter().zip(grads).enumerate();
        match (&self.config, &mut self.slots[..]) {
            (&OptimizerConfig::Sgd { momentum, weight_decay, .. }, [velocity]) => {
                let params = params.zip(velocity);
                let mut params: Vec<_> =
                    params.map(|((i, (w, g)), v)| SgdParam { constraint: constraint(i), g: g.buf(), v, w }).collect();
                backend.sgd_step(&SgdStep { lr, momentum, weight_decay }, &mut params);
            }
            (&OptimizerConfig::Adam { beta1, beta2, eps, weight_decay, .. }, [m, v]) => {
                let params = params.zip(m.iter_mut().zip(v));
                let mut params: Vec<_> = params
                    .map(|((i, (w, g)), (m, v))| AdamParam { constraint: constraint(i), g: g.buf(), m, v, w })
                    .collect();
                backend.adam_step(&AdamStep { lr, beta1, beta2, eps, weight_decay, t: self.updates }, &mut params);
            }
            _ => unreachable!("the slots are made from the same configuration"),
        }
        Ok(())
    }

    /// Updates done so far.
    pub fn updates(&self) -> u32 {
        self.updates
    }

    /// Everything that a file keeps: `<slot>.<parameter>` with its values.
    pub fn state(&self, backend: &B, params: &[ParamSpec]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let slots = self.config.slots().iter().zip(&self.slots);
        slots
            .flat_map(|(slot, bufs)| {
                params
                    .iter()
                    .zip(bufs)
                    .map(move |(p, buf)| (format!("{slot}.{}", p.name), p.shape.clone(), backend.download(buf)))
            })
            .collect()
    }

    /// Takes over every value of [`Optimizer::state`] from `lookup(name, shape)`.
    ///
    /// # Errors
    /// Whatever `lookup` returns.
    pub fn load_state(
        &mut self,
        backend: &B,
        params: &[ParamSpec],
        updates: u32,
        mut lookup: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        for (slot, bufs) in self.config.slots().iter().zip(&mut self.slots) {
            for (p, buf) in params.iter().zip(bufs) {
                *buf = backend.upload(&lookup(&format!("{slot}.{}", p.name), &p.shape)?);
            }
        }
        self.updates = updates;
        Ok(())
    }
}
