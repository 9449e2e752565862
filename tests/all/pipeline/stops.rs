//! What a monitor hears of the engine's own work, and chains that are stopped in every stage.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::base::error::{Error, Result};
use engine::experiments::pipeline::{EngineWorker, Job, Monitor, StageResult, Store};
use engine::train::EpochRow;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::out;
use super::worker::{Finished, cpu, data, every_kind, finish};

/// Hears everything; asks to stop when a job has done so many passes.
struct Listener<'a> {
    stop: &'a AtomicBool,
    /// Place of the job in its plan, and the passes.
    at: Option<(usize, u64)>,
    /// Of all jobs, and of the one to stop in.
    passes: [AtomicU64; 2],
    events: Mutex<Vec<String>>,
}

impl<'a> Listener<'a> {
    fn new(stop: &'a AtomicBool, at: Option<(usize, u64)>) -> Self {
        Listener { stop, at, passes: Default::default(), events: Mutex::new(Vec::new()) }
    }

    fn note(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }
}

impl Monitor for Listener<'_> {
    fn started(&self, job: &Job, epochs: usize) {
        self.note(format!("{} started after {epochs}", job.label));
    }

    fn advanced(&self, job: &Job, passes: u64) {
        let [all, here] = &self.passes;
        all.fetch_add(passes, Ordering::Relaxed);
        if let Some((index, after)) = self.at
            && job.id.index() == index
            && here.fetch_add(passes, Ordering::Relaxed) + passes >= after
        {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn epoch(&self, job: &Job, row: &EpochRow, epochs: usize) {
        self.note(format!("{} epoch {} of {epochs}", job.label, row.epoch));
    }

    fn ended(&self, job: &Job, outcome: &Result<StageResult>) {
        let how = match outcome {
            Ok(_) => "ended",
            Err(Error::Interrupted) => "interrupted",
            Err(_) => "failed",
        };
        self.note(format!("{} {how}", job.label));
    }
}

/// The whole of a chain's work is announced, and no more.
#[test]
fn a_monitor_hears_of_every_stage_epoch_and_pass() {
    let (data, (_out, store), stop) = (data(), out(), AtomicBool::new(false));
    let plan = every_kind(&data);
    let expected: u64 =
        plan.jobs().iter().filter(|job| job.stage.config.kind() != "suite").map(|job| job.image_passes).sum();
    let listener = Listener::new(&stop, None);
    let prepared = plan.prepare(&store, false).unwrap();
    assert!(
        prepared.remaining().map(|(job, epochs)| (job.id.index(), epochs)).eq((0..plan.jobs().len()).map(|i| (i, 0)))
    );
    prepared.run(&EngineWorker::new(&data, None, cpu(2), 1).unwrap(), &listener, &stop, 1);
    let Job { key, stage: suite, .. } = &plan.jobs()[5];
    let suite = store.result(key, &suite.config).unwrap();
    // A suite announces at most what was planned; the prune with another seed measures its parent once more.
    let again = data.test.len() as u64 * (1 + 4);
    let announced = listener.passes[0].load(Ordering::Relaxed);
    assert!(
        (expected + again..=expected + again + plan.jobs()[5].image_passes).contains(&announced),
        "{announced} {suite:?}"
    );
    let epochs = |n: usize| (1..=n).map(|epoch| format!("train epoch {epoch} of {n}")).collect::<Vec<_>>();
    let stage = |kind: &str, epochs: Vec<String>| {
        [vec![format!("{kind} started after 0")], epochs, vec![format!("{kind} ended")]].concat()
    };
    let expected = [
        stage("train", epochs(3)),
        stage("train", epochs(2)),
        stage("prune", vec![]),
        stage("train", epochs(2)),
        stage("eval", vec![]),
        stage("suite", vec![]),
        stage("prune", vec![]),
        stage("prune", vec![]),
    ];
    assert_eq!(*listener.events.lock().unwrap(), expected.concat());
}

/// Files of a stage that a table or a later stage reads, the times left out.
fn left(store: &Store, job: &Job) -> Vec<(String, String)> {
    let result = store.result(&job.key, &job.stage.config).unwrap().unwrap();
    let mut result = serde_json::to_value(result).unwrap();
    result.as_object_mut().unwrap().remove("seconds");
    if let Some(spent) = result.get_mut("spent").and_then(Value::as_array_mut) {
        spent.iter_mut().for_each(|spent| drop(spent.as_object_mut().unwrap().remove("seconds")));
    }
    let mut left = vec![("result.json".to_string(), result.to_string())];
    let rows: Vec<EpochRow> = store.metrics(&job.key).unwrap();
    let timeless = rows.into_iter().map(|row| EpochRow { seconds: 0.0, ..row });
    left.push(("metrics.csv".to_string(), format!("{:?}", timeless.collect::<Vec<_>>())));
    for name in ["model.safetensors", "residuals.csv", "config.toml"] {
        let bytes = fs::read(store.path(&job.key).join(name)).unwrap_or_default();
        left.push((name.to_string(), Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect()));
    }
    left
}

/// Each stage is stopped at its first pass and half way, and goes on in the next run.
#[test]
fn a_chain_stopped_in_every_stage_ends_as_one_that_was_not() {
    let through = Finished::of(every_kind);
    let (_out, store) = out();
    let plan = every_kind(&through.data);
    let worker = EngineWorker::new(&through.data, None, cpu(1), 1).unwrap();
    for job in plan.jobs() {
        // A suite passes images as long as they stand; the first 25 of these are clean.
        let half = if job.stage.config.kind() == "suite" { 60 } else { job.image_passes / 2 };
        for after in [1, half] {
            let stop = AtomicBool::new(false);
            let listener = Listener::new(&stop, Some((job.id.index(), after)));
            let outcome = plan.prepare(&store, false).unwrap().run(&worker, &listener, &stop, 1);
            assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
            let events = listener.events.into_inner().unwrap();
            let last = events.last().map(String::as_str);
            assert_eq!(last, Some(&*format!("{} interrupted", job.label)), "{:?} after {after}", job.id);
            assert!(outcome.interrupted && outcome.results[job.id.index()].is_none());
        }
    }
    finish(&plan, &through.data, &store, None);
    for (job, whole) in plan.jobs().iter().zip(through.plan.jobs()) {
        assert_eq!(job.key, whole.key);
        assert_eq!(left(&store, job), left(&through.store, whole), "{} {:?}", job.label, job.id);
    }
}
