//! What a step and a run are, by their definition: plain loops over the documented random numbers.

use std::collections::HashSet;

use engine::attack::evaluation::{EvalReport, Subset, evaluate};
use engine::attack::pgd::{Batch, PgdAttack, Start};
use engine::attack::{BnMode, PgdConfig};
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Constraint, CropFlip, Images, Loss, Memory, Metrics};
use engine::base::rng::{Rng, Stream};
use engine::checkpoint::load_model;
use engine::data::{Dataset, Split};
use engine::nn::models::{Architecture, Mode, Model};
use engine::nn::optim::{LrSchedule, LrShape, Optimizer, OptimizerConfig};
use engine::train::{Candidate, EpochRow, Selection, Sparsifier, TrainConfig, Trainer, train};

use crate::backends::{labels, uniform};
use crate::compare::assert_close;
use crate::networks::{pass, recorded};
use crate::small_runs::{Stop, attack, config, digits};

type F32 = Cpu<f32>;

/// Parameters and running statistics.
type State = Vec<(String, Vec<usize>, Vec<f32>)>;

const LR: f32 = 0.03;

/// Two steps on the same images of a ResNet-18: by the trainer, and as they are defined. Returns where they end.
fn check_steps(attack: Option<&PgdConfig>) -> State {
    let backend = F32::new(2).unwrap();
    let sgd = OptimizerConfig::Sgd { lr: 1.0, momentum: 0.9, weight_decay: 1e-3 };
    let (n, rng) = (6, Rng::new(3, Stream::TrainAttack, 0));
    let (pixels, labels) = (uniform(1, n * 3072), labels(2, n, 10));
    let (_, mut model) = recorded(&backend, "resnet18");
    let start = Start { rng: &rng, first: 5 };
    let images = Tensor::new(backend.upload_batch(n, &pixels), model.input(n));
    let batch = Batch { images, labels: &backend.labels(&labels) };

    let mut trainer = Trainer::of(&backend, recorded(&backend, "resnet18").1, &sgd, Sparsifier::Dense);
    let mut optimizer = Optimizer::new(&backend, &sgd, model.params());
    let (mut metrics, mut metrics_by_hand, mut loss) = (backend.metrics(), backend.metrics(), 0.0);
    let attack = attack.map(|attack| attack.scaled(0.5));
    for step in 0..2 {
        trainer.step(&backend, &batch, attack.as_ref().map(|attack| (attack, start)), LR, &mut metrics).unwrap();

        let mut attacked = batch.images.clone();
        if let Some(config) = &attack {
            let mode = [Mode::Train, Mode::Eval][usize::from(config.bn == BnMode::Eval)];
            let pgd = PgdAttack { backend: &backend, model: &model, mode, config };
            let mut met = Vec::new();
            attacked = pgd.attack(start, &batch, &mut metrics_by_hand, |stats| met.push(stats)).unwrap();
            if config.bn == BnMode::TrainMoving {
                met.into_iter().for_each(|stats| model.update_running_stats(&backend, stats).unwrap());
            }
        }
        let pass = pass(&backend, &model, Mode::Train, 1.0 / n as f32, attacked, &labels);
        loss += n as f64 * f64::from(pass.loss.values(&backend)[0]);
        optimizer.step(&backend, LR, &pass.grads, model.params_mut(), |_| Constraint::Free).unwrap();
        model.update_running_stats(&backend, pass.stats).unwrap();
        assert!(trainer.model.state(&backend) == model.state(&backend), "{attack:?}: step {step}");
    }
    let (counts, by_hand) = (backend.metrics_read(&metrics), backend.metrics_read(&metrics_by_hand));
    let found = (counts.samples, counts.gradients, counts.zero_gradients);
    assert_eq!(found, (2 * n as u64, by_hand.gradients, by_hand.zero_gradients));
    assert_close("loss", &[counts.loss], &[loss], 1e-5, 0.0);
    model.state(&backend)
}

/// Batch normalisation in each of its modes while the attack runs, and no attack at all.
#[test]
fn a_step_is_the_attack_and_an_update_on_the_mean_loss() {
    let mut ends = HashSet::new();
    let modes = [BnMode::Train, BnMode::TrainMoving, BnMode::Eval];
    for attack in modes.map(|bn| Some(PgdConfig { eps: 0.06, step_size: 0.02, bn, ..attack(2) })).iter().chain([&None])
    {
        let state = check_steps(attack.as_ref());
        ends.insert(state.iter().flat_map(|(_, _, values)| values.iter().map(|v| v.to_bits())).collect::<Vec<_>>());
    }
    assert_eq!(ends.len(), 4, "each mode must make a difference");
}

/// An epoch, as it is defined.
struct Epoch {
    counts: Metrics,
    lr: f64,
    eps: f64,
    test: EvalReport,
    held_out: EvalReport,
    state: State,
}

/// Images put aside, the others, both in order.
fn split(config: &TrainConfig, images: usize) -> (Vec<u32>, Vec<u32>) {
    let mut order = Rng::new(config.seed, Stream::HeldOut, 0).permutation(images);
    let mut trained_on = order.split_off(config.held_out);
    order.sort_unstable();
    trained_on.sort_unstable();
    (order, trained_on)
}

/// The run of a fresh network: every epoch in an order of its own; every step with crops and a random start of its own.
fn epochs(
    config: &TrainConfig,
    data: &Dataset,
    lr: impl Fn(usize) -> f64,
    strength: impl Fn(usize) -> f64,
) -> Vec<Epoch> {
    let backend = &F32::new(2).unwrap();
    let images = backend.resident(data.shape, &data.train.images);
    let (held_out, trained_on) = split(config, data.train.len());
    let architecture = Architecture::new(config.network, config.width, data.classes).unwrap();
    let mut trainer = Trainer::new(backend, architecture, config.init, config.seed, &config.optimizer).unwrap();
    let measure = |model: &Model<F32>, split: &Split, indices: &[u32]| {
        let images = backend.resident(data.shape, &split.images);
        let subset = Subset { images: &images, labels: &split.labels, indices };
        evaluate(backend, model, &subset, Some(&config.eval_attack), config.seed, &|_| Ok(())).unwrap()
    };
    let (mut step, mut epochs) = (0, Vec::new());
    for epoch in 0..config.epochs {
        let order = Rng::new(config.seed, Stream::Shuffle, epoch as u32).permutation(trained_on.len());
        let mut metrics = backend.metrics();
        for places in order.chunks(config.batch) {
            let indices: Vec<u32> = places.iter().map(|&place| trained_on[place as usize]).collect();
            let numbers = |stream| Rng::new(config.seed, stream, step as u32);
            let crop = CropFlip { rng: numbers(Stream::Augment), pad: 4 };
            let clean = backend.gather(&images, &indices, config.augment.then_some(&crop));
            let labels: Vec<u8> = indices.iter().map(|&i| data.train.labels[i as usize]).collect();
            let images = Tensor::new(clean, trainer.model.input(indices.len()));
            let batch = Batch { images, labels: &backend.labels(&labels) };
            let rng = numbers(Stream::TrainAttack);
            let start = Start { rng: &rng, first: 0 };
            let attack = config.attack.as_ref().map(|attack| attack.scaled(strength(step) as f32));
            let attack = attack.as_ref().map(|attack| (attack, start));
            let lr = (f64::from(config.optimizer.lr()) * lr(step)) as f32;
            trainer.step(backend, &batch, attack, lr, &mut metrics).unwrap();
            step += 1;
        }
        epochs.push(Epoch {
            counts: backend.metrics_read(&metrics),
            lr: f64::from(config.optimizer.lr()) * lr(step - 1),
            eps: config.attack.as_ref().map_or(0.0, |attack| f64::from(attack.eps) * strength(step - 1)),
            test: measure(&trainer.model, &data.test, &(0..data.test.len() as u32).collect::<Vec<_>>()),
            held_out: measure(&trainer.model, &data.train, &held_out),
            state: trainer.model.state(backend),
        });
    }
    epochs
}

/// The candidates of a run, and the state of the model that it leaves.
fn run(config: &TrainConfig, data: &Dataset) -> (Vec<Candidate>, Vec<EpochRow>, State) {
    let (backend, dir) = (F32::new(2).unwrap(), tempfile::tempdir().unwrap());
    let result = train(&backend, config, data, None, dir.path(), &Stop::never()).unwrap();
    let mut reader = csv::Reader::from_path(dir.path().join("metrics.csv")).unwrap();
    let rows = reader.deserialize().map(|row| row.unwrap()).collect();
    let (model, _) = load_model(&backend, &dir.path().join("model.safetensors")).unwrap();
    (result.candidates, rows, model.state(&backend))
}

/// Steps of an epoch of [`uneven`].
const STEPS: usize = 8;

/// 120 images in batches of 17, the last of which has one; warm-up ends half way through the first epoch, the rate drops
/// with the second one, and the radius is full with the last step of the second.
fn uneven(data: &Dataset) -> TrainConfig {
    let schedule =
        LrSchedule { shape: LrShape::MultiStep, milestones: vec![1], gamma: 0.5, period: 0, warmup_epochs: 0.5 };
    TrainConfig { augment: true, batch: 17, schedule, select: Selection::Last, ..config(data) }
}

#[test]
fn a_run_is_its_steps() {
    let data = digits(150, 40);
    let adversarial = uneven(&data);
    let natural = TrainConfig { attack: None, augment: false, seed: 5, ..uneven(&data) };
    for config in [adversarial, natural] {
        let lr = |step: usize| ((step + 1) as f64 / 4.0).min(1.0) * if step < STEPS { 1.0 } else { 0.5 };
        let strength = |step: usize| ((step + 1) as f64 / 16.0).min(1.0);
        let epochs = epochs(&config, &data, lr, strength);
        let (_, rows, state) = run(&config, &data);
        assert_eq!(rows.len(), 3);
        for (row, epoch) in rows.iter().zip(&epochs) {
            let what = format!("epoch {}", row.epoch);
            let Epoch { counts, test, held_out, .. } = epoch;
            assert_eq!(counts.samples, 120);
            let trained = (row.train_loss, row.train_accuracy, row.zero_gradient);
            assert_eq!(trained, (counts.mean_loss(), counts.accuracy(), counts.zero_gradient()), "{what}");
            let on = |report: &EvalReport| (Some(report.natural), Some(report.adversarial));
            assert_eq!((row.test_natural, row.test_adversarial), on(test), "{what}");
            assert_eq!((row.held_out_natural, row.held_out_adversarial), on(held_out), "{what}");
            let losses = (Some(test.natural_loss), Some(test.adversarial_loss));
            assert_eq!((row.test_natural_loss, row.test_adversarial_loss), losses, "{what}");
            assert_close(&what, &[row.lr, row.eps], &[epoch.lr, epoch.eps], 1e-7, 0.0);
        }
        assert!(state == epochs[2].state, "the weights after the last step");
    }
}

/// The epochs with the best accuracy by the rule, in the order of the epochs: of what was trained for, then the other.
fn best(epochs: &[Epoch], natural: bool, of: fn(&Epoch) -> &EvalReport) -> Vec<usize> {
    let score = |epoch: &Epoch| {
        let EvalReport { natural: clean, adversarial, .. } = *of(epoch);
        if natural { (clean, adversarial) } else { (adversarial, clean) }
    };
    let best = epochs.iter().map(score).reduce(|best, new| if new > best { new } else { best });
    (0..epochs.len()).filter(|&i| Some(score(&epochs[i])) == best).collect()
}

/// Runs `config` under every rule, and compares the candidates and the weights that are kept. Returns the epochs.
fn check_selection(config: &TrainConfig, data: &Dataset) -> Vec<Epoch> {
    let epochs = epochs(config, data, |_| 1.0, |_| 1.0);
    let natural = config.attack.is_none();
    let chosen = [
        (Selection::TestBest, best(&epochs, natural, |epoch| &epoch.test)[0]),
        (Selection::HeldOut, best(&epochs, natural, |epoch| &epoch.held_out)[0]),
        (Selection::Last, epochs.len() - 1),
    ];
    for (select, epoch) in chosen {
        let (candidates, _, state) = run(&TrainConfig { select, ..config.clone() }, data);
        for (select, epoch) in chosen {
            let Epoch { test, held_out, .. } = &epochs[epoch];
            let candidate =
                Candidate { select, epoch: epoch + 1, test: test.clone(), held_out: Some(held_out.clone()) };
            assert!(candidates.contains(&candidate), "{candidate:#?} is not in {candidates:#?}");
        }
        assert!(state == epochs[epoch].state, "the weights of {select}, epoch {}", epoch + 1);
    }
    epochs
}

/// Epochs that differ much, so that each rule has one of its own.
fn restless(data: &Dataset) -> TrainConfig {
    let optimizer = OptimizerConfig::Adam { lr: 0.03, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let eps_schedule = engine::attack::EpsSchedule { epochs: 0.0, ..config(data).eps_schedule };
    let weak = |steps| PgdConfig { eps: 0.05, step_size: 0.03, ..attack(steps) };
    TrainConfig { optimizer, eps_schedule, epochs: 6, attack: Some(weak(2)), eval_attack: weak(3), ..config(data) }
}

/// With a seed whose run tells the rules apart: neither has the last epoch, and another order of the accuracies would have
/// another epoch.
fn with_a_telling_seed(config: &TrainConfig, data: &Dataset) -> TrainConfig {
    let natural = config.attack.is_none();
    let telling = |config: &TrainConfig| {
        let epochs = epochs(config, data, |_| 1.0, |_| 1.0);
        let best = |natural: bool, of: fn(&Epoch) -> &EvalReport| best(&epochs, natural, of)[0];
        let (test, held_out) = (best(natural, |epoch| &epoch.test), best(natural, |epoch| &epoch.held_out));
        let last = epochs.len() - 1;
        test != last && held_out != last && test != best(!natural, |epoch| &epoch.test)
    };
    let seeds = (1..40).map(|seed| TrainConfig { seed, ..config.clone() });
    seeds.into_iter().find(telling).expect("a run in which the best is not the last")
}

#[test]
fn the_best_epoch_is_kept_and_not_the_last() {
    let data = digits(150, 40);
    let adversarial = restless(&data);
    let natural = TrainConfig { attack: None, ..restless(&data) };
    for config in [adversarial, natural] {
        check_selection(&with_a_telling_seed(&config, &data), &data);
    }
}

/// Weights that never move are as good in every epoch.
#[test]
fn the_first_of_equal_epochs_is_kept() {
    let data = digits(60, 20);
    let still = OptimizerConfig::Sgd { lr: 0.0, momentum: 0.0, weight_decay: 0.0 };
    let epochs = check_selection(&TrainConfig { optimizer: still, epochs: 3, ..restless(&data) }, &data);
    assert_eq!(best(&epochs, false, |epoch| &epoch.test), [0, 1, 2]);
    assert_eq!(best(&epochs, false, |epoch| &epoch.held_out), [0, 1, 2]);
}
