//! Doing the work of a stage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::device::{Task, on_backend};
use super::stage::{
    EvalConfig, EvalResult, ImportConfig, PruneConfig, PruneResult, Stage, StageConfig, SuiteConfig, SuiteResult,
};
use super::store::{StageDir, read_result};
use crate::attack::PgdConfig;
use crate::attack::evaluation;
use crate::attack::evaluation::{EvalReport, Subset};
use crate::attack::suite::Suite;
use crate::attack::suite::state::SuiteState;
use crate::backend::Backend;
use crate::base::error::{Error, Result};
use crate::base::nvtx;
use crate::checkpoint::{self, ModelInfo, load_model, write_atomic};
use crate::data::Dataset;
use crate::data::source::hex;
use crate::nn::models::Model;
use crate::prune::{SparsityReport, hard_prune};
use crate::train::{self, Observer, TrainResult};

/// File of a finished stage's model.
const MODEL: &str = "model.safetensors";

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
    /// The file that an import stage takes its model from.
    pub import: Option<&'a Path>,
}

impl Worker for EngineWorker<'_> {
    fn run(&self, stage: &Stage, dir: &StageDir, observer: &dyn Observer) -> Result<Value> {
        on_backend(stage.backend, stage.precision, self.threads, StageTask { worker: self, stage, dir, observer })
    }
}

/// A stage to work on, on whatever backend.
struct StageTask<'a> {
    worker: &'a EngineWorker<'a>,
    stage: &'a Stage,
    dir: &'a StageDir,
    observer: &'a dyn Observer,
}

impl Task for StageTask<'_> {
    type Output = Value;

    fn run<B: Backend>(self, backend: &B) -> Result<Value> {
        let StageTask { worker: EngineWorker { data, import, .. }, stage, dir, observer } = self;
        let _range = nvtx::range(|| format!("stage {}", stage.config.kind()));
        let result = Work { backend, data, import: *import, stage, dir, observer }.run()?;
        backend.status()?;
        Ok(result)
    }
}

/// A stage to work on and what the work needs.
struct Work<'a, B: Backend> {
    backend: &'a B,
    data: &'a Dataset,
    import: Option<&'a Path>,
    stage: &'a Stage,
    dir: &'a StageDir,
    observer: &'a dyn Observer,
}

impl<B: Backend> Work<'_, B> {
    fn run(&self) -> Result<Value> {
        match &self.stage.config {
            StageConfig::Import(config) => self.import(config),
            StageConfig::Train(config) => {
                let parent = self.parent().map(|dir| dir.join(MODEL));
                let dir = self.dir.path();
                to_json(train::train(self.backend, config, self.data, parent.as_deref(), dir, self.observer)?)
            }
            StageConfig::Prune(config) => to_json(self.backend.scope(|| self.prune(config))?),
            StageConfig::Eval(config) => to_json(self.backend.scope(|| self.evaluate(config))?),
            StageConfig::Suite(config) => to_json(self.backend.scope(|| self.attack(config))?),
        }
    }

    /// Copies the user's file, if it is still the one that the stage is about.
    fn import(&self, config: &ImportConfig) -> Result<Value> {
        let path = self.import.ok_or_else(|| Error::Failed("an import stage without a file".to_string()))?;
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        if hex(&Sha256::digest(&bytes)) != config.sha256 {
            return Err(Error::input(path, "changed while it was read", "run the command again"));
        }
        write_atomic(&self.dir.path().join(MODEL), &bytes)?;
        Ok(json!({}))
    }

    /// Prunes the parent's model for good.
    fn prune(&self, config: &PruneConfig) -> Result<PruneResult> {
        let start = Instant::now();
        let (mut model, info) = self.parent_model()?;
        let before = match self.measured_by_parent(config)? {
            Some(report) => report,
            None => self.measure(&model, &config.eval_attack, config.seed)?,
        };
        hard_prune(self.backend, &config.sparsity, &mut model)?;
        let after = self.measure(&model, &config.eval_attack, config.seed)?;
        let info = ModelInfo { pruned: Some(config.sparsity), ..info };
        let state = model.state(self.backend);
        self.backend.status()?;
        checkpoint::save_model(&self.dir.path().join(MODEL), &state, &info)?;
        Ok(PruneResult {
            collapsed: after.collapsed(self.data.classes),
            before,
            after,
            sparsity: SparsityReport::of(self.backend, &model),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Measures the parent's model.
    fn evaluate(&self, config: &EvalConfig) -> Result<EvalResult> {
        let start = Instant::now();
        let (model, _) = self.parent_model()?;
        let test = self.measure(&model, &config.eval_attack, config.seed)?;
        Ok(EvalResult { collapsed: test.collapsed(self.data.classes), test, seconds: start.elapsed().as_secs_f64() })
    }

    /// Attacks the parent's model, from where an earlier run was interrupted.
    fn attack(&self, config: &SuiteConfig) -> Result<SuiteResult> {
        let start = Instant::now();
        let (model, _) = self.parent_model()?;
        model.architecture().check_data(self.data.shape, self.data.classes)?;
        let images = self.backend.resident(self.data.shape, &self.data.test.images);
        let indices: Vec<u32> = (0..config.images.min(self.data.test.len()) as u32).collect();
        let subset = Subset { images: &images, labels: &self.data.test.labels, indices: &indices };
        let mut state = SuiteState::new(self.dir.path(), &self.stage, self.data.shape)?;
        let mut assessment = state.load()?;
        let suite = Suite {
            backend: self.backend,
            model: &model,
            surrogate: None,
            subset: &subset,
            attacks: &config.attacks,
            seed: config.seed,
            on_image_passes: &|passes| self.advance(passes),
        };
        let outcome = suite.run(&mut assessment, &mut |assessment, _| state.save_at_times(assessment));
        if matches!(outcome, Err(Error::Interrupted)) {
            state.save(&assessment)?;
        }
        outcome?;
        state.discard()?;
        Ok(SuiteResult {
            images: indices.len(),
            natural: assessment.accuracy(0),
            after: (1..=config.attacks.len()).map(|attacks| assessment.accuracy(attacks)).collect(),
            spent: assessment.costs,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn measure(&self, model: &Model<B>, attack: &PgdConfig, seed: u64) -> Result<EvalReport> {
        model.architecture().check_data(self.data.shape, self.data.classes)?;
        let images = self.backend.resident(self.data.shape, &self.data.test.images);
        let indices: Vec<u32> = (0..self.data.test.len() as u32).collect();
        let subset = Subset { images: &images, labels: &self.data.test.labels, indices: &indices };
        evaluation::evaluate(self.backend, model, &subset, Some(attack), seed, &|passes| self.advance(passes))
    }

    /// Tells the observer of image passes; an error if it asks to stop.
    fn advance(&self, passes: u64) -> Result<()> {
        self.observer.advance(passes);
        if self.observer.stop_requested() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The parent's own report of its model, if it was measured in the same way.
    fn measured_by_parent(&self, config: &PruneConfig) -> Result<Option<EvalReport>> {
        let Some(dir) = self.parent() else { return Ok(None) };
        let Some(StageConfig::Train(parent)) = read_config(&dir)?.map(|stage| stage.config) else { return Ok(None) };
        if (&parent.eval_attack, parent.seed, &parent.data) != (&config.eval_attack, config.seed, &config.data) {
            return Ok(None);
        }
        let result = read_result(&dir)?.and_then(|result| TrainResult::deserialize(result).ok());
        Ok(result.map(|result| result.selected.test))
    }

    fn parent_model(&self) -> Result<(Model<B>, ModelInfo)> {
        let dir = self.parent().ok_or_else(|| Error::Failed("a stage that needs a parent has none".to_string()))?;
        load_model(self.backend, &dir.join(MODEL))
    }

    /// Directory of the stage that this one starts from.
    fn parent(&self) -> Option<PathBuf> {
        self.stage.parents.first().map(|key| self.dir.other(key))
    }
}

fn read_config(dir: &Path) -> Result<Option<Stage>> {
    let path = dir.join("config.toml");
    let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    Ok(toml::from_str(&text).ok())
}

fn to_json(result: impl Serialize) -> Result<Value> {
    serde_json::to_value(result).map_err(|e| Error::Failed(format!("cannot serialise a result: {e}")))
}
