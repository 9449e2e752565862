//! Doing the work of a stage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::device::{AnyBackend, BackendSpec, on_backend};
use super::result::{EvalResult, ImportResult, PruneResult, StageResult, SuiteResult};
use super::stage::{EvalConfig, ImportConfig, PruneConfig, Stage, StageConfig, SuiteConfig};
use super::store::{CONFIG, StageDir, read_result};
use crate::attack::PgdConfig;
use crate::attack::evaluation;
use crate::attack::evaluation::{EvalReport, Subset};
use crate::attack::suite::Suite;
use crate::attack::suite::state::SuiteState;
use crate::backend::Backend;
use crate::backend::cpu::Cores;
use crate::base::error::{Error, Result};
use crate::base::files::hex;
use crate::base::nvtx;
use crate::checkpoint::{self, MODEL_FILE, ModelInfo, load_model, write_atomic};
use crate::data::Dataset;
use crate::nn::models::Model;
use crate::prune::{SparsityReport, hard_prune};
use crate::train::{self, Observer};

/// Does the work of stages; called from several threads at once.
pub trait Worker: Sync {
    /// Works on `stage` in its directory, from wherever an earlier run left it, and returns its result.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after saving its state when `observer` asks it to stop; any other error fails the stage.
    fn run(&self, stage: &Stage, dir: &StageDir, observer: &dyn Observer) -> Result<StageResult>;
}

/// The engine itself, with a backend for each stage that it works on at the same time.
pub struct EngineWorker<'a> {
    data: &'a Dataset,
    import: Option<&'a Path>,
    spec: BackendSpec,
    /// All that its backends share.
    cores: Arc<Cores>,
    /// The backends that no stage uses.
    idle: Mutex<Vec<AnyBackend>>,
}

impl<'a> EngineWorker<'a> {
    /// Starts backends for up to `side_by_side` stages on `data`; `import` is the file that an import stage takes its model
    /// from.
    ///
    /// # Errors
    /// As [`BackendSpec::start_on`].
    pub fn new(data: &'a Dataset, import: Option<&'a Path>, spec: BackendSpec, side_by_side: usize) -> Result<Self> {
        let cores = Cores::new(spec.threads);
        let idle = (0..side_by_side).map(|_| spec.start_on(&cores)).collect::<Result<_>>()?;
        Ok(EngineWorker { data, import, spec, cores, idle: Mutex::new(idle) })
    }

    /// Runs `f` on up to `most` backends that no stage uses, on all of them at once, each with the cores that it would have if all
    /// of them ran stages. A backend on which it fails is not used again: a fault of a GPU stays with it.
    pub fn on_idle_backends(&self, most: usize, f: impl Fn(&AnyBackend) -> Result<()> + Sync) {
        let mut idle = self.idle();
        let keep = idle.len().saturating_sub(most);
        let backends = idle.split_off(keep);
        drop(idle);
        let _running: Vec<_> = backends.iter().map(AnyBackend::enter).collect();
        thread::scope(|scope| {
            for backend in backends {
                let f = &f;
                scope.spawn(move || {
                    if f(&backend).is_ok() {
                        self.idle().push(backend);
                    }
                });
            }
        });
    }

    fn idle(&self) -> MutexGuard<'_, Vec<AnyBackend>> {
        // A list of backends is whole after every statement, so a panic elsewhere leaves nothing to distrust.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker for EngineWorker<'_> {
    fn run(&self, stage: &Stage, dir: &StageDir, observer: &dyn Observer) -> Result<StageResult> {
        let idle = self.idle().pop();
        let backend = idle.map_or_else(|| self.spec.start_on(&self.cores), Ok)?;
        let EngineWorker { data, import, .. } = *self;
        let result = on_backend!(&backend, |backend| StageRun { backend, data, import, stage, dir, observer }.run())?;
        // Only after a success: a fault of a GPU stays with its backend.
        self.idle().push(backend);
        Ok(result)
    }
}

/// A stage to work on and what the work needs.
struct StageRun<'a, B: Backend> {
    backend: &'a B,
    data: &'a Dataset,
    import: Option<&'a Path>,
    stage: &'a Stage,
    dir: &'a StageDir,
    observer: &'a dyn Observer,
}

impl<B: Backend> StageRun<'_, B> {
    fn run(&self) -> Result<StageResult> {
        let _range = nvtx::range(|| format!("stage {}", self.stage.config.kind()));
        let backend = self.backend;
        let result = match &self.stage.config {
            StageConfig::Import(config) => StageResult::Import(self.import(config)?),
            StageConfig::Train(config) => {
                let parent = self.parent().map(|dir| dir.join(MODEL_FILE));
                let dir = self.dir.path();
                let result = train::train(backend, config, self.data, parent.as_deref(), dir, self.observer)?;
                StageResult::Train(result)
            }
            StageConfig::Prune(config) => StageResult::Prune(backend.scope(|| self.prune(config))?),
            StageConfig::Eval(config) => StageResult::Eval(backend.scope(|| self.evaluate(config))?),
            StageConfig::Suite(config) => StageResult::Suite(backend.scope(|| self.attack(config))?),
        };
        backend.status()?;
        // The next stage may be of another size, and those side by side share the device's memory.
        backend.empty_cache();
        Ok(result)
    }

    /// Copies the user's file, if it is still the one that the stage is about.
    fn import(&self, config: &ImportConfig) -> Result<ImportResult> {
        let path = self.import.ok_or_else(|| Error::Failed("an import stage without a file".to_string()))?;
        let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
        if hex(&Sha256::digest(&bytes)) != config.sha256 {
            return Err(Error::input(path, "changed while it was read", "run the command again"));
        }
        write_atomic(&self.dir.path().join(MODEL_FILE), &bytes)?;
        Ok(ImportResult {})
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
        checkpoint::save_model(&self.dir.path().join(MODEL_FILE), &state, &info)?;
        Ok(PruneResult {
            collapsed: after.collapsed(self.data.test.majority()),
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
        Ok(EvalResult {
            collapsed: test.collapsed(self.data.test.majority()),
            test,
            seconds: start.elapsed().as_secs_f64(),
        })
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
            on_image_passes: &|image_passes| self.observer.advance_unless_stopped(image_passes),
        };
        let outcome = suite.run(&mut assessment, &mut |assessment, left| {
            self.observer.expect(left);
            state.save_at_times(assessment)
        });
        if matches!(outcome, Err(Error::Interrupted)) {
            state.save(&assessment)?;
        }
        outcome?;
        state.discard()?;
        Ok(SuiteResult {
            images: indices.len(),
            natural: assessment.accuracy(0),
            after: (1..=config.attacks.len()).map(|attacks| assessment.accuracy(attacks)).collect(),
            costs: assessment.costs,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn measure(&self, model: &Model<B>, attack: &PgdConfig, seed: u64) -> Result<EvalReport> {
        model.architecture().check_data(self.data.shape, self.data.classes)?;
        let images = self.backend.resident(self.data.shape, &self.data.test.images);
        let indices: Vec<u32> = (0..self.data.test.len() as u32).collect();
        let subset = Subset { images: &images, labels: &self.data.test.labels, indices: &indices };
        evaluation::evaluate(self.backend, model, &subset, Some(attack), seed, &|image_passes| {
            self.observer.advance_unless_stopped(image_passes)
        })
    }

    /// The parent's own report of its model, if it was measured in the same way.
    fn measured_by_parent(&self, config: &PruneConfig) -> Result<Option<EvalReport>> {
        let Some(dir) = self.parent() else { return Ok(None) };
        let Some(stage) = read_config(&dir)? else { return Ok(None) };
        let StageConfig::Train(parent) = &stage.config else { return Ok(None) };
        if (&parent.eval_attack, parent.seed, &parent.data) != (&config.eval_attack, config.seed, &config.data) {
            return Ok(None);
        }
        Ok(match read_result(&dir, &stage.config)? {
            Some(StageResult::Train(result)) => Some(result.selected.test),
            _ => None,
        })
    }

    fn parent_model(&self) -> Result<(Model<B>, ModelInfo)> {
        let dir = self.parent().ok_or_else(|| Error::Failed("a stage that needs a parent has none".to_string()))?;
        load_model(self.backend, &dir.join(MODEL_FILE))
    }

    /// Directory of the stage that this one starts from.
    fn parent(&self) -> Option<PathBuf> {
        self.stage.parents.first().map(|key| self.dir.other(key))
    }
}

fn read_config(dir: &Path) -> Result<Option<Stage>> {
    let path = dir.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    Ok(toml::from_str(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Memory;
    use crate::data::DatasetName;
    use crate::experiments::pipeline::{BackendName, Precision, Store};
    use crate::nn::models::Network;

    struct Ignore;

    impl Observer for Ignore {
        fn advance(&self, _: u64) {}
        fn epoch(&self, _: &crate::train::EpochRow, _: usize) {}
        fn stop_requested(&self) -> bool {
            false
        }
    }

    /// Four threads for two stages side by side.
    const SPEC: BackendSpec = BackendSpec { name: BackendName::Cpu, precision: Precision::F32, threads: 4 };

    /// Whether `worker` can import the file, which is the right one as long as it holds `values`.
    fn imports(worker: &EngineWorker<'_>) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let import = ImportConfig { sha256: hex(&Sha256::digest(b"values")), network: Network::LeNet, width: 1 };
        let stage = Stage::new(SPEC.name, SPEC.precision, vec![], StageConfig::Import(import));
        let directory = Store::open(dir.path()).unwrap().lock("k").unwrap();
        worker.run(&stage, &directory, &Ignore).is_ok()
    }

    /// A fault of a GPU stays with its backend, so the next stage gets a new one.
    #[test]
    fn a_backend_is_used_again_unless_its_stage_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let (data, file) = (Dataset::sample(DatasetName::Mnist).unwrap(), dir.path().join("model"));
        let worker = EngineWorker::new(&data, Some(&file), SPEC, 2).unwrap();
        let run = || (imports(&worker), worker.idle().len());
        assert_eq!(run(), (false, 1));
        fs::write(&file, b"values").unwrap();
        assert_eq!(run(), (true, 1));
        fs::write(&file, b"others").unwrap();
        assert_eq!(run(), (false, 0));
        fs::write(&file, b"values").unwrap();
        assert_eq!(run(), (true, 1));
    }

    #[test]
    fn the_backends_of_a_worker_share_its_cores_and_so_does_one_that_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let (data, file) = (Dataset::sample(DatasetName::Mnist).unwrap(), dir.path().join("model"));
        let worker = EngineWorker::new(&data, Some(&file), SPEC, 2).unwrap();
        let threads = |most| {
            let seen = Mutex::new(Vec::new());
            worker.on_idle_backends(most, |backend| {
                let threads = on_backend!(backend, |backend| backend.parallel(rayon::current_num_threads));
                seen.lock().unwrap().push(threads);
                Ok(())
            });
            seen.into_inner().unwrap()
        };
        assert_eq!((threads(1), threads(2)), (vec![4], vec![2, 2]));
        assert!(!imports(&worker), "there is no file, and a backend is lost");
        let other = worker.idle().pop();
        fs::write(&file, b"values").unwrap();
        assert!(imports(&worker), "on a new one");
        worker.idle().extend(other);
        assert_eq!((threads(1), threads(2)), (vec![4], vec![2, 2]));
    }
}
