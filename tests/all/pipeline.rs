//! Stages, keys, store, locks and plan, with a worker that only counts.
//!
//! - `keys`: what a key is made of, and how a setting is changed
//! - `kinds`: every kind of stage: keys, passes, scores
//! - `plan`: which stages are run, and in which order
//! - `stops`: what a monitor hears, and chains that are stopped in every stage
//! - `store`: what is kept, refused and replaced; locks; atomic writes
//! - `worker`: the engine's own worker, on chains of every kind of stage

mod keys;
mod kinds;
mod plan;
mod stops;
mod store;
mod worker;

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use engine::attack::evaluation::EvalReport;
use engine::base::error::{Error, Result};
use engine::data::{DataId, DatasetName};
use engine::experiments::pipeline::{
    BackendName, Job, JobId, Monitor, Outcome, Plan, Precision, Stage, StageConfig, StageDir, StageResult, Store,
    Worker,
};
use engine::experiments::tables::defaults::paper_training;
use engine::train::{Candidate, EpochRow, Observer, Selection, TrainConfig, TrainResult};

fn config(seed: u64) -> TrainConfig {
    let data = DataId { name: DatasetName::Mnist, subset: "full".into(), fingerprint: "0123456789abcdef".into() };
    TrainConfig { seed, ..paper_training(&data, 60_000) }
}

fn stage(config: TrainConfig) -> Stage {
    Stage::new(BackendName::Cpu, Precision::F32, vec![], StageConfig::Train(config))
}

fn plan() -> Plan {
    Plan::new(BackendName::Cpu, Precision::F32)
}

fn add(plan: &mut Plan, seed: u64, parents: &[JobId]) -> JobId {
    plan.add(&format!("seed {seed}"), StageConfig::Train(config(seed)), parents, 100).unwrap()
}

fn seed_of(stage: &Stage) -> u64 {
    let StageConfig::Train(config) = &stage.config else { panic!("{stage:?}") };
    config.seed
}

struct Silent;

impl Monitor for Silent {
    fn started(&self, _: &Job, _: usize) {}
    fn advanced(&self, _: &Job, _: u64) {}
    fn epoch(&self, _: &Job, _: &EpochRow, _: usize) {}
    fn ended(&self, _: &Job, _: &Result<StageResult>) {}
}

/// Remembers the seeds of the stages it was given, and does with each what the closure says.
struct Fake<F> {
    seen: Mutex<Vec<u64>>,
    work: F,
}

impl<F: Fn(u64, &StageDir, &dyn Observer) -> Result<StageResult> + Sync> Fake<F> {
    fn new(work: F) -> Self {
        Fake { seen: Mutex::new(Vec::new()), work }
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }

    fn run_all(&self, plan: &Plan, store: &Store, jobs: usize) -> Outcome {
        plan.prepare(store, false).unwrap().run(self, &Silent, &AtomicBool::new(false), jobs)
    }
}

impl<F: Fn(u64, &StageDir, &dyn Observer) -> Result<StageResult> + Sync> Worker for Fake<F> {
    fn run(&self, stage: &Stage, dir: &StageDir, observer: &dyn Observer) -> Result<StageResult> {
        let seed = seed_of(stage);
        self.seen.lock().unwrap().push(seed);
        (self.work)(seed, dir, observer)
    }
}

/// A result with a number of its own for each seed.
fn result(seed: u64) -> StageResult {
    let test = EvalReport {
        images: 10,
        natural: seed as f64,
        adversarial: 0.0,
        natural_loss: 0.1,
        adversarial_loss: 0.2,
        zero_gradient: 0.0,
        constant_prediction: None,
    };
    let selected = Candidate { select: Selection::Last, epoch: 1, test, held_out: None };
    let candidates = vec![selected.clone()];
    StageResult::Train(TrainResult { selected, candidates, collapsed: false, parameters: 1, epochs: 1, seconds: 0.5 })
}

fn succeed(seed: u64, _: &StageDir, _: &dyn Observer) -> Result<StageResult> {
    Ok(result(seed))
}

fn out() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn one_line(error: &Error) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}
