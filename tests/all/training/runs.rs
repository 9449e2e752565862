//! The training loop from end to end, on a part of the embedded sample.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use engine::attack::{EpsSchedule, Ramp};
use engine::backend::cpu::Cpu;
use engine::base::error::{Error, Result};
use engine::data::Dataset;
use engine::nn::init::Init;
use engine::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use engine::train::{Observer, Selection, TrainConfig, TrainResult, train};

use crate::small_runs::{Stop, attack, config, digits};

/// Trains a fresh network in `dir` on `threads` threads.
fn run(
    threads: usize,
    config: &TrainConfig,
    data: &Dataset,
    dir: &Path,
    observer: &dyn Observer,
) -> Result<TrainResult> {
    train(&Cpu::<f32>::new(threads).unwrap(), config, data, None, dir, observer)
}

/// Trains to the end in a directory of its own.
fn run_through(config: &TrainConfig, data: &Dataset) -> (TrainResult, Files) {
    let dir = tempfile::tempdir().unwrap();
    let result = run(2, config, data, dir.path(), &Stop::never()).unwrap();
    (timeless(result), files(dir.path()))
}

/// What a run left: the bytes of the model, and the metrics without the seconds.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn files(dir: &Path) -> Files {
    ["model.safetensors", "metrics.csv"]
        .into_iter()
        .map(|name| {
            let bytes = std::fs::read(dir.join(name)).unwrap();
            (name.to_string(), if name == "metrics.csv" { without_seconds(&bytes) } else { bytes })
        })
        .collect()
}

/// A CSV without its last column, which is the time.
fn without_seconds(csv: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(csv).unwrap();
    assert!(text.lines().next().unwrap().ends_with(",seconds"), "{text}");
    text.lines().map(|line| format!("{}\n", line.rsplit_once(',').unwrap().0)).collect::<String>().into_bytes()
}

pub fn timeless(result: TrainResult) -> TrainResult {
    TrainResult { seconds: 0.0, ..result }
}

#[test]
fn threads_do_not_change_a_bit() {
    let data = digits(250, 60);
    let config = config(&data);
    let one = tempfile::tempdir().unwrap();
    let result = run(1, &config, &data, one.path(), &Stop::never()).unwrap();
    assert_eq!(run_through(&config, &data), (timeless(result), files(one.path())));
}

#[test]
fn every_pass_is_announced() {
    let data = digits(150, 40);
    let (config, dir, observer) = (config(&data), tempfile::tempdir().unwrap(), Stop::never());
    run(2, &config, &data, dir.path(), &observer).unwrap();
    assert_eq!(observer.passes.load(Ordering::Relaxed) as u64, config.image_passes(150, 40));
}

#[test]
fn interrupted_runs_end_as_uninterrupted_ones() {
    let data = digits(150, 40);
    let sgd = OptimizerConfig::Sgd { lr: 0.02, momentum: 0.9, weight_decay: 1e-4 };
    for config in [config(&data), TrainConfig { optimizer: sgd, select: Selection::HeldOut, ..config(&data) }] {
        let through = run_through(&config, &data);
        let whole = Stop::never();
        run(1, &config, &data, tempfile::tempdir().unwrap().path(), &whole).unwrap();
        let asked = whole.asked.load(Ordering::Relaxed);

        // At once, in the first epoch's training, in its evaluation, later, at the very end.
        let steps = (150 - config.held_out).div_ceil(config.batch);
        for stop_at in [1, 3, steps, steps + 1, steps + 4, asked / 2, asked - 1, asked] {
            let dir = tempfile::tempdir().unwrap();
            let stopped = run(1, &config, &data, dir.path(), &Stop::at(stop_at));
            assert!(matches!(stopped, Err(Error::Interrupted)), "asked to stop at {stop_at}: {stopped:?}");
            assert!(!dir.path().join("model.safetensors").exists(), "no result before the end");
            let resumed = run(2, &config, &data, dir.path(), &Stop::never()).unwrap();
            assert_eq!((timeless(resumed), files(dir.path())), through, "stopped at {stop_at}");
        }

        // Again and again, some steps at a time.
        let dir = tempfile::tempdir().unwrap();
        let mut attempts = 0;
        let result = loop {
            attempts += 1;
            assert!(attempts < 30, "no progress");
            match run(2, &config, &data, dir.path(), &Stop::at(40 + attempts)) {
                Err(Error::Interrupted) => {}
                other => break other.unwrap(),
            }
        };
        assert!(attempts > 2, "{attempts}");
        assert_eq!((timeless(result), files(dir.path())), through);
    }
}

/// What was done before the interruption is not done again: a step, and a completed epoch, count once.
#[test]
fn a_resumed_run_does_only_what_is_left() {
    let data = digits(150, 40);
    let config = config(&data);
    let whole = config.image_passes(150, 40);
    for stop_at in [1, 4, 6] {
        let dir = tempfile::tempdir().unwrap();
        let passes = |observer: Stop| {
            let outcome = run(1, &config, &data, dir.path(), &observer);
            (outcome.is_ok(), observer.passes.into_inner() as u64)
        };
        let (stopped, resumed) = (passes(Stop::at(stop_at)), passes(Stop::never()));
        assert_eq!((stopped.0, stopped.1), (false, stop_at as u64 * 20 * 3));
        assert_eq!((resumed.0, stopped.1 + resumed.1), (true, whole), "stopped after step {stop_at}");
    }
}

#[test]
fn the_seed_changes_the_run() {
    let data = digits(60, 20);
    let config = TrainConfig { epochs: 1, ..config(&data) };
    let (_, one) = run_through(&config, &data);
    let (_, other) = run_through(&TrainConfig { seed: config.seed + 1, ..config.clone() }, &data);
    assert_ne!(one["model.safetensors"], other["model.safetensors"]);
}

#[test]
fn a_run_resumes_only_under_its_own_settings() {
    let data = digits(60, 20);
    let (config, dir) = (config(&data), tempfile::tempdir().unwrap());
    run(2, &config, &data, dir.path(), &Stop::at(2)).unwrap_err();
    let others = [
        TrainConfig { seed: 99, ..config.clone() },
        TrainConfig { epochs: config.epochs + 1, ..config.clone() },
        TrainConfig { optimizer: config.optimizer.clone().with_lr(Some(1e-3)), ..config.clone() },
        TrainConfig { attack: None, ..config.clone() },
        TrainConfig { eval_attack: attack(4), ..config.clone() },
        TrainConfig { select: Selection::Last, ..config },
    ];
    for other in others {
        let error = run(2, &other, &data, dir.path(), &Stop::never()).unwrap_err();
        assert!(matches!(error, Error::Input { .. }) && error.to_string().contains("other settings"), "{error}");
    }
}

/// A good first epoch, an absurd second one.
fn diverging(data: &Dataset) -> TrainConfig {
    let schedule =
        LrSchedule { shape: LrShape::MultiStep, milestones: vec![1], gamma: 1e30, period: 0, warmup_epochs: 0.0 };
    TrainConfig { schedule, ..config(data) }
}

#[test]
fn divergence_names_the_epoch_and_keeps_the_last_good_state() {
    let data = digits(150, 40);
    let (config, dir) = (diverging(&data), tempfile::tempdir().unwrap());
    let mut states = Vec::new();
    for attempt in 0..2 {
        let error = run(2, &config, &data, dir.path(), &Stop::never()).unwrap_err();
        assert!(matches!(error, Error::Diverged(_)), "{error}");
        assert!(error.to_string().contains("in epoch 2 by step"), "attempt {attempt}: {error}");
        let metrics = std::fs::read_to_string(dir.path().join("metrics.csv")).unwrap();
        assert_eq!(metrics.lines().count(), 2, "the header and the first epoch: {metrics}");
        assert!(!dir.path().join("model.safetensors").exists());
        states.push(std::fs::read(dir.path().join("state.safetensors")).unwrap());
    }
    assert_eq!(states[0], states[1], "the state of the good epoch stays");
}

/// An epoch of many steps is not gone through to its end.
#[test]
fn divergence_is_seen_after_64_steps() {
    let data = digits(150, 40);
    let optimizer = OptimizerConfig::Sgd { lr: 1e30, momentum: 0.0, weight_decay: 0.0 };
    let config = TrainConfig { optimizer, batch: 1, attack: None, ..config(&data) };
    let dir = tempfile::tempdir().unwrap();
    let error = run(2, &config, &data, dir.path(), &Stop::never()).unwrap_err().to_string();
    assert!(error.contains("in epoch 1 by step 64;"), "of 120: {error}");
}

#[test]
fn divergence_in_the_very_last_step_is_seen() {
    let data = digits(60, 20);
    let optimizer = OptimizerConfig::Sgd { lr: 1e30, momentum: 0.0, weight_decay: 0.0 };
    let config = TrainConfig { optimizer, epochs: 1, batch: 60, ..config(&data) };
    let dir = tempfile::tempdir().unwrap();
    let error = run(2, &config, &data, dir.path(), &Stop::never()).unwrap_err();
    assert!(error.to_string().starts_with("the evaluation loss became"), "{error}");
    assert!(!dir.path().join("model.safetensors").exists());
}

#[test]
fn an_interruption_does_not_save_a_diverged_state() {
    let data = digits(150, 40);
    let (config, first_epoch) = (diverging(&data), Stop::never());
    let one = TrainConfig { epochs: 1, ..config.clone() };
    run(1, &one, &data, tempfile::tempdir().unwrap().path(), &first_epoch).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let in_the_second = first_epoch.asked.load(Ordering::Relaxed) + 4;
    let error = run(1, &config, &data, dir.path(), &Stop::at(in_the_second)).unwrap_err();
    assert!(matches!(error, Error::Diverged(_)), "{error}");
    assert!(error.to_string().contains("the state of epoch 1 is kept"), "{error}");
}

#[test]
fn every_rule_selects_its_own_epoch() {
    let data = digits(150, 40);
    let config = config(&data);
    let (result, _) = run_through(&config, &data);
    let find = |select| result.candidates.iter().find(|c| c.select == select).unwrap();
    assert_eq!(result.candidates.len(), 3);
    assert_eq!(find(Selection::Last).epoch, 3);
    assert_eq!(result.selected, *find(Selection::TestBest));
    let best = find(Selection::TestBest).test.adversarial;
    assert!(best >= find(Selection::HeldOut).test.adversarial && best >= find(Selection::Last).test.adversarial);
    assert!(result.candidates.iter().all(|c| c.test.images == 40 && c.held_out.as_ref().unwrap().images == 30));

    for select in [Selection::HeldOut, Selection::Last] {
        let (other, _) = run_through(&TrainConfig { select, ..config.clone() }, &data);
        assert_eq!(other.selected, *find(select));
        assert_eq!(other.candidates, result.candidates, "the rule chooses among the same candidates");
    }
}

#[test]
fn without_images_put_aside_there_is_no_held_out_candidate() {
    let data = digits(60, 20);
    let config = TrainConfig { held_out: 0, epochs: 2, select: Selection::HeldOut, ..config(&data) };
    let (result, files) = run_through(&config, &data);
    let rules: Vec<Selection> = result.candidates.iter().map(|c| c.select).collect();
    assert_eq!(rules, [Selection::TestBest, Selection::Last]);
    assert_eq!((result.selected.select, result.selected.epoch), (Selection::Last, 2));
    assert!(result.candidates.iter().all(|c| c.held_out.is_none()));
    let row = std::str::from_utf8(&files["metrics.csv"]).unwrap().lines().nth(1).unwrap();
    assert!(row.ends_with(",,"), "empty columns: {row}");
}

#[test]
fn collapse_is_detected() {
    let data = digits(150, 40);
    // A decay that wipes the weights out at every step.
    let wiped = OptimizerConfig::Sgd { lr: 0.5, momentum: 0.0, weight_decay: 2.0 };
    let (dead, _) = run_through(&TrainConfig { optimizer: wiped, ..config(&data) }, &data);
    assert!(dead.collapsed, "{:?}", dead.selected.test);
    assert!(dead.selected.test.constant_prediction.is_some());
    let natural = TrainConfig { attack: None, ..config(&data) };
    let (alive, _) = run_through(&natural, &data);
    assert!(!alive.collapsed && alive.selected.test.natural > 30.0, "{:?}", alive.selected.test);
}

#[test]
fn the_metrics_say_what_was_done() {
    let data = digits(150, 40);
    let eps_schedule = EpsSchedule { ramp: Ramp::Linear, epochs: 2.0 };
    let schedule =
        LrSchedule { shape: LrShape::MultiStep, milestones: vec![2], gamma: 0.5, period: 0, warmup_epochs: 0.0 };
    let config = TrainConfig { init: Init::KaimingNormal, eps_schedule, schedule, ..config(&data) };
    let dir = tempfile::tempdir().unwrap();
    let result = run(2, &config, &data, dir.path(), &Stop::never()).unwrap();
    let mut reader = csv::Reader::from_path(dir.path().join("metrics.csv")).unwrap();
    let rows: Vec<engine::train::EpochRow> = reader.deserialize().map(|row| row.unwrap()).collect();
    let column = |f: fn(&engine::train::EpochRow) -> f64| {
        rows.iter().map(|row| (f(row) * 1e6).round() / 1e6).collect::<Vec<_>>()
    };
    assert_eq!(column(|row| row.epoch as f64), [1.0, 2.0, 3.0]);
    assert_eq!(column(|row| row.lr), [0.002, 0.002, 0.001]);
    assert_eq!(column(|row| row.eps), [0.15, 0.3, 0.3]);
    let seconds: f64 = rows.iter().map(|row| row.seconds).sum();
    assert_eq!((result.parameters, result.epochs, result.seconds), (13_514, 3, seconds));
    for row in &rows {
        assert!(row.test_adversarial.is_some() && row.test_adversarial_loss.is_some(), "{row:?}");
        assert!(row.train_loss > 0.0 && row.test_adversarial <= row.test_natural && row.seconds > 0.0, "{row:?}");
        assert!(row.test_adversarial_loss > row.test_natural_loss, "{row:?}");
    }
}
