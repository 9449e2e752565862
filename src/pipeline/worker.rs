//! Doing the work of a stage.

use serde_json::Value;

use super::stage::{BackendName, Precision, Stage, StageConfig};
use super::store::StageDir;
use crate::backend::cpu::Cpu;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::train::{self, Observer};

/// Does the work of stages; called from several threads at once.
pub trait Worker: Sync {
    /// Works on `stage` in its directory, from wherever an earlier run left it, and returns its result.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after saving its state when `observer` asks it to stop; any other error fails the stage.
    fn run(&self, stage: &Stage, dir: &StageDir, observer: &dyn Observer) -> Result<Value>;
}

/// The engine itself.
pub struct EngineWorker<'a> {
    /// The data of all stages.
    pub data: &'a Dataset,
    /// Threads for each stage.
    pub threads: usize,
}

impl Worker for EngineWorker<'_> {
    fn run(&self, stage: &Stage, dir: &StageDir, observer: &dyn Observer) -> Result<Value> {
        let StageConfig::Train(config) = &stage.config else { todo!() };
        let result = match (stage.backend, stage.precision) {
            (BackendName::Cpu, Precision::F32) => {
                train::train(&Cpu::<f32>::new(self.threads)?, config, self.data, dir.path(), observer)?
            }
            (backend, precision) => {
                return Err(Error::Usage(format!("this build has no {backend} backend in {precision}")));
            }
        };
        serde_json::to_value(result).map_err(|e| Error::Failed(format!("cannot serialise a result: {e}")))
    }
}
