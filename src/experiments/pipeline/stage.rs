//! The configuration of a stage and its key.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attack::PgdConfig;
use crate::attack::config::AttackConfig;
use crate::attack::evaluation;
use crate::base::error::{Error, Result};
use crate::base::files::hex;
use crate::base::named_enum::named_enum;
use crate::data::DataId;
use crate::nn::models::Network;
use crate::prune::Target;
use crate::train::TrainConfig;

/// Version of the store's layout and of its files' meaning; part of every key.
pub const FORMAT: u32 = 2;

named_enum! {
    /// The backend: part of a stage's identity, because backends differ in the last bits.
    pub enum BackendName: "backend" {
        /// The reference implementation.
        Cpu = "cpu",
        /// NVIDIA GPUs.
        Cuda = "cuda",
    }
}

named_enum! {
    /// Number format of activations.
    pub enum Precision: "precision" {
        /// Single precision.
        F32 = "f32",
        /// bfloat16 on the tensor cores of a GPU; sums, weights and images stay in single precision.
        Bf16 = "bf16",
    }
}

/// The kinds of work. A new kind is a variant here and one of [`super::StageResult`], and an arm wherever the compiler asks
/// for one: the methods of both and the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StageConfig {
    /// Take a model from a file.
    Import(ImportConfig),
    /// Train a network.
    Train(TrainConfig),
    /// Prune the parent's model for good.
    Prune(PruneConfig),
    /// Measure the parent's model.
    Eval(EvalConfig),
    /// Run a suite of attacks on the parent's model.
    Suite(SuiteConfig),
}

/// A model that a user gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportConfig {
    /// SHA-256 of the file.
    pub sha256: String,
    /// Architecture.
    pub network: Network,
    /// Width multiplier.
    pub width: usize,
}

/// A hard prune of the parent's model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneConfig {
    /// The data set it is measured on.
    pub data: DataId,
    /// Architecture of the parent's model.
    pub network: Network,
    /// Width multiplier of the parent's model.
    pub width: usize,
    /// Key of the attack's random starts.
    pub seed: u64,
    /// The target of the prune.
    pub sparsity: Target,
    /// The attack used to measure adversarial accuracy before and after.
    pub eval_attack: PgdConfig,
}

/// A measurement of the parent's model on the test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// The data set.
    pub data: DataId,
    /// Architecture of the parent's model.
    pub network: Network,
    /// Width multiplier that the parent's model has or had before it was pruned.
    pub width: usize,
    /// Key of the attack's random starts.
    pub seed: u64,
    /// The target that the parent's model was pruned to, if it was.
    pub sparsity: Option<Target>,
    /// The attack used to measure adversarial accuracy.
    pub eval_attack: PgdConfig,
}

/// Attacks in order on the parent's model, each on the images that the ones before have left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteConfig {
    /// The data set.
    pub data: DataId,
    /// Architecture of the parent's model.
    pub network: Network,
    /// Width multiplier that the parent's model has or had before it was pruned.
    pub width: usize,
    /// Key of all random numbers.
    pub seed: u64,
    /// The target that the parent's model was pruned to, if it was.
    pub sparsity: Option<Target>,
    /// So many test images, the first ones.
    pub images: usize,
    /// The attacks.
    pub attacks: Vec<AttackConfig>,
}

impl StageConfig {
    /// The kind of work, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            StageConfig::Import(_) => "import",
            StageConfig::Train(_) => "train",
            StageConfig::Prune(_) => "prune",
            StageConfig::Eval(_) => "eval",
            StageConfig::Suite(_) => "suite",
        }
    }

    /// Epochs the stage trains; its `metrics.csv` has as many rows when it is done.
    pub fn epochs(&self) -> usize {
        match self {
            StageConfig::Train(config) => config.epochs,
            StageConfig::Import(_) | StageConfig::Prune(_) | StageConfig::Eval(_) | StageConfig::Suite(_) => 0,
        }
    }

    /// Image passes of the whole stage on a data set with `train` and `test` images.
    pub fn image_passes(&self, train: usize, test: usize) -> u64 {
        let measure = |attack: &PgdConfig| evaluation::image_passes(test, Some(attack));
        match self {
            StageConfig::Import(_) => 0,
            StageConfig::Train(config) => config.image_passes(train, test),
            // The model before pruning is the parent's, which has measured it.
            StageConfig::Prune(config) => measure(&config.eval_attack),
            StageConfig::Eval(config) => measure(&config.eval_attack),
            // At most: images that an attack breaks are left out of the next.
            StageConfig::Suite(config) => {
                let classes = config.data.name.info().classes();
                let attacks = config.attacks.iter().map(|attack| attack.rounds(classes) as u64 * attack.image_passes());
                config.images as u64 * attacks.sum::<u64>()
            }
        }
    }

    /// Architecture, and width before any pruning.
    pub fn network(&self) -> (Network, usize) {
        match self {
            StageConfig::Import(config) => (config.network, config.width),
            StageConfig::Train(config) => (config.network, config.width),
            StageConfig::Prune(config) => (config.network, config.width),
            StageConfig::Eval(config) => (config.network, config.width),
            StageConfig::Suite(config) => (config.network, config.width),
        }
    }

    /// The attack that measures.
    pub fn eval_attack(&self) -> Option<&PgdConfig> {
        match self {
            StageConfig::Import(_) | StageConfig::Suite(_) => None,
            StageConfig::Train(config) => Some(&config.eval_attack),
            StageConfig::Prune(config) => Some(&config.eval_attack),
            StageConfig::Eval(config) => Some(&config.eval_attack),
        }
    }

    /// The target that the stage's model is, or will be, pruned to.
    pub fn target(&self) -> Option<&Target> {
        match self {
            StageConfig::Import(_) => None,
            StageConfig::Train(config) => config.sparsity.target(),
            StageConfig::Prune(config) => Some(&config.sparsity),
            StageConfig::Eval(config) => config.sparsity.as_ref(),
            StageConfig::Suite(config) => config.sparsity.as_ref(),
        }
    }
}

/// One job, completely described: thread counts and paths are no part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Store format that the stage's files follow.
    pub format: u32,
    /// The backend that computes it.
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
        Ok(hex(&Sha256::digest(json)[..8]))
    }
}
