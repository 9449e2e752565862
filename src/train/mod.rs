//! The training loop, natural and adversarial, dense and sparse.

mod config;
mod initial_model;
mod run;
mod sparse;
mod state;
mod step;

pub use config::{
    MaskedConfig, Origin, ProximalConfig, ProximalEvery, Selection, Sparsity, TrainConfig, validate_attack,
};
pub use run::train;
pub use sparse::Sparsifier;
pub use step::Trainer;

use serde::{Deserialize, Serialize};

use crate::attack::evaluation::EvalReport;
use crate::backend::Residuals;
use crate::base::error::{Error, Result};

/// File of a run's epochs, an [`EpochRow`] each.
pub const METRICS_FILE: &str = "metrics.csv";

/// One row of [`METRICS_FILE`]: an epoch. Accuracies in percent.
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
    /// Test accuracy and loss; empty for an epoch that was not measured.
    pub test_natural: Option<f64>,
    pub test_adversarial: Option<f64>,
    pub test_natural_loss: Option<f64>,
    pub test_adversarial_loss: Option<f64>,
    /// The same on the training images put aside; empty if there are none.
    pub held_out_natural: Option<f64>,
    pub held_out_adversarial: Option<f64>,
    /// Wall time.
    pub seconds: f64,
}

/// File of the residuals of a run with ADMM, a [`ResidualRow`] each.
pub const RESIDUALS_FILE: &str = "residuals.csv";

/// One row of [`RESIDUALS_FILE`]: a parameter at an update of ADMM's variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResidualRow {
    /// The epoch after which the update was made, counted from 1.
    pub epoch: usize,
    /// Name of the parameter.
    pub param: String,
    /// Weight of the penalty until the update.
    pub rho: f32,
    /// Primal residual, `‖W - Z‖ / ‖W‖`.
    pub primal: f64,
    /// Dual residual, `rho ‖Z - Z_old‖ / ‖W‖`.
    pub dual: f64,
}

impl ResidualRow {
    fn new(epoch: usize, param: String, rho: f32, norms: &Residuals) -> Self {
        // Weights that are all zero are their own projection.
        let relative = |norm: f64| if norm == 0.0 { 0.0 } else { norm / norms.weight };
        let (primal, dual) = (relative(norms.primal), f64::from(rho) * relative(norms.dual));
        ResidualRow { epoch, param, rho, primal, dual }
    }
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

/// The result of a training stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainResult {
    /// The candidate chosen by `config.select`, whose weights are in `model.safetensors`.
    pub selected: Candidate,
    /// The candidate of every selection rule.
    pub candidates: Vec<Candidate>,
    /// The selected model is no better than the best constant answer, as [`EvalReport::collapsed`] says.
    pub collapsed: bool,
    /// Trainable parameters of the network that was trained.
    pub parameters: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// Wall time of all epochs, interruptions excluded.
    pub seconds: f64,
}

/// Hears of a run's progress and may ask it to stop.
pub trait Observer: Sync {
    /// So many more image passes are done; in one, an image is sent through the network once.
    fn advance(&self, image_passes: u64);
    /// From now on this many image passes are left, at most: some of those planned are not needed.
    fn expect(&self, _left: u64) {}
    /// An epoch ended.
    fn epoch(&self, row: &EpochRow, epochs: usize);
    /// True once the run should save its state and return [`Error::Interrupted`].
    fn stop_requested(&self) -> bool;

    /// Tells of image passes, and checks for an interruption.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the run should stop.
    fn advance_unless_stopped(&self, image_passes: u64) -> Result<()> {
        self.advance(image_passes);
        if self.stop_requested() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residuals_are_relative_to_the_weights_and_the_dual_one_is_weighed() {
        let row = |weight, primal, dual| {
            let norms = Residuals { weight, primal, dual };
            let row = ResidualRow::new(3, "conv1.weight".into(), 0.5, &norms);
            assert_eq!((row.epoch, row.param.as_str(), row.rho), (3, "conv1.weight", 0.5));
            (row.primal, row.dual)
        };
        assert_eq!(row(4.0, 3.0, 2.0), (0.75, 0.25));
        assert_eq!(row(0.0, 0.0, 0.0), (0.0, 0.0), "weights that are all zero are where they belong");
    }
}
