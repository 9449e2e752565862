//! The settings that decide the result of a training run.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::attack::evaluation;
use crate::attack::{EpsSchedule, PgdConfig};
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::data::DataId;
use crate::nn::init::Init;
use crate::nn::models::{Architecture, MAX_WIDTH, Network};
use crate::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use crate::prune::{self, AdmmConfig, Target};

named_enum! {
    /// Which epoch's weights a finished stage keeps as its model.
    pub enum Selection: "model selection" {
        /// Best adversarial accuracy on the test set: what the paper did, although it leaks the test set.
        TestBest = "test-best",
        /// Best adversarial accuracy on training images put aside: honest.
        HeldOut = "held-out",
        /// The last epoch.
        Last = "last",
    }
}

named_enum! {
    /// Where a run's first weights come from.
    pub enum Origin: "origin" {
        /// The initialiser.
        Initialisation = "initialisation",
        /// The parent stage's model.
        Parent = "parent",
        /// The initialiser, at the places that the parent's pruned model has kept (Frankle & Carbin, "The lottery
        /// ticket hypothesis", 2019).
        Inherited = "inherited",
    }
}

named_enum! {
    /// How often the proximal gradient method projects.
    pub enum ProximalEvery: "projection interval" {
        /// After every update of the weights.
        Step = "step",
        /// After every epoch.
        Epoch = "epoch",
    }
}

/// How a training makes or keeps weights sparse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Sparsity {
    /// Nothing.
    Dense,
    /// Keeps the parent's zeros.
    Masked(MaskedConfig),
    /// Adds ADMM's penalty, for a hard prune afterwards.
    Admm(AdmmConfig),
    /// Projects the weights as it goes, for a hard prune afterwards.
    Proximal(ProximalConfig),
}

/// Training with fixed masks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskedConfig {
    /// The target that the parent was pruned to.
    #[serde(flatten)]
    pub target: Target,
    /// Train the small network that is left when the zeros are removed; the same up to rounding, and faster.
    pub compact: bool,
}

/// The proximal gradient method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProximalConfig {
    /// The target of the projection.
    #[serde(flatten)]
    pub target: Target,
    /// How often.
    pub every: ProximalEvery,
}

impl Sparsity {
    /// The target that the network is, or will be, pruned to.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Sparsity::Dense => None,
            Sparsity::Masked(config) => Some(&config.target),
            Sparsity::Admm(config) => Some(&config.target),
            Sparsity::Proximal(config) => Some(&config.target),
        }
    }
}

/// More than any data set has; a batch is never larger than that.
const MAX_BATCH: usize = 1 << 20;

/// Everything that decides the result of one training run. Serialised, it is the stage's identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The data set and the fingerprint of its content.
    pub data: DataId,
    /// Random crop (padding 4) and horizontal flip of the training images.
    pub augment: bool,
    /// Network architecture.
    pub network: Network,
    /// Width multiplier w.
    pub width: usize,
    /// Where the first weights come from.
    pub origin: Origin,
    /// Initialiser of the convolution weights; everything else has the PyTorch layer defaults.
    pub init: Init,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch: usize,
    /// Training images put aside for held-out selection.
    pub held_out: usize,
    /// Which epoch's weights become the stage's model.
    pub select: Selection,
    /// Key of every random number of the run.
    pub seed: u64,
    /// Update rule and its constants.
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    pub schedule: LrSchedule,
    /// The attack trained against; `None` is natural training.
    pub attack: Option<PgdConfig>,
    /// The attack's radius over time.
    pub eps_schedule: EpsSchedule,
    /// The attack used to measure adversarial accuracy.
    pub eval_attack: PgdConfig,
    /// Epochs between measurements; the last epoch is always measured.
    pub eval_every: usize,
    /// How it makes or keeps weights sparse.
    pub sparsity: Sparsity,
}

impl TrainConfig {
    /// Image passes of the whole run on `train` training images (those put aside included) and `test` test images.
    pub fn image_passes(&self, train: usize, test: usize) -> u64 {
        let measurements = self.epochs.div_ceil(self.eval_every.max(1)) as u64;
        self.epochs as u64 * self.image_passes_of_an_epoch(train)
            + measurements * self.image_passes_of_a_measurement(test)
    }

    /// Image passes of an epoch's training steps on `train` training images, those put aside included: a step passes each
    /// image once for every attack step and once for the weights.
    pub fn image_passes_of_an_epoch(&self, train: usize) -> u64 {
        let steps = self.attack.as_ref().map_or(0, |attack| attack.steps);
        train.saturating_sub(self.held_out) as u64 * (steps as u64 + 1)
    }

    /// Image passes of a measurement on `test` test images and those put aside: each image is passed once clean, and for each
    /// restart once for every attack step and once attacked.
    pub fn image_passes_of_a_measurement(&self, test: usize) -> u64 {
        evaluation::image_passes(test + self.held_out, Some(&self.eval_attack))
    }

    /// Checks every value against its range; `train` is the number of training images.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first setting that is out of range, as `--set` spells it.
    pub fn validate(&self, train: usize) -> Result<()> {
        within("epochs", self.epochs, 1..=100_000)?;
        within("batch", self.batch, 1..=MAX_BATCH)?;
        within("eval_every", self.eval_every, 1..=100_000)?;
        within("width", self.width, 1..=MAX_WIDTH)?;
        if self.held_out >= train {
            let got = self.held_out;
            return Err(Error::Usage(format!(
                "held_out: must be below the {train} training images, got {got}; change it with --set held_out=N"
            )));
        }
        // TOML, the format of a stage's config.toml, has signed integers only.
        if i64::try_from(self.seed).is_err() {
            return Err(Error::Usage(format!("seed: must be below 2^63, got {}", self.seed)));
        }
        if self.network.input() != self.data.name.info().shape {
            let (network, data) = (self.network, self.data.name);
            return Err(Error::Usage(format!(
                "network: '{network}' takes images of another size than those of {data}; choose another network or data \
                 set"
            )));
        }
        validate_optimizer(&self.optimizer)?;
        if self.schedule.shape == LrShape::Periodic {
            within("schedule.period", self.schedule.period, 1..=100_000)?;
        }
        in_range("schedule.gamma", self.schedule.gamma.into(), 0.0..f64::INFINITY)?;
        in_range("schedule.warmup_epochs", self.schedule.warmup_epochs, 0.0..f64::INFINITY)?;
        in_range("eps_schedule.epochs", self.eps_schedule.epochs, 0.0..f64::INFINITY)?;
        if let Some(attack) = &self.attack {
            validate_attack("attack", attack)?;
            if attack.restarts != 1 {
                let got = attack.restarts;
                return Err(Error::Usage(format!(
                    "attack.restarts: training attacks from one start, got {got}; for a stronger measurement change \
                     eval_attack.restarts"
                )));
            }
        }
        validate_attack("eval_attack", &self.eval_attack)?;
        self.validate_sparsity()
    }

    fn validate_sparsity(&self) -> Result<()> {
        let masked = matches!(self.sparsity, Sparsity::Masked(_));
        match self.origin {
            Origin::Initialisation if masked => {
                return Err(Error::Usage(
                    "sparsity: a fresh network has no masks; train from a pruned one (origin = parent or inherited)"
                        .to_string(),
                ));
            }
            Origin::Inherited if !masked => {
                return Err(Error::Usage(
                    "origin: only masked training inherits an initialisation; use parent or initialisation".to_string(),
                ));
            }
            _ => {}
        }
        if let Some(target) = self.sparsity.target() {
            prune::groups(&Architecture::new(self.network, self.width, 1)?, target)?;
        }
        if let Sparsity::Admm(admm) = &self.sparsity {
            in_range("sparsity.rho", admm.rho.into(), 0.0..f64::INFINITY)?;
            in_range("sparsity.growth", admm.growth.into(), 0.0..f64::INFINITY)?;
            within("sparsity.update_every", admm.update_every, 1..=100_000)?;
        }
        Ok(())
    }
}

fn validate_optimizer(optimizer: &OptimizerConfig) -> Result<()> {
    let (lr, weight_decay) = match *optimizer {
        OptimizerConfig::Sgd { lr, momentum, weight_decay } => {
            in_range("optimizer.momentum", momentum.into(), 0.0..1.0)?;
            (lr, weight_decay)
        }
        OptimizerConfig::Adam { lr, beta1, beta2, eps, weight_decay } => {
            in_range("optimizer.beta1", beta1.into(), 0.0..1.0)?;
            in_range("optimizer.beta2", beta2.into(), 0.0..1.0)?;
            in_range("optimizer.eps", eps.into(), 0.0..f64::INFINITY)?;
            (lr, weight_decay)
        }
    };
    in_range("optimizer.lr", lr.into(), 0.0..f64::INFINITY)?;
    in_range("optimizer.weight_decay", weight_decay.into(), 0.0..f64::INFINITY)
}

/// Checks an attack's values; `group` is what `--set` calls the attack.
///
/// # Errors
/// [`Error::Usage`] naming the first that is out of range.
pub fn validate_attack(group: &str, attack: &PgdConfig) -> Result<()> {
    in_range(&format!("{group}.eps"), attack.eps.into(), 0.0..f64::INFINITY)?;
    in_range(&format!("{group}.step_size"), attack.step_size.into(), 0.0..f64::INFINITY)?;
    within(&format!("{group}.steps"), attack.steps, 1..=10_000)?;
    within(&format!("{group}.restarts"), attack.restarts, 1..=1_000)
}

/// The upper bounds are far beyond sense; they keep products of settings within 64 bits.
fn within(name: &str, value: usize, range: RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::Usage(format!("{name}: must be {} to {}, got {value}", range.start(), range.end())))
}

/// NaN is in no range, and infinity above every one.
fn in_range(name: &str, value: f64, range: std::ops::Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let bound = if range.end.is_finite() { format!(" and below {}", range.end) } else { " and finite".to_string() };
    Err(Error::Usage(format!("{name}: must be at least {}{bound}, got {value}", range.start)))
}
