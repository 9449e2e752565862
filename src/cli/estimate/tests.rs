use super::*;
use crate::attack::PgdConfig;
use crate::attack::config::AttackConfig;
use crate::data::DatasetName;
use crate::experiments::pipeline::{
    BackendName, EvalConfig, ImportConfig, ImportResult, Job, JobId, Precision, PruneConfig, StageConfig, StageResult,
    Store, SuiteConfig,
};
use crate::experiments::tables::defaults::paper_training;
use crate::nn::models::Network;
use crate::prune::{Scheme, Target};
use crate::train::TrainConfig;

/// 100 training and 50 test images: a naturally trained epoch of 100 passes, and a measurement of 50 · 2, clean and attacked by
/// no step.
fn data() -> Dataset {
    Dataset::sample(DatasetName::Mnist).unwrap().subset(100, 50).unwrap()
}

fn training(epochs: usize, width: usize) -> TrainConfig {
    let paper = paper_training(&data().id, 100);
    let eval_attack = PgdConfig { steps: 0, ..paper.eval_attack.clone() };
    TrainConfig { epochs, width, held_out: 0, attack: None, eval_attack, ..paper }
}

/// A second for a pass of a network of width 1, whatever it does: so long, measured.
fn second_a_pass(kinds: &[(Kind, u64)]) -> Measured {
    divided(kinds.iter().map(|(kind, _)| Some(1.0 / kind.multiply_adds())).collect())
}

/// On cores that stages divide among themselves.
fn divided(seconds: Vec<Option<f64>>) -> Measured {
    Measured { seconds, exponent: 1.0 }
}

fn estimate(plan: &Plan, store: &Store, slots: usize) -> Estimate {
    Estimate::new(plan, &plan.prepare(store, false).unwrap(), &data(), slots, second_a_pass)
}

fn left(estimate: &Estimate, now: f64) -> f64 {
    estimate.left(now).unwrap().as_secs_f64()
}

fn add(plan: &mut Plan, epochs: usize, width: usize) -> JobId {
    plan.add("training", StageConfig::Train(training(epochs, width)), &[], 1).unwrap()
}

/// A training of two epochs and a measurement of it, and a training of one.
fn plan() -> Plan {
    let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
    let TrainConfig { data, network, width, seed, eval_attack, .. } = training(2, 1);
    let first = add(&mut plan, 2, 1);
    let eval = EvalConfig { data, network, width, seed, sparsity: None, eval_attack };
    plan.add("eval", StageConfig::Eval(eval), &[first], 1).unwrap();
    add(&mut plan, 1, 2);
    plan
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn the_promise_is_the_end_of_the_schedule() {
    let ((_dir, store), plan) = (store(), plan());
    // Two epochs of 200, then 100; and one epoch of 200.
    assert_eq!(left(&estimate(&plan, &store, 1), 0.0), 700.0);
    // Side by side in two slots, and alone twice as fast; or not, where a stage does not notice another.
    assert_eq!(left(&estimate(&plan, &store, 2), 0.0), 350.0);
    let apart = |kinds: &[(Kind, u64)]| Measured { exponent: 0.0, ..second_a_pass(kinds) };
    let apart = Estimate::new(&plan, &plan.prepare(&store, false).unwrap(), &data(), 2, apart);
    assert_eq!(left(&apart, 0.0), 500.0);
    let promise = estimate(&plan, &store, 1).promise();
    assert!(promise.starts_with("about 12 minutes, measured in 0."), "{promise}");
}

#[test]
fn what_earlier_runs_did_is_not_promised_again() {
    let ((_dir, store), plan) = (store(), plan());
    let header = "epoch,lr,eps,train_loss,train_accuracy,zero_gradient,test_natural,test_adversarial,test_natural_loss,\
                  test_adversarial_loss,held_out_natural,held_out_adversarial,seconds";
    let dir = store.path(&plan.jobs()[0].key);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("metrics.csv"), format!("{header}\n1,0.1,0.3,2.3,11.35,0,,,,,,,1\n")).unwrap();
    assert_eq!(left(&estimate(&plan, &store, 1), 0.0), 500.0);
}

#[test]
fn a_prune_also_measures_a_parent_that_was_not_measured() {
    let (_dir, store) = store();
    let TrainConfig { data, network, width, seed, eval_attack, .. } = training(1, 1);
    let sparsity = Target { scheme: Scheme::Filter, ratio: 0.5, linear: true };
    let import = ImportConfig { sha256: "00ff".into(), network, width };
    let prune = PruneConfig { data, network, width, seed, sparsity, eval_attack };
    let seconds = [StageConfig::Import(import), StageConfig::Train(training(1, 1))].map(|parent| {
        let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
        let parent = plan.add("parent", parent, &[], 1).unwrap();
        plan.add("prune", StageConfig::Prune(prune.clone()), &[parent], 1).unwrap();
        left(&estimate(&plan, &store, 1), 0.0)
    });
    // Twice 100; and an epoch of 200 with its measurement, then 100.
    assert_eq!(seconds, [200.0, 300.0]);
}

#[test]
fn nothing_is_promised_of_finished_stages_and_of_imports() {
    let (_dir, store) = store();
    let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
    let import = ImportConfig { sha256: "00ff".into(), network: Network::LeNet, width: 1 };
    plan.add("import", StageConfig::Import(import), &[], 0).unwrap();
    assert_eq!(estimate(&plan, &store, 1).promise(), "nothing left to do");
    let Job { key, stage, .. } = &plan.jobs()[0];
    store.lock(key).unwrap().finish(&stage.config, &StageResult::Import(ImportResult {})).unwrap();
    let finished = Estimate::new(&plan, &plan.prepare(&store, false).unwrap(), &data(), 1, |kinds| {
        assert!(kinds.is_empty(), "nothing is to be measured");
        divided(Vec::new())
    });
    assert_eq!(finished.promise(), "nothing left to do");
}

#[test]
fn equal_work_is_one_kind_and_counts_all_its_passes() {
    let ((_dir, store), mut plan) = (store(), plan());
    add(&mut plan, 3, 1);
    let mut seen = Vec::new();
    Estimate::new(&plan, &plan.prepare(&store, false).unwrap(), &data(), 1, |kinds| {
        seen = kinds.iter().map(|(kind, passes)| (kind.architecture.width, *passes)).collect();
        second_a_pass(kinds)
    });
    // Width 1: five epochs; as many measurements and that of the evaluation. Width 2: one of each.
    assert_eq!(seen, [(1, 500), (1, 600), (2, 100), (2, 100)]);
}

#[test]
fn what_was_not_measured_is_reckoned_from_the_network_closest_in_size() {
    let (_dir, store) = store();
    let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
    for width in [1, 2, 8] {
        add(&mut plan, 1, width);
    }
    let multiply_adds = std::cell::RefCell::new(Vec::new());
    let estimate = Estimate::new(&plan, &plan.prepare(&store, false).unwrap(), &data(), 1, |kinds| {
        *multiply_adds.borrow_mut() = kinds.iter().map(|(kind, _)| kind.multiply_adds()).collect();
        // Training and measuring at each width.
        divided(vec![Some(1e-6), None, None, None, Some(1e-7), None])
    });
    let seconds: Vec<f64> = (0..6).map(|kind| estimate.rates.seconds(kind)).collect();
    let expected = multiply_adds.into_inner().into_iter().zip([1e-6, 1e-6, 1e-6, 1e-6, 1e-7, 1e-7]);
    let expected: Vec<f64> = expected.map(|(multiply_adds, seconds)| multiply_adds * seconds).collect();
    assert!(seconds.iter().zip(&expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{seconds:?} {expected:?}");
}

#[test]
fn without_a_measurement_nothing_is_promised_until_the_run_has_none_to_make() {
    let ((_dir, store), plan) = (store(), plan());
    let nothing = |kinds: &[(Kind, u64)]| divided(vec![None; kinds.len()]);
    let estimate = Estimate::new(&plan, &plan.prepare(&store, false).unwrap(), &data(), 1, nothing);
    assert_eq!((estimate.promise().as_str(), estimate.left(0.0)), ("no step could be measured", None));
}

/// A machine half as fast as measured: 2 s a pass.
#[test]
fn the_time_left_comes_to_be_that_of_the_machine() {
    let ((_dir, store), plan) = (store(), plan());
    let mut estimate = estimate(&plan, &store, 1);
    estimate.started(0, 0, 0.0);
    (1..=100).for_each(|pass| estimate.advanced(0, 1, 2.0 * f64::from(pass)));
    // 600 passes are left; those of other kinds too will take 2 s, for all we know.
    assert!((left(&estimate, 200.0) / 1200.0 - 1.0).abs() < 0.02, "{}", left(&estimate, 200.0));
    // Half a pass later.
    assert!((left(&estimate, 201.0) - left(&estimate, 200.0) + 1.0).abs() < 1e-9);
}

/// As fast as measured: a second for a pass beside another stage, half of it alone.
#[test]
fn what_a_stage_took_is_seen_in_relation_to_how_many_ran() {
    let ((_dir, store), plan) = (store(), plan());
    let mut estimate = estimate(&plan, &store, 2);
    let near = |seconds: f64, expected: f64| assert!((seconds - expected).abs() < 1e-6, "{seconds}, not {expected}");
    // 400 passes of the first stage and 100 of its evaluation, 200 of the other.
    estimate.started(0, 0, 0.0);
    (1..=100).for_each(|pass| estimate.advanced(0, 1, 0.5 * f64::from(pass)));
    near(left(&estimate, 50.0), 300.0);
    estimate.started(2, 0, 50.0);
    estimate.advanced(0, 1, 51.0);
    estimate.advanced(2, 1, 51.0);
    near(left(&estimate, 51.0), 299.0);
    estimate.advanced(2, 199, 250.0);
    estimate.advanced(0, 199, 250.0);
    estimate.ended(2, true, 250.0);
    near(left(&estimate, 250.0), 100.0);
    near(left(&estimate, 250.5), 99.5);
    (1..=100).for_each(|pass| estimate.advanced(0, 1, 250.0 + 0.5 * f64::from(pass)));
    near(left(&estimate, 300.0), 50.0);
}

#[test]
fn a_stage_that_ends_is_done_and_one_that_fails_takes_its_children_with_it() {
    let ((_dir, store), plan) = (store(), plan());
    let mut finished = estimate(&plan, &store, 1);
    finished.started(0, 1, 0.0);
    assert_eq!(finished.image_passes(0), (200, 400));
    finished.epoch(0, 2);
    assert_eq!(finished.image_passes(0), (400, 400));
    finished.ended(0, true, 0.0);
    assert!((left(&finished, 0.0) - 300.0).abs() < 1e-6, "{}", left(&finished, 0.0));
    let mut failed = estimate(&plan, &store, 1);
    failed.started(0, 0, 0.0);
    failed.ended(0, false, 0.0);
    assert_eq!(left(&failed, 0.0), 200.0);
}

/// As a suite of attacks that breaks most images.
#[test]
fn passes_that_are_not_needed_take_no_time_in_this_stage_nor_in_the_next_of_its_kind() {
    let ((_dir, store), plan) = (store(), plan());
    let mut estimate = estimate(&plan, &store, 1);
    estimate.started(1, 0, 0.0);
    estimate.expect(1, 10);
    // 10 of 100, and 400 and 200 of the others.
    assert!((left(&estimate, 0.0) - 610.0).abs() < 1e-6, "{}", left(&estimate, 0.0));
    estimate.advanced(1, 10, 10.0);
    estimate.ended(1, true, 10.0);
    // A tenth of such passes was needed: 200 to train and 20 to measure, and 200 of another network.
    assert!((left(&estimate, 10.0) - 420.0).abs() < 1e-6, "{}", left(&estimate, 10.0));
}

#[test]
fn a_suite_of_attacks_takes_at_most_what_is_promised_until_it_has_ended() {
    let ((_dir, store), mut plan) = (store(), plan());
    let TrainConfig { data, network, width, seed, eval_attack, .. } = training(2, 1);
    let attacks = vec![AttackConfig::Pgd(PgdConfig { steps: 3, ..eval_attack })];
    let suite = SuiteConfig { data, network, width, seed, sparsity: None, images: 10, attacks };
    plan.add("suite", StageConfig::Suite(suite), &[], 1).unwrap();
    let mut estimate = estimate(&plan, &store, 1);
    // 30 passes more.
    assert_eq!(left(&estimate, 0.0), 730.0);
    assert!(estimate.promise().starts_with("at most about 12 minutes, "), "{}", estimate.promise());
    estimate.ended(3, true, 0.0);
    assert_eq!(estimate.about(Duration::from_secs(60)), "about 60 seconds");
}
