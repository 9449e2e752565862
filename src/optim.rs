//! Optimisers and learning-rate schedules.

use serde::{Deserialize, Serialize};

use crate::choice::choice;

/// Update rule with its constants, as PyTorch defines them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum and coupled weight decay.
    Sgd { lr: f32, momentum: f32, weight_decay: f32 },
    /// Adam (Kingma & Ba, 2015) with coupled weight decay.
    Adam { lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32 },
}

choice! {
    /// Shape of the learning rate over training.
    pub enum LrShape: "learning-rate schedule" {
        /// The base rate throughout.
        Constant = "constant",
        /// Multiplied by `gamma` at each epoch of `milestones`.
        MultiStep = "multi-step",
        /// Half a cosine from the base rate to zero, a new value each step (Loshchilov & Hutter, 2017).
        Cosine = "cosine",
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
    /// For `multi-step`: the factor.
    pub gamma: f32,
    /// Linear warm-up from zero over the first epochs.
    pub warmup_epochs: f64,
}
