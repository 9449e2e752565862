//! Adversarial attacks, a file each. [`config`] lists them, and [`suite`] runs them in order on the images that are left.

pub mod apgd;
pub mod config;
pub mod cw_l2;
pub mod evaluation;
pub mod fab;
pub mod objective;
pub mod pgd;
pub mod preset;
pub mod round;
pub mod square;
pub mod suite;
pub mod target_model;
pub mod transfer;

use serde::{Deserialize, Serialize};

use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, Distance};
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
pub use pgd::{AttackLoss, BnMode, PgdConfig};
use round::Round;
use target_model::TargetModel;

/// Is told, from any thread, how many images have been sent through a network; its error ends the work.
pub type OnImagePasses<'a> = &'a (dyn Fn(u64) -> Result<()> + Sync);

/// An attack with its settings.
pub trait Attack {
    /// Its usual name.
    fn name(&self) -> &'static str;

    /// Radius within which an adversarial image counts.
    fn eps(&self) -> f32;

    /// How the radius is measured.
    fn distance(&self) -> Distance {
        Distance::LInf
    }

    /// Whether it uses gradients of the network under attack.
    fn is_white_box(&self) -> bool {
        true
    }

    /// Whether it attacks another network, the surrogate.
    fn needs_surrogate(&self) -> bool {
        false
    }

    /// The settings of the PGD that it is, if it is one.
    fn pgd(&self) -> Option<&PgdConfig> {
        None
    }

    /// Fewest classes for which it is defined.
    fn fewest_classes(&self) -> usize {
        2
    }

    /// The settings that must not be 0, by name.
    fn at_least_one(&self) -> Vec<(&'static str, usize)>;

    /// Rounds on a network of `classes` classes.
    fn rounds(&self, classes: usize) -> usize;

    /// Most image passes of a round over one image.
    fn image_passes(&self) -> u64;

    /// Checks that the settings make sense for a network of `classes` classes.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the setting, or the number of classes that the attack needs.
    fn validate(&self, classes: usize) -> Result<()> {
        let needs = self.fewest_classes();
        if classes < needs {
            return Err(Error::Usage(format!(
                "--attack {}: needs {needs} classes or more, the network has {classes}; use apgd-ce or pgd",
                self.name()
            )));
        }
        if !(self.eps().is_finite() && self.eps() >= 0.0) {
            return Err(Error::Usage(format!("--eps: must be at least 0, got {}", self.eps())));
        }
        match self.at_least_one().iter().find(|(_, value)| *value == 0) {
            Some((what, _)) => Err(Error::Usage(format!("--attack {}: {what} must be at least 1, got 0", self.name()))),
            None => Ok(()),
        }
    }

    /// Runs a round and returns, for each image, the best attempt at an adversarial one. Whether it is one is for the
    /// caller to judge.
    ///
    /// # Errors
    /// As [`TargetModel::forward`]; [`Error::Usage`] where the surrogate is missing.
    fn run<B: Backend>(&self, target_model: &TargetModel<'_, B>, round: &Round<'_, B>) -> Result<Tensor<B>>
    where
        Self: Sized;
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
    /// Factor of radius and step size at `step`, counted from 0 over all epochs: 0 to 1.
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
