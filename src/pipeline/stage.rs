//! What a stage is and how it is named.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::store::FORMAT;
use crate::choice::choice;
use crate::error::{Error, Result};
use crate::train::{TrainConfig, TrainResult};

choice! {
    /// What computes: part of a stage's identity, because backends differ in the last bits.
    pub enum BackendName: "backend" {
        /// The reference implementation.
        Cpu = "cpu",
        /// NVIDIA GPUs.
        Cuda = "cuda",
    }
}

choice! {
    /// Number format of activations and weights.
    pub enum Precision: "precision" {
        /// Single precision throughout.
        F32 = "f32",
        /// bfloat16 with single-precision accumulation and master weights.
        Bf16 = "bf16",
    }
}

/// The kinds of work. A new kind is a variant here and an arm in [`Scores::of`], [`StageConfig::epochs`],
/// [`StageConfig::passes`] and the worker: the compiler asks for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StageConfig {
    /// Train a network from its initialisation.
    Train(TrainConfig),
}

impl StageConfig {
    /// Epochs the stage trains; its `metrics.csv` has as many rows when it is done.
    pub fn epochs(&self) -> usize {
        match self {
            StageConfig::Train(config) => config.epochs,
        }
    }

    /// Image passes of the whole stage on a data set with `train` and `test` images.
    pub fn passes(&self, train: usize, test: usize) -> u64 {
        match self {
            StageConfig::Train(config) => config.passes(train, test),
        }
    }
}

/// One job, completely described: thread counts and paths are no part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Store format that the stage's files follow.
    pub format: u32,
    /// What computes.
    pub backend: BackendName,
    /// In which number format.
    pub precision: Precision,
    /// Keys of the stages whose results this one starts from.
    pub parents: Vec<String>,
    /// The work.
    pub config: StageConfig,
}

impl Stage {
    /// A stage of this version's store format.
    pub fn new(backend: BackendName, precision: Precision, parents: Vec<String>, config: StageConfig) -> Self {
        Stage { format: FORMAT, backend, precision, parents, config }
    }

    /// First 16 hex digits of the SHA-256 of the stage as compact JSON, fields in declaration order.
    pub fn key(&self) -> Result<String> {
        let json = serde_json::to_vec(self).map_err(|e| Error::Failed(format!("cannot serialise a stage: {e}")))?;
        Ok(Sha256::digest(json).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What a table reads from a finished stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Test accuracy in percent.
    pub natural: f64,
    /// Test accuracy under attack in percent.
    pub adversarial: f64,
    /// One class predicted for every image.
    pub collapsed: bool,
    /// Epochs trained.
    pub epochs: usize,
    /// Wall time of the stage.
    pub seconds: f64,
}

impl Scores {
    /// Reads the scores from the `result` that a stage of this `config` left.
    ///
    /// # Errors
    /// [`Error::Failed`] if the result is not of the stage's kind.
    pub fn of(config: &StageConfig, result: &Value) -> Result<Self> {
        match config {
            StageConfig::Train(_) => {
                let result =
                    TrainResult::deserialize(result).map_err(|e| Error::Failed(format!("no training result ({e})")))?;
                let test = &result.selected.test;
                Ok(Scores {
                    natural: test.natural,
                    adversarial: test.adversarial,
                    collapsed: result.collapsed,
                    epochs: result.epochs,
                    seconds: result.seconds,
                })
            }
        }
    }
}
