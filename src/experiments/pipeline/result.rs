//! The result of a finished stage: the content of `result.json`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stage::StageConfig;
use crate::attack::evaluation::EvalReport;
use crate::attack::suite::Cost;
use crate::base::error::{Error, Result};
use crate::prune::SparsityReport;
use crate::train::TrainResult;

/// The result of a stage, of the same kind as its [`StageConfig`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum StageResult {
    /// Result of an import.
    Import(ImportResult),
    /// Result of a training.
    Train(TrainResult),
    /// Result of a hard prune.
    Prune(PruneResult),
    /// Result of a measurement.
    Eval(EvalResult),
    /// Result of a suite of attacks.
    Suite(SuiteResult),
}

/// Nothing: an imported model was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportResult {}

/// The result of a hard prune.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PruneResult {
    /// The parent's model on the test set.
    pub before: EvalReport,
    /// The pruned model on the test set, before any retraining.
    pub after: EvalReport,
    /// The parameters and multiply-adds that are left.
    pub sparsity: SparsityReport,
    /// The pruned model has collapsed, see [`EvalReport::collapsed`].
    pub collapsed: bool,
    /// Wall time.
    pub seconds: f64,
}

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// On the test set.
    pub test: EvalReport,
    /// The model has collapsed, see [`EvalReport::collapsed`].
    pub collapsed: bool,
    /// Wall time.
    pub seconds: f64,
}

/// The result of a suite of attacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteResult {
    /// Images attacked.
    pub images: usize,
    /// Percent of them classified correctly.
    pub natural: f64,
    /// Percent of them classified correctly after each attack.
    pub after: Vec<f64>,
    /// The cost of each attack.
    #[serde(rename = "spent")]
    pub costs: Vec<Cost>,
    /// Wall time.
    pub seconds: f64,
}

/// The numbers that a table shows of a finished stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Test accuracy in percent.
    pub natural: f64,
    /// Test accuracy under attack in percent.
    pub adversarial: f64,
    /// The model has collapsed, see [`EvalReport::collapsed`].
    pub collapsed: bool,
    /// Wall time of the stage.
    pub seconds: f64,
}

impl StageResult {
    /// Reads the result that a stage of this `config` left.
    ///
    /// # Errors
    /// [`Error::Failed`] if the result is not of the stage's kind.
    pub fn from_json(config: &StageConfig, json: Value) -> Result<Self> {
        Ok(match config {
            StageConfig::Import(_) => StageResult::Import(read(json, "import")?),
            StageConfig::Train(_) => StageResult::Train(read(json, "training")?),
            StageConfig::Prune(_) => StageResult::Prune(read(json, "pruning")?),
            StageConfig::Eval(_) => StageResult::Eval(read(json, "evaluation")?),
            StageConfig::Suite(_) => StageResult::Suite(read(json, "attack")?),
        })
    }

    /// The scores of the stage's model; an imported model has none.
    pub fn scores(&self) -> Option<Scores> {
        let scores = |test: &EvalReport, collapsed, seconds| Scores {
            natural: test.natural,
            adversarial: test.adversarial,
            collapsed,
            seconds,
        };
        Some(match self {
            StageResult::Import(_) => return None,
            StageResult::Train(r) => scores(&r.selected.test, r.collapsed, r.seconds),
            StageResult::Prune(r) => scores(&r.after, r.collapsed, r.seconds),
            StageResult::Eval(r) => scores(&r.test, r.collapsed, r.seconds),
            StageResult::Suite(r) => {
                let adversarial = r.after.last().copied().unwrap_or(r.natural);
                Scores { natural: r.natural, adversarial, collapsed: false, seconds: r.seconds }
            }
        })
    }
}

fn read<T: DeserializeOwned>(json: Value, kind: &str) -> Result<T> {
    serde_json::from_value(json).map_err(|e| Error::Failed(format!("no {kind} result ({e})")))
}
