//! The model file that training or pruning starts from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::cpu::Cpu;
use crate::base::error::{Error, Result};
use crate::base::files::sha256;
use crate::checkpoint::{ModelInfo, load_model};
use crate::data::DatasetName;
use crate::experiments::pipeline::{ImportConfig, StageConfig};
use crate::nn::models::{Architecture, Network};
use crate::prune::Target;

pub struct Pretrained {
    pub path: PathBuf,
    pub info: ModelInfo,
    pub architecture: Arc<Architecture>,
    sha256: String,
}

impl Pretrained {
    /// Reads and checks the model that is to be trained on `data`.
    ///
    /// # Errors
    /// As [`load_model`]; [`Error::Usage`] if `data` does not fit it.
    pub fn open(path: &Path, data: DatasetName) -> Result<Self> {
        let (model, info) = load_model(&Cpu::<f32>::new(1)?, path)?;
        let architecture = model.architecture().clone();
        architecture.check_data(data.info().shape, data.info().classes())?;
        Ok(Pretrained { path: path.to_path_buf(), info, architecture, sha256: sha256(path)? })
    }

    /// The stage that takes the model over.
    pub fn stage(&self) -> StageConfig {
        let ModelInfo { network, width, .. } = self.info;
        StageConfig::Import(ImportConfig { sha256: self.sha256.clone(), network, width })
    }

    /// Checks the model against what the user says it is.
    ///
    /// # Errors
    /// [`Error::Input`] naming both.
    pub fn check_flags(&self, network: Option<Network>, width: Option<usize>) -> Result<()> {
        let ModelInfo { network: found, width: w, .. } = self.info;
        let differs = |said: String| {
            Error::input(
                &self.path,
                format!("is a {found} of width {w}, not {said}"),
                "drop the flag, or give another model",
            )
        };
        match (network, width) {
            (Some(said), _) if said != found => Err(differs(format!("a {said}"))),
            (_, Some(said)) if said != w => Err(differs(format!("of width {said}"))),
            _ => Ok(()),
        }
    }

    /// As [`ModelInfo::pruning_target`].
    ///
    /// # Errors
    /// As [`ModelInfo::pruning_target`].
    pub fn pruning_target(&self) -> Result<Target> {
        self.info.pruning_target(&self.path)
    }
}
