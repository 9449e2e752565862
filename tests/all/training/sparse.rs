//! Sparse training from end to end: ADMM, proximal gradient, masks and inherited initialisations, on a part of the
//! embedded sample.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use engine::attack::pgd::Batch;
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Loss, Memory};
use engine::base::error::{Error, Result};
use engine::checkpoint::{ModelInfo, load_model, save_model};
use engine::data::Dataset;
use engine::nn::models::Model;
use engine::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use engine::prune::{AdmmConfig, Scheme, SparsityReport, Target, hard_prune};
use engine::train::{
    MaskedConfig, Observer, Origin, ProximalConfig, ProximalEvery, ResidualRow, Selection, Sparsifier, Sparsity,
    TrainConfig, TrainResult, Trainer, train,
};
use tempfile::TempDir;

use super::runs::{Files, files, timeless};
use crate::backends::uniform;
use crate::compare::assert_close;
use crate::small_runs::{Stop, config, digits};

/// LeNet w=2 to w=1.
const HALF: Target = Target { scheme: Scheme::Filter, ratio: 0.5, linear: true };

fn cpu() -> Cpu<f32> {
    Cpu::new(2).unwrap()
}

/// A dense LeNet w=2, briefly trained, and the same pruned to [`HALF`].
struct Parents {
    data: Dataset,
    dir: TempDir,
}

impl Parents {
    fn new() -> Self {
        let data = digits(150, 40);
        let dir = tempfile::tempdir().unwrap();
        let backend = cpu();
        let config = TrainConfig { width: 2, epochs: 1, ..config(&data) };
        train(&backend, &config, &data, None, dir.path(), &Stop::never()).unwrap();
        let (mut model, info) = load_model(&backend, &dir.path().join("model.safetensors")).unwrap();
        hard_prune(&backend, &HALF, &mut model).unwrap();
        let info = ModelInfo { pruned: Some(HALF), ..info };
        save_model(&dir.path().join("pruned.safetensors"), &model.state(&backend), &info).unwrap();
        Parents { data, dir }
    }

    fn dense(&self) -> PathBuf {
        self.dir.path().join("model.safetensors")
    }

    fn pruned(&self) -> PathBuf {
        self.dir.path().join("pruned.safetensors")
    }

    /// Training that starts from one of the two.
    fn config(&self, sparsity: Sparsity) -> TrainConfig {
        TrainConfig { width: 2, origin: Origin::Parent, sparsity, ..config(&self.data) }
    }

    fn admm(&self) -> TrainConfig {
        let schedule =
            LrSchedule { shape: LrShape::Periodic, milestones: vec![], gamma: 0.1, period: 1, warmup_epochs: 0.0 };
        let optimizer = OptimizerConfig::Sgd { lr: 0.05, momentum: 0.9, weight_decay: 0.0 };
        let sparsity = Sparsity::Admm(AdmmConfig { target: HALF, rho: 0.1, growth: 1.5, update_every: 1 });
        TrainConfig { schedule, optimizer, select: Selection::Last, ..self.config(sparsity) }
    }

    fn masked(&self, compact: bool) -> TrainConfig {
        self.config(Sparsity::Masked(MaskedConfig { target: HALF, compact }))
    }

    fn run(
        &self,
        threads: usize,
        config: &TrainConfig,
        parent: &Path,
        dir: &Path,
        observer: &dyn Observer,
    ) -> Result<TrainResult> {
        train(&Cpu::<f32>::new(threads).unwrap(), config, &self.data, Some(parent), dir, observer)
    }

    fn run_through(&self, config: &TrainConfig, parent: &Path) -> Finished {
        let dir = tempfile::tempdir().unwrap();
        let result = self.run(2, config, parent, dir.path(), &Stop::never()).unwrap();
        let (model, info) = load_model(&cpu(), &dir.path().join("model.safetensors")).unwrap();
        Finished { result: timeless(result), files: all_files(dir.path()), model, info }
    }
}

struct Finished {
    result: TrainResult,
    files: Files,
    model: Model<Cpu<f32>>,
    info: ModelInfo,
}

/// What a run left, residuals included.
fn all_files(dir: &Path) -> Files {
    let mut all = files(dir);
    let residuals = dir.join("residuals.csv");
    if residuals.exists() {
        all.insert("residuals.csv".to_string(), std::fs::read(residuals).unwrap());
    }
    all
}

fn load(path: &Path) -> Model<Cpu<f32>> {
    load_model(&cpu(), path).unwrap().0
}

fn values(model: &Model<Cpu<f32>>, name: &str) -> Vec<f32> {
    let (_, _, values) = model.state(&cpu()).into_iter().find(|(n, ..)| n == name).unwrap();
    values
}

/// Filters of each layer that have a weight left.
fn filters(model: &Model<Cpu<f32>>) -> Vec<usize> {
    SparsityReport::of(&cpu(), model).layers.iter().map(|layer| layer.filters_kept).collect()
}

#[test]
fn interrupted_admm_ends_as_uninterrupted() {
    let parents = Parents::new();
    let proximal = Sparsity::Proximal(ProximalConfig { target: HALF, every: ProximalEvery::Epoch });
    let proximal = TrainConfig { epochs: 2, ..parents.config(proximal) };
    for config in [parents.admm(), proximal] {
        let through = parents.run_through(&config, &parents.dense());
        let whole = Stop::never();
        parents.run(1, &config, &parents.dense(), tempfile::tempdir().unwrap().path(), &whole).unwrap();
        let asked = whole.asked.load(Ordering::Relaxed);

        // In the first epoch, before any update of Z and U; in its evaluation; after the first update; at the end.
        let steps = (150 - config.held_out).div_ceil(config.batch);
        for stop_at in [2, steps, steps + 1, asked / 2, asked - 1, asked] {
            let dir = tempfile::tempdir().unwrap();
            let stopped = parents.run(1, &config, &parents.dense(), dir.path(), &Stop::at(stop_at));
            assert!(matches!(stopped, Err(Error::Interrupted)), "asked to stop at {stop_at}: {stopped:?}");
            let resumed = parents.run(2, &config, &parents.dense(), dir.path(), &Stop::never()).unwrap();
            assert_eq!(timeless(resumed), through.result, "stopped at {stop_at}");
            assert_eq!(all_files(dir.path()), through.files, "stopped at {stop_at}");
        }
    }
}

#[test]
fn admm_pulls_towards_its_projection_and_masks_nothing() {
    let parents = Parents::new();
    let pull = |rho| {
        let admm = AdmmConfig { target: HALF, rho, growth: 1.0, update_every: 1 };
        let schedule = LrSchedule { shape: LrShape::Constant, ..parents.admm().schedule };
        TrainConfig { epochs: 4, schedule, sparsity: Sparsity::Admm(admm), ..parents.admm() }
    };
    let last_primal = |finished: &Finished| {
        let mut reader = csv::Reader::from_reader(&finished.files["residuals.csv"][..]);
        let rows: Vec<ResidualRow> = reader.deserialize().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 4 * 3, "four updates of conv1, conv2 and fc1");
        assert!(rows.iter().all(|row| row.primal.is_finite() && row.dual.is_finite() && row.primal > 0.0));
        rows.iter().rev().take(3).map(|row| row.primal).fold(0.0, f64::max)
    };
    let [free, pulled] = [0.0, 1.0].map(|rho| parents.run_through(&pull(rho), &parents.dense()));
    let (free_primal, pulled_primal) = (last_primal(&free), last_primal(&pulled));
    assert!(pulled_primal < 0.75 * free_primal, "{pulled_primal} with the penalty, {free_primal} without");
    assert_eq!(filters(&pulled.model), [4, 8, 128, 10], "nothing is exactly zero before the hard prune");
    assert_eq!((pulled.info.pruned, pulled.info.epochs), (None, 1 + 4));
}

#[test]
fn proximal_training_ends_on_the_projection() {
    let parents = Parents::new();
    for every in [ProximalEvery::Step, ProximalEvery::Epoch] {
        let sparsity = Sparsity::Proximal(ProximalConfig { target: HALF, every });
        let config = TrainConfig { epochs: 1, ..parents.config(sparsity) };
        let finished = parents.run_through(&config, &parents.dense());
        assert_eq!(filters(&finished.model), [2, 4, 64, 10], "{every}");
        assert_ne!(values(&finished.model, "conv1.weight"), values(&load(&parents.pruned()), "conv1.weight"));
    }
}

#[test]
fn masked_training_keeps_zeros_and_moves_the_rest() {
    let parents = Parents::new();
    let before = load(&parents.pruned());
    let sgd = OptimizerConfig::Sgd { lr: 0.02, momentum: 0.9, weight_decay: 1e-3 };
    for optimizer in [parents.masked(false).optimizer, sgd] {
        let config = TrainConfig { optimizer, ..parents.masked(false) };
        let finished = parents.run_through(&config, &parents.pruned());
        for (name, _, old) in before.state(&cpu()).iter().filter(|(name, ..)| !name.starts_with("fc2")) {
            let new = values(&finished.model, name);
            assert!(old.iter().zip(&new).all(|(old, new)| (*old == 0.0) == (*new == 0.0)), "{name}");
            assert_ne!(&new, old, "{name}");
        }
        assert_eq!((finished.info.pruned, finished.info.epochs), (Some(HALF), 1 + 3));
    }
}

/// A projection after every step leaves nothing to do after the epoch; one after the epoch leaves the steps alone.
#[test]
fn proximal_training_projects_when_it_says() {
    let backend = cpu();
    let (parents, sgd) = (Parents::new(), OptimizerConfig::Sgd { lr: 0.1, momentum: 0.0, weight_decay: 0.0 });
    let images = Tensor::upload(&backend, [4, 1, 28, 28], &uniform(1, 4 * 784));
    let batch = Batch { images, labels: &backend.labels(&[1, 2, 3, 4]) };
    let (projected, dense) = ([2, 4, 64, 10], [4, 8, 128, 10]);
    for (every, after_step) in [(ProximalEvery::Step, projected), (ProximalEvery::Epoch, dense)] {
        let (model, sparsity) = (load(&parents.dense()), Sparsity::Proximal(ProximalConfig { target: HALF, every }));
        let sparsifier = Sparsifier::start(&backend, &sparsity, &model).unwrap();
        let mut trainer = Trainer::of(&backend, model, &sgd, sparsifier);
        for _ in 0..2 {
            trainer.step(&backend, &batch, None, 0.1, &mut backend.metrics()).unwrap();
            assert_eq!(filters(&trainer.model), after_step, "{every}");
        }
        trainer.sparsifier.after_last_step(&backend, &mut trainer.model).unwrap();
        assert_eq!(filters(&trainer.model), projected, "{every}");
    }
}

/// ADMM's variables are updated every second epoch, and each row has the weight that the epochs before were trained with.
#[test]
fn residuals_are_of_the_epochs_with_an_update() {
    let parents = Parents::new();
    let sparsity = Sparsity::Admm(AdmmConfig { target: HALF, rho: 0.1, growth: 1.5, update_every: 2 });
    let finished = parents.run_through(&TrainConfig { epochs: 5, sparsity, ..parents.admm() }, &parents.dense());
    let mut reader = csv::Reader::from_reader(&finished.files["residuals.csv"][..]);
    let rows = reader.deserialize().map(|row| row.unwrap()).collect::<Vec<ResidualRow>>();
    let found: Vec<(usize, &str, f32)> = rows.iter().map(|row| (row.epoch, row.param.as_str(), row.rho)).collect();
    let expected = [(2, 0.1), (4, 0.15)]
        .map(|(epoch, rho)| ["conv1", "conv2", "fc1"].map(|layer| (epoch, format!("{layer}.weight"), rho)));
    let expected: Vec<(usize, &str, f32)> =
        expected.iter().flatten().map(|(epoch, param, rho)| (*epoch, param.as_str(), *rho)).collect();
    let near =
        |(a, b): (&(usize, &str, f32), &(usize, &str, f32))| (a.0, a.1) == (b.0, b.1) && (a.2 - b.2).abs() < 1e-6;
    assert!(found.len() == expected.len() && found.iter().zip(&expected).all(near), "{found:?}");
}

/// Small, but not a LeNet of any width: it is still a pruned one.
#[test]
fn compact_training_of_an_odd_shape_is_of_a_pruned_network() {
    let parents = Parents::new();
    let convolutions = Target { linear: false, ..HALF };
    let backend = cpu();
    let (mut model, info) = load_model(&backend, &parents.dense()).unwrap();
    hard_prune(&backend, &convolutions, &mut model).unwrap();
    let pruned = parents.dir.path().join("odd.safetensors");
    let info = ModelInfo { pruned: Some(convolutions), ..info };
    save_model(&pruned, &model.state(&backend), &info).unwrap();
    let sparsity = Sparsity::Masked(MaskedConfig { target: convolutions, compact: true });
    let finished = parents.run_through(&TrainConfig { epochs: 1, ..parents.config(sparsity) }, &pruned);
    let architecture = finished.model.architecture();
    assert_eq!((architecture.width, &architecture.outputs), (2, &Some(vec![2, 4, 128])));
    assert_eq!((finished.info.pruned, finished.info.epochs), (Some(convolutions), 1 + 1));
}

/// One update, so that rounding has no time to grow.
#[test]
fn compact_training_is_masked_training_at_its_small_size() {
    let parents = Parents::new();
    let short = |compact| TrainConfig { epochs: 1, batch: 120, ..parents.masked(compact) };
    let masked = parents.run_through(&short(false), &parents.pruned());
    let compact = parents.run_through(&short(true), &parents.pruned());
    let architecture = compact.model.architecture();
    assert_eq!((architecture.width, &architecture.outputs, compact.info.pruned), (1, &None, None));
    let expected = engine::prune::shrink(&cpu(), &masked.model).unwrap().model;
    for (name, _, want) in expected.state(&cpu()) {
        assert_close(&name, &values(&compact.model, &name), &want, 1e-3, 1e-4);
    }
    let report = |finished: &Finished| finished.result.selected.test.clone();
    assert_close("loss", &[report(&compact).natural_loss], &[report(&masked).natural_loss], 1e-4, 0.0);
}

#[test]
fn an_inherited_start_is_the_initialisation_where_the_parent_has_weights() {
    let parents = Parents::new();
    let mut config = TrainConfig { origin: Origin::Inherited, epochs: 1, ..parents.masked(false) };
    // No step at all: what is left is the start.
    let OptimizerConfig::Adam { lr, .. } = &mut config.optimizer else { panic!("{:?}", config.optimizer) };
    *lr = 0.0;
    let finished = parents.run_through(&config, &parents.pruned());
    let pruned = load(&parents.pruned());
    let fresh = engine::nn::init::initial_values(pruned.architecture(), config.init, config.seed);
    for (spec, fresh) in pruned.architecture().params.iter().zip(&fresh) {
        let (found, parent) = (values(&finished.model, &spec.name), values(&pruned, &spec.name));
        for ((found, parent), fresh) in found.iter().zip(&parent).zip(fresh) {
            assert_eq!(*found, if *parent == 0.0 { 0.0 } else { *fresh }, "{}", spec.name);
        }
    }
    assert_eq!(finished.info.epochs, 1, "the parent's epochs are not in its weights");
}

#[test]
fn epochs_that_are_not_measured_have_no_scores() {
    let parents = Parents::new();
    let config = TrainConfig { eval_every: 2, ..parents.masked(true) };
    let observer = Stop::never();
    let dir = tempfile::tempdir().unwrap();
    let result = parents.run(2, &config, &parents.pruned(), dir.path(), &observer).unwrap();
    assert_eq!(observer.passes.load(Ordering::Relaxed) as u64, config.image_passes(150, 40));
    let mut reader = csv::Reader::from_path(dir.path().join("metrics.csv")).unwrap();
    let rows: Vec<engine::train::EpochRow> = reader.deserialize().map(|row| row.unwrap()).collect();
    let measured: Vec<bool> = rows.iter().map(|row| row.test_natural.is_some()).collect();
    assert_eq!(measured, [false, true, true], "every second, and the last");
    assert!(result.candidates.iter().all(|candidate| candidate.epoch >= 2), "{:?}", result.candidates);
}

#[test]
fn parents_that_do_not_fit_are_refused() {
    let parents = Parents::new();
    let masked = parents.masked(true);
    let dense = parents.config(Sparsity::Dense);
    let other = Target { ratio: 0.25, ..HALF };
    let cases = [
        (masked.clone(), parents.dense(), "is not pruned, so there are no masks"),
        (TrainConfig { width: 4, ..dense.clone() }, parents.dense(), "is a 'lenet' of width 2, the run is for"),
        (
            TrainConfig { sparsity: Sparsity::Masked(MaskedConfig { target: other, compact: true }), ..masked.clone() },
            parents.pruned(),
            "is pruned by 'filter' with ratio 0.5, the run is for 'filter' with ratio 0.25",
        ),
    ];
    for (config, parent, message) in cases {
        let error = parents.run(1, &config, &parent, tempfile::tempdir().unwrap().path(), &Stop::never());
        let error = error.expect_err(message);
        assert!(error.to_string().contains(message) && error.exit_code() == 2, "{error}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let parents = Parents::new();
    let admm = |rho, update_every| Sparsity::Admm(AdmmConfig { target: HALF, rho, growth: 1.3, update_every });
    let fresh = |sparsity| TrainConfig { origin: Origin::Initialisation, ..parents.config(sparsity) };
    let emptying = Target { ratio: 0.99, ..HALF };
    let cases = [
        (TrainConfig { origin: Origin::Initialisation, ..parents.masked(true) }, "a fresh network has no masks"),
        (TrainConfig { origin: Origin::Inherited, ..parents.config(Sparsity::Dense) }, "only masked training inherits"),
        (fresh(admm(f32::NAN, 1)), "sparsity.rho"),
        (fresh(admm(0.1, 0)), "sparsity.update_every"),
        (fresh(Sparsity::Proximal(ProximalConfig { target: emptying, every: ProximalEvery::Step })), "ratio"),
        (TrainConfig { eval_every: 0, ..parents.config(Sparsity::Dense) }, "eval_every"),
    ];
    for (config, message) in cases {
        let error = config.validate(150).expect_err(message);
        assert!(error.to_string().contains(message) && error.exit_code() == 2, "{error}");
    }
}

/// Natural training prunes just as well.
#[test]
fn natural_training_is_pruned_the_same_way() {
    let parents = Parents::new();
    for (config, parent) in [(parents.admm(), parents.dense()), (parents.masked(true), parents.pruned())] {
        let config = TrainConfig { attack: None, epochs: 2, ..config };
        let finished = parents.run_through(&config, &parent);
        assert!(finished.result.selected.test.natural_loss.is_finite());
        let backend = cpu();
        assert!(finished.model.params().iter().all(|p| backend.download(p.buf()).iter().all(|v| v.is_finite())));
    }
}
