//! Adversarial attacks: a file each, and [`suite`] has them all under one name.

pub mod apgd;
pub mod config;
pub mod cw_l2;
pub mod evaluation;
pub mod fab;
pub mod objective;
pub mod pgd;
pub mod probe;
pub mod square;
pub mod suite;

use serde::{Deserialize, Serialize};

use crate::backend::LossKind;
use crate::base::named_enum::named_enum;

named_enum! {
    /// What the attack maximises.
    pub enum AttackLoss: "attack loss" {
        /// Softmax cross-entropy.
        CrossEntropy = "cross-entropy",
        /// Carlini & Wagner's margin `-max(z_y - max_{j != y} z_j + 50, 0)`.
        Margin = "margin",
    }
}

impl AttackLoss {
    /// The loss behind the name.
    pub fn kind(self) -> LossKind {
        match self {
            AttackLoss::CrossEntropy => LossKind::CrossEntropy,
            AttackLoss::Margin => LossKind::Margin,
        }
    }
}

named_enum! {
    /// How batch normalisation behaves while the attack runs.
    pub enum BnMode: "batch-norm mode" {
        /// Batch statistics; running statistics stay as they are.
        Train = "train",
        /// Batch statistics, and every attack pass moves the running statistics, as in the authors' code.
        TrainMoving = "train-moving",
        /// Running statistics.
        Eval = "eval",
    }
}

/// Projected gradient descent in the l-infinity ball (Madry et al., 2018). Pixels are in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PgdConfig {
    /// Radius of the ball.
    pub eps: f32,
    /// Length of a step.
    pub step_size: f32,
    /// Number of steps.
    pub steps: usize,
    /// Start at a uniform random point of the ball instead of at the clean image.
    pub random_start: bool,
    /// Independent starts; an image counts as robust only if it withstands all of them.
    pub restarts: usize,
    /// The loss it maximises.
    pub loss: AttackLoss,
    /// Batch normalisation while training against this attack (evaluation always uses `eval`).
    pub bn: BnMode,
}

named_enum! {
    /// Shape of the attack radius over the first epochs of training.
    pub enum Ramp: "eps ramp" {
        /// Full radius from the start.
        Constant = "constant",
        /// From zero, linearly.
        Linear = "linear",
        /// From zero, along half a cosine: (1 - cos(pi t)) / 2.
        Cosine = "cosine",
    }
}

/// The attack radius, and with it the step size, over training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpsSchedule {
    /// Shape of the ramp.
    pub ramp: Ramp,
    /// Epochs until the full radius.
    pub epochs: f64,
}

impl EpsSchedule {
    /// What radius and step size are multiplied by at `step`, counted from 0 over all epochs: 0 to 1.
    pub fn strength(&self, step: u64, steps_per_epoch: u64) -> f64 {
        let t =
            if self.epochs > 0.0 { ((step + 1) as f64 / (self.epochs * steps_per_epoch as f64)).min(1.0) } else { 1.0 };
        match self.ramp {
            Ramp::Constant => 1.0,
            Ramp::Linear => t,
            Ramp::Cosine => (1.0 - (std::f64::consts::PI * t).cos()) / 2.0,
        }
    }
}
