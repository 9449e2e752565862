//! Which stages a plan runs, in which order, and what it says of those that did not finish.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::base::error::Error;
use engine::checkpoint::write_atomic;
use engine::experiments::pipeline::{Job, JobId, StageConfig, StageDir};
use engine::train::{EpochRow, Observer, TrainConfig};

use super::{Fake, Silent, add, config, one_line, out, plan, result, succeed};

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
    assert_eq!(outcome.results[children[1].index()], Some(result(3)));
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
    let Job { key, stage, .. } = &plan.jobs()[0];
    let state = store.path(key).join("state.safetensors");
    // What a killed process leaves: a configuration, a state, no result, and a lock file that nobody holds.
    let dir = store.lock(key).unwrap();
    dir.write_config(stage).unwrap();
    write_atomic(&state, b"after epoch 3").unwrap();
    drop(dir);

    let worker = Fake::new(|_, dir: &StageDir, _: &dyn Observer| {
        let found = fs::read(dir.path().join("state.safetensors")).unwrap();
        assert_eq!(found, b"after epoch 3");
        Ok(result(9))
    });
    let outcome = worker.run_all(&plan, &store, 1);
    assert_eq!(outcome.results[0], Some(result(9)));
    assert!(!state.exists());
    assert_eq!(store.result(key, &stage.config).unwrap(), Some(result(9)));
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
    assert_eq!(prepared.remaining().map(|(_, epochs)| epochs).collect::<Vec<_>>(), [1]);
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

/// Whole epochs of a stage that has fewer than it began with are no more than all of it.
#[test]
fn progress_of_earlier_runs_is_at_most_the_whole() {
    let (_out, store) = out();
    let mut plan = plan();
    plan.add("three epochs", StageConfig::Train(TrainConfig { epochs: 3, ..config(1) }), &[], 1001).unwrap();
    let epochs = || plan.prepare(&store, false).unwrap().remaining().map(|(_, epochs)| epochs).collect::<Vec<_>>();
    assert_eq!(epochs(), [0]);
    let row = "0.1,0.3,2.3,11.35,0,,,,,,,1";
    let header = "epoch,lr,eps,train_loss,train_accuracy,zero_gradient,test_natural,test_adversarial,test_natural_loss,\
                  test_adversarial_loss,held_out_natural,held_out_adversarial,seconds";
    let metrics = store.path(&plan.jobs()[0].key).join("metrics.csv");
    for (recorded, done) in [(0, 0), (1, 1), (2, 2), (3, 3), (5, 3)] {
        let rows: String = (1..=recorded).map(|epoch| format!("{epoch},{row}\n")).collect();
        fs::write(&metrics, format!("{header}\n{rows}")).unwrap();
        assert_eq!(epochs(), [done], "{recorded} epochs");
    }
}
