//! The training loop, natural and adversarial.

use serde::{Deserialize, Serialize};

use crate::attack::{EpsSchedule, PgdConfig};
use crate::choice::choice;
use crate::data::DataId;
use crate::eval::EvalReport;
use crate::init::Init;
use crate::models::Network;
use crate::optim::{LrSchedule, OptimizerConfig};

choice! {
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
    /// The attack used to measure adversarial accuracy after each epoch.
    pub eval_attack: PgdConfig,
}

/// One row of `metrics.csv`: an epoch. Accuracies in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Counted from 1.
    pub epoch: usize,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    /// Attack radius of the epoch's last step.
    pub eps: f64,
    /// Mean loss on the training images as trained on (adversarial ones in adversarial training).
    pub train_loss: f64,
    /// Accuracy on the same images.
    pub train_accuracy: f64,
    /// Fraction of pixels whose input gradient was exactly zero during the training attack.
    pub zero_gradient: f64,
    /// Test accuracy and loss.
    pub test_natural: f64,
    pub test_adversarial: f64,
    pub test_natural_loss: f64,
    pub test_adversarial_loss: f64,
    /// The same on the training images put aside; empty if there are none.
    pub held_out_natural: Option<f64>,
    pub held_out_adversarial: Option<f64>,
    /// Wall time.
    pub seconds: f64,
}

/// The model of one selection rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The rule.
    pub select: Selection,
    /// The epoch it chose, counted from 1.
    pub epoch: usize,
    /// On the whole test set.
    pub test: EvalReport,
    /// On the training images put aside.
    pub held_out: Option<EvalReport>,
}

/// What a finished training stage says of itself: `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainResult {
    /// The candidate chosen by `config.select`, whose weights are in `model.safetensors`.
    pub selected: Candidate,
    /// What every selection rule would have chosen.
    pub candidates: Vec<Candidate>,
    /// The selected model predicts one class for every image, with a loss near ln(classes).
    pub collapsed: bool,
    /// Trainable parameters.
    pub parameters: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// Wall time of all epochs, interruptions excluded.
    pub seconds: f64,
}

/// Hears of a run's progress and may ask it to stop.
pub trait Observer: Sync {
    /// `passes` more image passes (one image forward and backward once) are done.
    fn advance(&self, passes: u64);
    /// An epoch ended.
    fn epoch(&self, row: &EpochRow, epochs: usize);
    /// True once the run should save its state and return [`crate::error::Error::Interrupted`].
    fn stop_requested(&self) -> bool;
}
