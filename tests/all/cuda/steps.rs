//! Ten steps of training, adversarial and then with ADMM, against the CPU: same seed, same random starts bit for bit, same
//! masks exactly, losses and weights to rounding.

use engine::attack::PgdConfig;
use engine::attack::pgd::{Batch, Start};
use engine::backend::Backend;
use engine::backend::cpu::Cpu;
use engine::data::{Dataset, DatasetName};
use engine::init::Init;
use engine::models::{Architecture, Network};
use engine::optim::OptimizerConfig;
use engine::prune::{Admm, AdmmConfig, Scheme, Target};
use engine::rng::{Rng, Stream};
use engine::tensor::Tensor;
use engine::train::{Sparsifier, Trainer};

use crate::backends::on_cuda;
use crate::compare::assert_close;
use crate::small_runs::attack;

on_cuda! { lenet_with_adam, resnet18_with_sgd, the_same_bits_twice }

/// Steps of adversarial training, and then as many with ADMM's penalty.
const STEPS: u32 = 5;

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Run {
    /// Bits of every random start.
    starts: Vec<Vec<u32>>,
    /// Mean loss of every step.
    losses: Vec<f64>,
    /// Zero gradients met.
    zero_gradients: u64,
    /// Whether each weight is kept by each projection.
    masks: Vec<Vec<bool>>,
    /// Parameters and running statistics.
    state: Vec<(String, Vec<usize>, Vec<f32>)>,
}

struct Setting {
    network: Network,
    batch: usize,
    optimizer: OptimizerConfig,
    attack: PgdConfig,
}

fn lenet() -> Setting {
    let optimizer = OptimizerConfig::Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    Setting { network: Network::LeNet, batch: 9, optimizer, attack: attack(4) }
}

fn resnet18() -> Setting {
    let optimizer = OptimizerConfig::Sgd { lr: 0.05, momentum: 0.9, weight_decay: 1e-4 };
    let attack = PgdConfig { eps: 8.0 / 255.0, step_size: 4.0 / 255.0, ..attack(2) };
    Setting { network: Network::ResNet18, batch: 6, optimizer, attack }
}

fn run<B: Backend>(backend: &B, setting: &Setting) -> Run {
    let name = if setting.network == Network::LeNet { DatasetName::Mnist } else { DatasetName::Cifar10 };
    let data = Dataset::sample(name).unwrap();
    let architecture = Architecture::new(setting.network, 1, 10).unwrap();
    let mut trainer = Trainer::new(backend, architecture, Init::XavierUniform, 3, &setting.optimizer).unwrap();
    let images = backend.resident(data.shape, &data.train.images);
    let mut run = Run { starts: vec![], losses: vec![], zero_gradients: 0, masks: vec![], state: vec![] };
    for step in 0..2 * STEPS {
        if step == STEPS {
            let target = Target { scheme: Scheme::Filter, ratio: 0.5, linear: true };
            let config = AdmmConfig { target, rho: 0.05, growth: 1.3, update_every: 1 };
            let admm = Admm::start(backend, &config, &trainer.model).unwrap();
            trainer.sparsifier = Sparsifier::Admm { admm, update_every: 1 };
            run.masks.extend(masks(backend, &trainer));
        }
        let first = step * setting.batch as u32;
        let indices: Vec<u32> = (first..first + setting.batch as u32).collect();
        let labels: Vec<u8> = indices.iter().map(|&i| data.train.labels[i as usize]).collect();
        let clean = backend.gather(&images, &indices, None);
        let rng = Rng::new(3, Stream::TrainAttack, step);
        let start =
            backend.random_start(setting.batch, data.shape.iter().product(), setting.attack.eps, &rng, 0, &clean);
        let bits = backend.download_batch(setting.batch, &start).iter().map(|v| v.to_bits()).collect();
        run.starts.push(bits);
        let labels = backend.labels(&labels);
        let batch = Batch { images: Tensor::new(clean, trainer.model.input(setting.batch)), labels: &labels };
        let start = Start { rng: &rng, first: 0, strength: 1.0 };
        let mut tally = backend.tally();
        // A rate that changes, so that a replayed step must take its own.
        let lr = setting.optimizer.lr() / (1 + step) as f32;
        trainer.step(backend, &batch, Some((&setting.attack, start)), lr, &mut tally).unwrap();
        let counts = backend.tally_read(&tally);
        run.losses.push(counts.mean_loss());
        run.zero_gradients += counts.zero_gradients;
        // In the middle of the second half, and at its end.
        if step == STEPS + STEPS / 2 || step + 1 == 2 * STEPS {
            let Trainer { model, sparsifier, .. } = &mut trainer;
            assert!(!sparsifier.after_epoch(backend, model, 1).unwrap().is_empty());
            run.masks.extend(masks(backend, &trainer));
        }
    }
    run.state = trainer.model.state(backend);
    run
}

/// Which elements of ADMM's Z are not zero.
fn masks<B: Backend>(backend: &B, trainer: &Trainer<B>) -> Vec<Vec<bool>> {
    let state = trainer.sparsifier.admm().expect("ADMM").state(backend, &trainer.model);
    let z = state.iter().filter(|(name, _, _)| name.starts_with("z."));
    z.map(|(_, _, values)| values.iter().map(|&v| v != 0.0).collect()).collect()
}

/// `rtol` allows for the roundings of ten steps; a gradient whose sign differs would be far beyond it.
fn agrees<B: Backend>(backend: &B, setting: &Setting, rtol: f64) {
    let (want, got) = (run(&Cpu::<f32>::new(2).unwrap(), setting), run(backend, setting));
    assert!(want.starts == got.starts, "random starts differ");
    assert_close("losses", &got.losses, &want.losses, rtol, 0.0);
    let kept = |masks: &[Vec<bool>]| masks.iter().flatten().filter(|&&kept| kept).count();
    assert!(kept(&want.masks) > 0 && kept(&want.masks) < want.masks.iter().map(Vec::len).sum());
    assert!(want.masks == got.masks, "masks differ: {} and {} kept", kept(&want.masks), kept(&got.masks));
    assert_eq!(want.zero_gradients, got.zero_gradients);
    for ((name, _, want), (_, _, got)) in want.state.iter().zip(&got.state) {
        assert_close(name, got, want, rtol, 0.0);
    }
}

fn lenet_with_adam<B: Backend>(backend: &B) {
    agrees(backend, &lenet(), 1e-4);
}

fn resnet18_with_sgd<B: Backend>(backend: &B) {
    agrees(backend, &resnet18(), 1e-3);
}

fn the_same_bits_twice<B: Backend>(backend: &B) {
    let setting = Setting { batch: 3, attack: attack(2), ..lenet() };
    assert_eq!(run(backend, &setting), run(backend, &setting));
}
