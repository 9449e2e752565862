//! The engine's own worker: chains of every kind of stage on a few digits, whose models are measured once more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use engine::attack::PgdConfig;
use engine::attack::config::AttackConfig;
use engine::attack::evaluation::{EvalReport, Subset, evaluate};
use engine::attack::square::SquareConfig;
use engine::attack::suite::{Assessment, Suite};
use engine::autograd::tape::Tape;
use engine::autograd::tensor::Tensor;
use engine::backend::Images;
use engine::backend::cpu::Cpu;
use engine::checkpoint::{ModelInfo, load_model};
use engine::data::{Dataset, Split};
use engine::experiments::pipeline::{
    BackendName, BackendSpec, EngineWorker, EvalConfig, EvalResult, ImportConfig, JobId, Outcome, Plan, Precision,
    PruneConfig, PruneResult, StageConfig, StageResult, Store, SuiteConfig, SuiteResult,
};
use engine::nn::models::{Mode, Model, Network};
use engine::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use engine::prune::{AdmmConfig, Scheme, SparsityReport, Target};
use engine::train::{MaskedConfig, Origin, Selection, Sparsity, TrainConfig, TrainResult};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{Silent, out, plan};
use crate::small_runs::{attack, config, digits};

/// LeNet w=2 to w=1.
const HALF: Target = Target { scheme: Scheme::Filter, ratio: 0.5, linear: true };

fn reference() -> Cpu<f32> {
    Cpu::new(1).unwrap()
}

/// What the worker computes with.
pub fn cpu(threads: usize) -> BackendSpec {
    BackendSpec { name: BackendName::Cpu, precision: Precision::F32, threads }
}

/// Training and test images differ in number and in kind.
pub fn data() -> Dataset {
    digits(150, 40)
}

/// Two good epochs and one that spoils what they have learnt: the model that is kept is not the last one.
fn dense(data: &Dataset) -> TrainConfig {
    let schedule =
        LrSchedule { shape: LrShape::MultiStep, milestones: vec![2], gamma: 60.0, period: 0, warmup_epochs: 0.0 };
    TrainConfig { width: 2, schedule, attack: None, ..config(data) }
}

fn admm(data: &Dataset) -> TrainConfig {
    let sparsity = Sparsity::Admm(AdmmConfig { target: HALF, rho: 0.1, growth: 1.5, update_every: 1 });
    let optimizer = OptimizerConfig::Sgd { lr: 0.02, momentum: 0.9, weight_decay: 0.0 };
    let (origin, select) = (Origin::Parent, Selection::Last);
    TrainConfig { width: 2, epochs: 2, attack: None, optimizer, origin, select, sparsity, ..config(data) }
}

fn masked(data: &Dataset, compact: bool) -> TrainConfig {
    let sparsity = Sparsity::Masked(MaskedConfig { target: HALF, compact });
    TrainConfig { width: 2, epochs: 2, origin: Origin::Parent, sparsity, ..config(data) }
}

fn prune(data: &Dataset, seed: u64) -> PruneConfig {
    let (data, network) = (data.id.clone(), Network::LeNet);
    PruneConfig { data, network, width: 2, seed, sparsity: HALF, eval_attack: attack(3) }
}

fn measurement(data: &Dataset, eval_attack: PgdConfig) -> EvalConfig {
    let (data, network) = (data.id.clone(), Network::LeNet);
    EvalConfig { data, network, width: 2, seed: 5, sparsity: Some(HALF), eval_attack }
}

fn suite(data: &Dataset, images: usize) -> SuiteConfig {
    let square = SquareConfig { queries: 30, ..SquareConfig::published(0.3) };
    let attacks = vec![AttackConfig::Pgd(attack(3)), AttackConfig::Square(square)];
    let (data, network) = (data.id.clone(), Network::LeNet);
    SuiteConfig { data, network, width: 2, seed: 3, sparsity: None, images, attacks }
}

/// A plan of stages, each on the one at the given place before it.
fn planned(data: &Dataset, stages: &[(StageConfig, Option<usize>)]) -> Plan {
    let mut plan = plan();
    let mut ids: Vec<JobId> = Vec::new();
    for (config, parent) in stages {
        let parent: Vec<JobId> = parent.iter().map(|&at| ids[at]).collect();
        let passes = config.image_passes(data.train.len(), data.test.len());
        ids.push(plan.add(config.kind(), config.clone(), &parent, passes).unwrap());
    }
    assert_eq!(plan.jobs().len(), stages.len(), "every stage is another");
    plan
}

/// One of every kind that a table has.
pub fn every_kind(data: &Dataset) -> Plan {
    use StageConfig::{Eval, Prune, Suite, Train};
    planned(
        data,
        &[
            (Train(dense(data)), None),
            (Train(admm(data)), Some(0)),
            (Prune(prune(data, 1)), Some(1)),
            (Train(masked(data, true)), Some(2)),
            (Eval(measurement(data, attack(4))), Some(3)),
            (Suite(suite(data, 25)), Some(3)),
            (Prune(prune(data, 9)), Some(0)),
            (Prune(prune(data, 1)), Some(0)),
        ],
    )
}

/// Does all of `plan`; the results by place.
pub fn finish(plan: &Plan, data: &Dataset, store: &Store, import: Option<&Path>) -> Vec<StageResult> {
    let worker = EngineWorker::new(data, import, cpu(2), 1).unwrap();
    let Outcome { results, failures, .. } =
        plan.prepare(store, false).unwrap().run(&worker, &Silent, &AtomicBool::new(false), 1);
    assert!(failures.is_empty(), "{failures:?}");
    results.into_iter().map(Option::unwrap).collect()
}

/// A plan that was carried out.
pub struct Finished {
    pub data: Dataset,
    pub plan: Plan,
    _out: TempDir,
    pub store: Store,
    results: Vec<StageResult>,
}

impl Finished {
    pub fn of(stages: impl Fn(&Dataset) -> Plan) -> Self {
        let (data, (out, store)) = (data(), out());
        let plan = stages(&data);
        let results = finish(&plan, &data, &store, None);
        Finished { data, plan, _out: out, store, results }
    }

    fn path(&self, at: usize) -> PathBuf {
        self.store.path(&self.plan.jobs()[at].key).join("model.safetensors")
    }

    fn model(&self, at: usize) -> (Model<Cpu<f32>>, ModelInfo) {
        load_model(&reference(), &self.path(at)).unwrap()
    }

    fn trained(&self, at: usize) -> &TrainResult {
        let StageResult::Train(result) = &self.results[at] else { panic!("{:?}", self.results[at]) };
        result
    }

    fn pruned(&self, at: usize) -> &PruneResult {
        let StageResult::Prune(result) = &self.results[at] else { panic!("{:?}", self.results[at]) };
        result
    }

    fn evaluated(&self, at: usize) -> &EvalResult {
        let StageResult::Eval(result) = &self.results[at] else { panic!("{:?}", self.results[at]) };
        result
    }

    fn attacked(&self, at: usize) -> &SuiteResult {
        let StageResult::Suite(result) = &self.results[at] else { panic!("{:?}", self.results[at]) };
        result
    }

    /// The test images under an attack, by the model of a stage.
    fn measured(&self, at: usize, attack: &PgdConfig, seed: u64) -> EvalReport {
        measured(&self.model(at).0, &self.data, &self.data.test, attack, seed)
    }
}

fn measured(model: &Model<Cpu<f32>>, data: &Dataset, split: &Split, attack: &PgdConfig, seed: u64) -> EvalReport {
    let backend = reference();
    let images = backend.resident(data.shape, &split.images);
    let indices: Vec<u32> = (0..split.len() as u32).collect();
    let subset = Subset { images: &images, labels: &split.labels, indices: &indices };
    evaluate(&backend, model, &subset, Some(attack), seed, &|_| Ok(())).unwrap()
}

/// Percent of clean test images whose largest logit is that of their class, by the logits of one pass.
fn natural(model: &Model<Cpu<f32>>, data: &Dataset) -> f64 {
    let backend = reference();
    let pixels: Vec<f32> = data.test.images.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let tape = Tape::new(&backend);
    let x = tape.leaf(Tensor::upload(&backend, [data.test.len(), 1, 28, 28], &pixels));
    let logits = model.forward(&tape, &model.leaves(&tape), &x, Mode::Eval).unwrap().logits.tensor().values(&backend);
    let right = |(z, &label): (&[f32], &u8)| (0..10).all(|c| z[c] <= z[usize::from(label)]);
    let right = logits.chunks_exact(10).zip(&data.test.labels).filter(|(z, label)| right((z, label))).count();
    100.0 * right as f64 / data.test.len() as f64
}

/// Filters of each layer with a weight left, by plain loops.
fn filters(model: &Model<Cpu<f32>>) -> Vec<usize> {
    let architecture = model.architecture();
    let backend = reference();
    let alive = |weight: &[f32], outputs: usize| {
        weight.chunks_exact(weight.len() / outputs).filter(|row| row.iter().any(|&w| w != 0.0)).count()
    };
    let layers = architecture.layers.iter();
    layers.map(|l| alive(&model.params()[l.weight].values(&backend), architecture.params[l.weight].shape[0])).collect()
}

#[test]
fn every_stage_reports_what_its_own_model_does_on_the_test_images() {
    let run = Finished::of(every_kind);
    let eval = attack(3);
    for at in [0, 1, 3] {
        let result = run.trained(at);
        assert_eq!(result.selected.test, run.measured(at, &eval, 1), "training at {at}");
        let trained = measured(&run.model(at).0, &run.data, &run.data.train, &eval, 1);
        assert_ne!(
            (trained.natural, trained.adversarial),
            (result.selected.test.natural, result.selected.test.adversarial)
        );
    }
    let first = run.trained(0);
    assert!(first.selected.epoch < 3, "the last epoch spoils the model: {:?}", first.candidates);

    let pruned = run.pruned(2);
    let [before, after] = [1, 2].map(|at| run.measured(at, &eval, 1));
    assert_ne!(before, after, "pruning changes what a model does");
    assert_eq!((&pruned.before, &pruned.after), (&before, &after));
    assert_eq!(pruned.sparsity, SparsityReport::of(&reference(), &run.model(2).0));

    // With a seed of its own it cannot take over what its parent has measured.
    let other = run.pruned(6);
    assert_eq!((&other.before, &other.after), (&run.measured(0, &eval, 9), &run.measured(6, &eval, 9)));

    // What it takes over is what its parent says of the model that was kept, not of the last one.
    let kept = run.pruned(7);
    assert_eq!((&kept.before, &kept.after), (&run.measured(0, &eval, 1), &run.measured(7, &eval, 1)));

    let again = run.evaluated(4);
    assert_eq!(again.test, run.measured(3, &attack(4), 5));
    for at in [0, 1, 2, 3] {
        let reported = [0, 1, 3].contains(&at).then(|| run.trained(at).selected.test.natural);
        let reported = reported.unwrap_or_else(|| run.pruned(2).after.natural);
        assert_eq!(reported, natural(&run.model(at).0, &run.data), "natural accuracy at {at}");
    }
}

/// A prune says of its own model, and not of its parent's, whether it has collapsed.
#[test]
fn a_pruned_model_that_collapsed_is_called_so() {
    let run = Finished::of(|data| {
        let sparsity = Target { scheme: Scheme::Irregular, ratio: 0.99, linear: true };
        let pruned = PruneConfig { sparsity, ..prune(data, 1) };
        let measured = EvalConfig { sparsity: Some(sparsity), ..measurement(data, attack(3)) };
        let stages = [StageConfig::Train(dense(data)), StageConfig::Prune(pruned), StageConfig::Eval(measured)];
        planned(data, &[0, 1, 2].map(|at: usize| (stages[at].clone(), at.checked_sub(1))))
    });
    let collapsed = [0, 1, 2].map(|at| run.results[at].scores().unwrap().collapsed);
    assert_eq!(collapsed, [false, true, true]);
}

/// What each stage makes of its parent's model, and what the file says of it.
#[test]
fn every_stage_goes_on_from_its_parent() {
    let run = Finished::of(every_kind);
    let backend = reference();
    let state = |at: usize| run.model(at).0.state(&backend);
    assert_eq!(
        [0, 1, 2, 3].map(|at| filters(&run.model(at).0)),
        [[4, 8, 128, 10], [4, 8, 128, 10], [2, 4, 64, 10], [2, 4, 64, 10]]
    );
    // The prune keeps values of its parent, and nothing else.
    for ((name, _, pruned), (_, _, parent)) in state(2).iter().zip(&state(1)) {
        assert!(pruned.iter().zip(parent).all(|(pruned, parent)| *pruned == 0.0 || pruned == parent), "{name}");
    }
    let infos = [0, 1, 2, 3].map(|at| run.model(at).1);
    assert_eq!(infos.each_ref().map(|info| info.pruned), [None, None, Some(HALF), None], "a compact model is dense");
    assert_eq!(infos.each_ref().map(|info| info.epochs), [3, 3 + 2, 3 + 2, 3 + 2 + 2]);
    assert_eq!(infos.each_ref().map(|info| info.width), [2, 2, 2, 1]);
}

/// Without a learning rate a training leaves what it began with.
#[test]
fn a_training_without_steps_leaves_its_parent() {
    let still = |config: TrainConfig| TrainConfig { optimizer: config.optimizer.with_lr(Some(0.0)), ..config };
    let run = Finished::of(|data| {
        use StageConfig::{Prune, Train};
        let second = TrainConfig { origin: Origin::Parent, seed: 2, ..dense(data) };
        planned(
            data,
            &[
                (Train(dense(data)), None),
                (Train(still(second)), Some(0)),
                (Prune(prune(data, 1)), Some(0)),
                (Train(still(masked(data, false))), Some(2)),
                (Train(still(admm(data))), Some(0)),
            ],
        )
    });
    let state = |at: usize| run.model(at).0.state(&reference());
    assert_eq!(state(1), state(0), "dense");
    assert_eq!(state(3), state(2), "masked");
    assert_eq!(state(4), state(0), "ADMM");
    assert_ne!(state(2), state(0));
}

#[test]
fn a_suite_attacks_the_first_test_images_in_the_order_of_its_attacks() {
    let run = Finished::of(|data| {
        let tests = data.test.len();
        planned(
            data,
            &[
                (StageConfig::Train(dense(data)), None),
                (StageConfig::Suite(suite(data, 25)), Some(0)),
                (StageConfig::Suite(suite(data, tests + 60)), Some(0)),
            ],
        )
    });
    let (backend, model) = (reference(), run.model(0).0);
    for (at, images) in [(1, 25), (2, 40)] {
        let result = run.attacked(at);
        let resident = backend.resident(run.data.shape, &run.data.test.images);
        let indices: Vec<u32> = (0..images as u32).collect();
        let subset = Subset { images: &resident, labels: &run.data.test.labels, indices: &indices };
        let attacks = suite(&run.data, images).attacks;
        let (model, watch) = (&model, |_| Ok(()));
        let suite = Suite {
            backend: &backend,
            model,
            surrogate: None,
            subset: &subset,
            attacks: &attacks,
            seed: 3,
            on_image_passes: &watch,
        };
        let mut expected = Assessment::default();
        suite.run(&mut expected, &mut |_, _| Ok(())).unwrap();
        assert_eq!(result.images, images);
        assert_eq!(
            (result.natural, &result.after),
            (expected.accuracy(0), &vec![expected.accuracy(1), expected.accuracy(2)])
        );
        let after = [0, 1, 2].map(|attacks| expected.accuracy(attacks));
        assert!(after[0] > after[1], "the first attack breaks some: {after:?}");
        let costs = |costs: &[engine::attack::suite::Cost]| costs.iter().map(|cost| cost.passes).collect::<Vec<_>>();
        assert_eq!(costs(&result.costs), costs(&expected.costs));
    }
}

#[test]
fn an_import_is_the_users_file_and_no_other() {
    let (data, (out, store)) = (data(), out());
    let trained = planned(&data, &[(StageConfig::Train(dense(&data)), None)]);
    finish(&trained, &data, &store, None);
    let file = store.path(&trained.jobs()[0].key).join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let import = StageConfig::Import(ImportConfig { sha256, network: Network::LeNet, width: 2 });
    let plan = planned(&data, &[(import, None)]);
    let path = store.path(&plan.jobs()[0].key).join("model.safetensors");

    let changed = out.path().join("changed.safetensors");
    fs::write(&changed, [&bytes[..], &[0]].concat()).unwrap();
    let worker = EngineWorker::new(&data, Some(&changed), cpu(1), 1).unwrap();
    let outcome = plan.prepare(&store, false).unwrap().run(&worker, &Silent, &AtomicBool::new(false), 1);
    assert!(outcome.failures[0].error.to_string().contains("changed while it was read"), "{:?}", outcome.failures);
    assert!(!path.exists());

    finish(&plan, &data, &store, Some(&file));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
