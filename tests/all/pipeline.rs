//! Stages, keys, store, locks and plan, with a worker that only counts.
//!
//! - `kinds`: every kind of stage: keys, passes, scores
//! - `stops`: what a monitor hears, and chains that are stopped in every stage
//! - `worker`: the engine's own worker, on chains of every kind of stage

mod kinds;
mod stops;
mod worker;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::base::error::{Error, Result};
use engine::checkpoint::write_atomic;
use engine::data::{DataId, DatasetName};
use engine::experiments::pipeline::{
    BackendName, FORMAT, Job, JobId, Monitor, Outcome, Plan, Precision, Stage, StageConfig, StageDir, Store, Worker,
    paths, set,
};
use engine::experiments::tables::defaults::paper_training;
use engine::train::{EpochRow, Observer, TrainConfig};
use serde_json::{Value, json};

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
    fn started(&self, _: &Job, _: u64) {}
    fn advanced(&self, _: &Job, _: u64) {}
    fn epoch(&self, _: &Job, _: &EpochRow, _: usize) {}
    fn ended(&self, _: &Job, _: &Result<Value>) {}
}

/// Remembers the seeds of the stages it was given, and does with each what the closure says.
struct Fake<F> {
    seen: Mutex<Vec<u64>>,
    work: F,
}

impl<F: Fn(u64, &StageDir, &dyn Observer) -> Result<Value> + Sync> Fake<F> {
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

impl<F: Fn(u64, &StageDir, &dyn Observer) -> Result<Value> + Sync> Worker for Fake<F> {
    fn run(&self, stage: &Stage, dir: &StageDir, observer: &dyn Observer) -> Result<Value> {
        let seed = seed_of(stage);
        self.seen.lock().unwrap().push(seed);
        (self.work)(seed, dir, observer)
    }
}

fn succeed(seed: u64, _: &StageDir, _: &dyn Observer) -> Result<Value> {
    Ok(json!({ "seed": seed }))
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

#[test]
fn a_key_is_the_same_in_every_build() {
    // The key is the start of `sha256sum` of this text. If it changes, every result that users have is orphaned:
    // bump `pipeline::FORMAT` when it must.
    let json = concat!(
        r#"{"format":2,"backend":"cpu","precision":"f32","parents":[],"config":{"kind":"train","#,
        r#""data":{"name":"mnist","subset":"full","fingerprint":"0123456789abcdef"},"augment":false,"#,
        r#""network":"lenet","width":1,"origin":"initialisation","init":"uniform","epochs":300,"batch":64,"held_out":5000,"#,
        r#""select":"test-best","seed":7,"optimizer":{"kind":"adam","lr":0.0001,"beta1":0.9,"beta2":0.999,"#,
        r#""eps":1e-8,"weight_decay":0.0},"schedule":{"shape":"constant","milestones":[],"gamma":0.1,"#,
        r#""period":0,"warmup_epochs":0.0},"attack":{"eps":0.3,"step_size":0.01,"steps":40,"random_start":true,"#,
        r#""restarts":1,"loss":"cross-entropy","bn":"train"},"eps_schedule":{"ramp":"cosine","epochs":30.0},"#,
        r#""eval_attack":{"eps":0.3,"step_size":0.01,"steps":40,"random_start":true,"restarts":1,"#,
        r#""loss":"cross-entropy","bn":"eval"},"eval_every":1,"sparsity":{"kind":"dense"}}}"#,
    );
    let stage: Stage = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&stage).unwrap(), json);
    assert_eq!(stage.key().unwrap(), "869e81f49f74e8ad");
}

#[test]
fn every_setting_is_in_the_key() {
    let base = config(7);
    let mut keys = HashSet::from([stage(base.clone()).key().unwrap()]);
    let changed = |path: &str| match path {
        "data.name" | "network" => ["fashion-mnist", "resnet18"][usize::from(path == "network")],
        "select" => "last",
        "init" => "orthogonal",
        "schedule.shape" | "eps_schedule.ramp" => "cosine",
        "schedule.milestones" => "[3]",
        "augment" => "true",
        "attack.random_start" | "eval_attack.random_start" => "false",
        "attack.loss" | "eval_attack.loss" => "margin",
        "attack.bn" | "eval_attack.bn" => "eval",
        "origin" => "parent",
        "optimizer.beta1" | "optimizer.beta2" => "0.5",
        _ => "77",
    };
    let all = paths(&base).unwrap();
    assert!(all.len() > 25, "{all:?}");
    for path in all.iter().filter(|path| !["optimizer.kind", "sparsity.kind"].contains(&path.as_str())) {
        let config = set(&base, path, changed(path)).unwrap();
        assert!(keys.insert(stage(config).key().unwrap()), "{path} does not change the key");
    }
    let config = || StageConfig::Train(base.clone());
    for other in [
        Stage::new(BackendName::Cuda, Precision::F32, vec![], config()),
        Stage::new(BackendName::Cpu, Precision::Bf16, vec![], config()),
        Stage::new(BackendName::Cpu, Precision::F32, vec!["0123456789abcdef".into()], config()),
        Stage { format: 0, ..stage(base.clone()) },
    ] {
        assert!(keys.insert(other.key().unwrap()), "{other:?}");
    }
    let natural = TrainConfig { attack: None, ..base.clone() };
    assert!(keys.insert(stage(natural).key().unwrap()));
}

#[test]
fn a_stage_reads_back_from_its_config_file() {
    let (_out, store) = out();
    let stage = stage(TrainConfig { attack: None, ..config(3) });
    let dir = store.lock("k").unwrap();
    dir.write_config(&stage).unwrap();
    let text = fs::read_to_string(dir.path().join("config.toml")).unwrap();
    assert_eq!(toml::from_str::<Stage>(&text).unwrap(), stage);
}

#[test]
fn equal_stages_are_done_once_and_parents_first() {
    let (_out, store) = out();
    let mut plan = plan();
    let dense = add(&mut plan, 1, &[]);
    let children = [add(&mut plan, 2, &[dense]), add(&mut plan, 3, &[dense])];
    assert_eq!(add(&mut plan, 1, &[]), dense);
    assert_eq!(plan.add("another name", StageConfig::Train(config(2)), &[dense], 5).unwrap(), children[0]);
    // The same work on another parent is other work.
    let alone = add(&mut plan, 2, &[]);
    assert!(!children.contains(&alone));

    let worker = Fake::new(|seed, dir: &StageDir, observer: &dyn Observer| {
        if seed == 3 {
            let parent = &plan.jobs()[dense.index()].key;
            assert!(dir.path().with_file_name(parent).join("result.json").exists());
        }
        succeed(seed, dir, observer)
    });
    let outcome = worker.run_all(&plan, &store, 3);
    assert!(outcome.failures.is_empty() && !outcome.interrupted, "{:?}", outcome.failures);
    let mut seen = worker.seen();
    seen.sort();
    assert_eq!(seen, [1, 2, 2, 3]);
    assert_eq!(outcome.results[children[1].index()], Some(json!({ "seed": 3 })));
}

#[test]
fn finished_stages_cost_nothing() {
    let (_out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    let first = Fake::new(succeed).run_all(&plan, &store, 1);
    add(&mut plan, 2, &[]);
    let again = Fake::new(succeed);
    let second = again.run_all(&plan, &store, 1);
    assert_eq!(again.seen(), [2]);
    assert_eq!(first.results[0], second.results[0]);
    assert_eq!(plan.prepare(&store, false).unwrap().pending(), 0);
}

#[test]
fn a_killed_stage_goes_on_from_its_state() {
    let (_out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    let key = &plan.jobs()[0].key;
    let state = store.path(key).join("state.safetensors");
    // What a killed process leaves: a configuration, a state, no result, and a lock file that nobody holds.
    let dir = store.lock(key).unwrap();
    dir.write_config(&plan.jobs()[0].stage).unwrap();
    write_atomic(&state, b"after epoch 3").unwrap();
    drop(dir);

    let worker = Fake::new(|_, dir: &StageDir, _: &dyn Observer| {
        let found = fs::read(dir.path().join("state.safetensors")).unwrap();
        assert_eq!(found, b"after epoch 3");
        Ok(json!("resumed"))
    });
    let outcome = worker.run_all(&plan, &store, 1);
    assert_eq!(outcome.results[0], Some(json!("resumed")));
    assert!(!state.exists());
    assert_eq!(store.result(key).unwrap(), Some(json!("resumed")));
}

#[test]
fn progress_of_earlier_runs_counts() {
    let (_out, store) = out();
    let mut plan = plan();
    plan.add("four epochs", StageConfig::Train(TrainConfig { epochs: 4, ..config(1) }), &[], 400).unwrap();
    let row = EpochRow {
        epoch: 1,
        lr: 0.1,
        eps: 0.3,
        train_loss: 2.3,
        train_accuracy: 11.35,
        zero_gradient: 0.0,
        test_natural: Some(11.35),
        test_adversarial: Some(11.35),
        test_natural_loss: Some(2.3),
        test_adversarial_loss: Some(2.3),
        held_out_natural: None,
        held_out_adversarial: Some(10.0),
        seconds: 1.0,
    };
    let dir = store.lock(&plan.jobs()[0].key).unwrap();
    let mut csv = csv::Writer::from_path(dir.path().join("metrics.csv")).unwrap();
    csv.serialize(&row).unwrap();
    csv.flush().unwrap();
    drop(dir);
    assert_eq!(store.metrics(&plan.jobs()[0].key).unwrap(), [row]);
    let prepared = plan.prepare(&store, false).unwrap();
    assert_eq!(prepared.remaining().map(|(_, passes)| passes).collect::<Vec<_>>(), [300]);
}

#[test]
fn a_failing_stage_leaves_the_others_alone() {
    let (_out, store) = out();
    let mut plan = plan();
    let bad = add(&mut plan, 1, &[]);
    let child = add(&mut plan, 2, &[bad]);
    let grandchild = add(&mut plan, 3, &[child]);
    let good = add(&mut plan, 4, &[]);
    let panicking = add(&mut plan, 5, &[]);
    let worker = Fake::new(|seed, dir: &StageDir, observer: &dyn Observer| match seed {
        1 => Err(Error::Diverged("the loss became NaN".into())),
        5 => panic!("a bug"),
        _ => succeed(seed, dir, observer),
    });
    let outcome = worker.run_all(&plan, &store, 1);
    assert_eq!(worker.seen(), [1, 4, 5]);
    assert!(outcome.results[good.index()].is_some());
    assert!(!outcome.interrupted);
    let failed: Vec<JobId> = outcome.failures.iter().map(|failure| failure.id).collect();
    assert_eq!(failed, [bad, child, grandchild, panicking]);
    assert_eq!(outcome.failures[0].error.exit_code(), 1);
    assert!(one_line(&outcome.failures[1].error).contains("'seed 1' failed"));
    // It is tried again by the next run.
    assert_eq!(plan.prepare(&store, false).unwrap().pending(), 4);
}

#[test]
fn stopping_saves_what_runs_and_starts_nothing_new() {
    let (_out, store) = out();
    let mut plan = plan();
    for seed in 1..=5 {
        add(&mut plan, seed, &[]);
    }
    let stop = AtomicBool::new(false);
    let worker = Fake::new(|seed, dir: &StageDir, observer: &dyn Observer| {
        if seed == 2 {
            stop.store(true, Ordering::Relaxed);
        }
        match observer.stop_requested() {
            true => Err(Error::Interrupted),
            false => succeed(seed, dir, observer),
        }
    });
    let outcome = plan.prepare(&store, false).unwrap().run(&worker, &Silent, &stop, 1);
    assert_eq!(worker.seen(), [1, 2]);
    assert!(outcome.interrupted && outcome.failures.is_empty());
    assert_eq!(plan.prepare(&store, false).unwrap().pending(), 4);
}

#[test]
fn as_many_stages_run_side_by_side_as_asked_for() {
    let (_out, store) = out();
    let mut plan = plan();
    for seed in 1..=9 {
        add(&mut plan, seed, &[]);
    }
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let worker = Fake::new(|seed, dir: &StageDir, observer: &dyn Observer| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Nobody leaves before three have met; a plan that runs fewer would wait for the deadline and fail below.
        let deadline = Instant::now() + Duration::from_secs(10);
        while most.load(Ordering::SeqCst) < 3 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        now.fetch_sub(1, Ordering::SeqCst);
        succeed(seed, dir, observer)
    });
    worker.run_all(&plan, &store, 3);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(worker.seen().len(), 9);
}

#[test]
fn a_stage_of_another_process_is_left_alone() {
    let (_out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    add(&mut plan, 2, &[]);
    let key = &plan.jobs()[1].key;
    let held = store.lock(key).unwrap();
    fs::write(held.path().join("state.safetensors"), "state").unwrap();
    for fresh in [false, true] {
        let error = plan.prepare(&store, fresh).err().unwrap();
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
        assert_eq!(error.exit_code(), 1);
        let text = one_line(&error);
        assert!(text.contains(&format!("process {}", std::process::id())) && text.contains(key.as_str()), "{text}");
    }
    assert!(held.path().join("state.safetensors").exists(), "--fresh must not touch a locked stage");
    drop(held);
    assert_eq!(plan.prepare(&store, false).unwrap().pending(), 2);
}

#[test]
fn a_plan_holds_its_stages_until_they_are_done() {
    let (_out, store) = out();
    let mut plan = plan();
    let (running, waiting) = (add(&mut plan, 1, &[]), add(&mut plan, 2, &[]));
    let worker = Fake::new(|seed, dir: &StageDir, observer: &dyn Observer| {
        if seed == 1 {
            for id in [running, waiting] {
                assert!(matches!(store.lock(&plan.jobs()[id.index()].key), Err(Error::Locked(_))));
            }
        }
        succeed(seed, dir, observer)
    });
    assert!(worker.run_all(&plan, &store, 1).failures.is_empty());
    assert!(store.lock(&plan.jobs()[running.index()].key).is_ok());
}

#[test]
fn fresh_discards_these_stages_and_no_others() {
    let (_out, store) = out();
    let (mut mine, mut others) = (plan(), plan());
    add(&mut mine, 1, &[]);
    add(&mut others, 2, &[]);
    for plan in [&mine, &others] {
        Fake::new(succeed).run_all(plan, &store, 1);
    }
    let old = store.path(&mine.jobs()[0].key).join("model.safetensors");
    fs::write(&old, "old").unwrap();
    assert_eq!(mine.prepare(&store, true).unwrap().pending(), 1);
    assert!(!old.exists());
    assert_eq!(store.result(&mine.jobs()[0].key).unwrap(), None);
    assert_eq!(others.prepare(&store, false).unwrap().pending(), 0);
}

#[test]
fn a_corrupt_result_is_reported_and_kept() {
    let (_out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    Fake::new(succeed).run_all(&plan, &store, 1);
    let path = store.path(&plan.jobs()[0].key).join("result.json");
    fs::write(&path, "{ \"seed\":").unwrap();
    let error = plan.prepare(&store, false).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    let text = one_line(&error);
    assert!(text.contains("result.json") && text.contains("--fresh"), "{text}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{ \"seed\":");
    assert_eq!(plan.prepare(&store, true).unwrap().pending(), 1);
}

#[test]
fn a_store_of_another_format_is_refused() {
    let (out, store) = out();
    drop(store);
    let version = out.path().join("store/version");
    assert_eq!(fs::read_to_string(&version).unwrap(), format!("{FORMAT}\n"));
    Store::open(out.path()).unwrap();
    for text in ["99\n", "", "\u{1b}[31m\n\nbinary"] {
        fs::write(&version, text).unwrap();
        let error = Store::open(out.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(one_line(&error).contains("--out"), "{error}");
        assert_eq!(fs::read_to_string(&version).unwrap(), text);
    }
}

#[test]
fn an_output_directory_that_cannot_be_written_is_a_wrong_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for out in [file.as_path(), &file.join("below")] {
        let error = Store::open(out).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(one_line(&error).contains("--out"), "{error}");
    }
}

#[test]
fn an_atomic_write_replaces_or_leaves_all_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let names = || {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let file = dir.path().join("file");
    write_atomic(&file, b"old, and longer").unwrap();
    write_atomic(&file, b"new").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"new");
    // A directory in the target's place makes the last step fail.
    fs::create_dir_all(dir.path().join("taken/inside")).unwrap();
    let error = write_atomic(&dir.path().join("taken"), b"lost").unwrap_err();
    assert!(one_line(&error).contains("taken"), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert_eq!(names(), ["file", "taken"]);
    assert!(write_atomic(Path::new("/no/such/directory/file"), b"").is_err());
}

/// Results are ordinary files: whoever may read others of this user may read these.
#[test]
#[cfg(unix)]
fn an_atomic_write_has_the_permissions_of_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let [plain, atomic] = ["plain", "atomic"].map(|name| dir.path().join(name));
    fs::write(&plain, b"x").unwrap();
    write_atomic(&atomic, b"x").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&atomic), mode(&plain));
}

/// What a killed process has left half written goes when the stage is taken; nothing else does.
#[test]
fn taking_a_stage_removes_what_was_half_written() {
    let (_out, store) = out();
    let dir = store.path("k");
    fs::create_dir_all(&dir).unwrap();
    for name in [".tmp-abc", "state.safetensors", "metrics.csv", "a.tmp-b"] {
        fs::write(dir.join(name), "x").unwrap();
    }
    let _held = store.lock("k").unwrap();
    let mut names: Vec<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["a.tmp-b", "lock", "metrics.csv", "state.safetensors"]);
    assert_eq!(fs::read_to_string(dir.join("lock")).unwrap(), format!("{}\n", std::process::id()));
}

/// Whole epochs of a stage that has fewer than it began with are no more than all of it.
#[test]
fn progress_of_earlier_runs_is_at_most_the_whole() {
    let (_out, store) = out();
    let mut plan = plan();
    plan.add("three epochs", StageConfig::Train(TrainConfig { epochs: 3, ..config(1) }), &[], 1001).unwrap();
    let remaining = || plan.prepare(&store, false).unwrap().remaining().map(|(_, passes)| passes).collect::<Vec<_>>();
    assert_eq!(remaining(), [1001]);
    let row = "0.1,0.3,2.3,11.35,0,,,,,,,1";
    let header = "epoch,lr,eps,train_loss,train_accuracy,zero_gradient,test_natural,test_adversarial,test_natural_loss,\
                  test_adversarial_loss,held_out_natural,held_out_adversarial,seconds";
    let metrics = store.path(&plan.jobs()[0].key).join("metrics.csv");
    // A third of 1001 passes is 333 and a part of one.
    for (epochs, left) in [(0, 1001), (1, 1001 - 333), (2, 1001 - 666), (3, 1001 - 999), (5, 1001 - 999)] {
        let rows: String = (1..=epochs).map(|epoch| format!("{epoch},{row}\n")).collect();
        fs::write(&metrics, format!("{header}\n{rows}")).unwrap();
        assert_eq!(remaining(), [left], "{epochs} epochs");
    }
}

#[test]
fn set_keeps_the_type_and_suggests_the_nearest_key() {
    let base = config(0);
    let changed = set(&base, "attack.eps", "0.2").unwrap();
    assert_eq!(changed.attack.as_ref().unwrap().eps, 0.2);
    assert_eq!(TrainConfig { attack: base.attack.clone(), ..changed }, base, "nothing else may change");
    assert_eq!(set(&base, "held_out", "0").unwrap().held_out, 0);
    assert_eq!(set(&base, "optimizer.lr", "1").unwrap(), set(&base, "optimizer.lr", "1.0").unwrap());
    assert_eq!(set(&base, "schedule.milestones", "[20, 40]").unwrap().schedule.milestones, [20, 40]);
    for (path, value, expected) in [
        ("atack.eps", "0.2", "did you mean 'attack.eps'?"),
        ("attack.epz", "0.2", "did you mean 'attack.eps'?"),
        ("attack", "none", "unknown setting"),
        ("batch.size", "3", "unknown setting"),
        ("", "3", "unknown setting"),
        ("batch", "many", "integer"),
        ("batch", "-1", "batch"),
        ("batch", "2.5", "integer"),
        ("attack.eps", "big", "float"),
        ("augment", "yes", "boolean"),
        ("network", "lenat", "did you mean 'lenet'?"),
        ("schedule.milestones", "20", "array"),
        ("optimizer.kind", "sgd", "optimizer.kind"),
    ] {
        let error = set(&base, path, value).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(one_line(&error).contains(expected), "{path}={value}: {error}");
    }
}
