//! What a monitor hears of the engine's own work, and chains that are stopped again and again.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::error::{Error, Result};
use engine::pipeline::{EngineWorker, Job, Monitor, Store, SuiteResult};
use engine::train::EpochRow;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::out;
use super::worker::{Finished, data, every_kind};

/// Hears everything; asks to stop after so many passes.
struct Listener<'a> {
    stop: &'a AtomicBool,
    after: u64,
    passes: AtomicU64,
    events: Mutex<Vec<String>>,
}

impl<'a> Listener<'a> {
    fn new(stop: &'a AtomicBool, after: u64) -> Self {
        Listener { stop, after, passes: AtomicU64::new(0), events: Mutex::new(Vec::new()) }
    }

    fn note(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }
}

impl Monitor for Listener<'_> {
    fn started(&self, job: &Job, done: u64) {
        self.note(format!("{} started after {done}", job.label));
    }

    fn advanced(&self, _: &Job, passes: u64) {
        if self.passes.fetch_add(passes, Ordering::Relaxed) + passes >= self.after {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn epoch(&self, job: &Job, row: &EpochRow, epochs: usize) {
        self.note(format!("{} epoch {} of {epochs}", job.label, row.epoch));
    }

    fn ended(&self, job: &Job, outcome: &Result<Value>) {
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
    let expected: u64 = plan.jobs().iter().filter(|job| job.stage.config.kind() != "suite").map(|job| job.passes).sum();
    let listener = Listener::new(&stop, u64::MAX);
    let prepared = plan.prepare(&store, false).unwrap();
    let remaining: u64 = prepared.remaining().map(|(_, passes)| passes).sum();
    assert_eq!(remaining, plan.jobs().iter().map(|job| job.passes).sum::<u64>());
    prepared.run(&EngineWorker { data: &data, threads: 2, import: None }, &listener, &stop, 1);
    let suite: SuiteResult = serde_json::from_value(store.result(&plan.jobs()[5].key).unwrap().unwrap()).unwrap();
    // A suite announces at most what was planned; the prune with another seed measures its parent once more.
    let again = data.test.len() as u64 * (1 + 4);
    let announced = listener.passes.load(Ordering::Relaxed);
    assert!(
        (expected + again..=expected + again + plan.jobs()[5].passes).contains(&announced),
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
    let mut result = store.result(&job.key).unwrap().unwrap();
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

/// A stop takes effect in each kind of stage.
#[test]
fn a_chain_stopped_again_and_again_ends_as_one_that_was_not() {
    let through = Finished::of(every_kind);
    let (_out, store) = out();
    let plan = every_kind(&through.data);
    let worker = EngineWorker { data: &through.data, threads: 1, import: None };
    let mut stopped_in: Vec<String> = Vec::new();
    for attempt in 0.. {
        assert!(attempt < 400, "no progress: {stopped_in:?}");
        let stop = AtomicBool::new(false);
        // A measurement of 40 images keeps nothing: it must be able to end.
        let listener = Listener::new(&stop, 300 + 3 * attempt);
        let outcome = plan.prepare(&store, false).unwrap().run(&worker, &listener, &stop, 1);
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        let events = listener.events.into_inner().unwrap();
        stopped_in.extend(events.iter().filter_map(|event| event.strip_suffix(" interrupted").map(str::to_string)));
        if !outcome.interrupted {
            break;
        }
    }
    for kind in ["train", "prune", "eval", "suite"] {
        assert!(stopped_in.iter().any(|stopped| stopped == kind), "never stopped in {kind}: {stopped_in:?}");
    }
    for (job, whole) in plan.jobs().iter().zip(through.plan.jobs()) {
        assert_eq!(job.key, whole.key);
        assert_eq!(left(&store, job), left(&through.store, whole), "{} {:?}", job.label, job.id);
    }
}
