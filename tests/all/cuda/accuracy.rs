//! What mixed precision costs an attack and a training, measured on host-compiled kernels; no test, for it takes minutes.
//!
//!     cargo test --test all -- --ignored --nocapture mixed_precision

use engine::attack::PgdConfig;
use engine::attack::evaluation::{Subset, evaluate};
use engine::attack::pgd::{Batch, PgdAttack, Start};
use engine::autograd::tape::Tape;
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Backend, Images, LossKind};
use engine::base::rng::{Rng, Stream};
use engine::data::{Dataset, DatasetName};
use engine::nn::init::Init;
use engine::nn::models::{Architecture, Mode, Model, Network};
use engine::nn::optim::OptimizerConfig;
use engine::train::Trainer;

use crate::small_runs::attack;

/// What training in mixed precision costs: the same adversarial training of ResNet-18 on part of the CIFAR-10 sample, on the CPU
/// in f32 and on host-compiled kernels in bf16, from three seeds; both evaluated on the CPU.
#[test]
#[ignore = "a measurement of a quarter of an hour"]
fn accuracy_of_mixed_precision() {
    let Some(bf16) = crate::cuda_host::bf16() else { return };
    let cpu = Cpu::<f32>::new(2).unwrap();
    for seed in 1..=3 {
        let say = |name: &str, [loss, natural, attacked]: [f64; 3]| {
            println!("seed {seed} {name}: loss {loss:.4}, natural {natural:.2} %, attacked {attacked:.2} %");
        };
        say("f32", long_run(&cpu, seed));
        say("bf16", long_run(&bf16, seed));
    }
}

/// Mean loss of the last epoch, and accuracies in percent.
fn long_run<B: Backend>(backend: &B, seed: u64) -> [f64; 3] {
    const EPOCHS: u32 = 6;
    const BATCH: usize = 32;
    let data = Dataset::sample(DatasetName::Cifar10).unwrap();
    let count = 256.min(data.train.labels.len());
    let attack = PgdConfig { eps: 4.0 / 255.0, step_size: 4.0 / 255.0, ..attack(1) };
    let optimizer = OptimizerConfig::Sgd { lr: 0.05, momentum: 0.9, weight_decay: 1e-4 };
    let architecture = || Architecture::new(Network::ResNet18, 1, 10).unwrap();
    let mut trainer = Trainer::new(backend, architecture(), Init::KaimingNormal, seed, &optimizer).unwrap();
    let images = backend.resident(data.shape, &data.train.images);
    let mut loss = 0.0;
    for epoch in 0..EPOCHS {
        let order = Rng::new(seed, Stream::Shuffle, epoch).permutation(count);
        let mut metrics = backend.metrics();
        for (step, indices) in order.chunks_exact(BATCH).enumerate() {
            let labels: Vec<u8> = indices.iter().map(|&i| data.train.labels[i as usize]).collect();
            let clean = Tensor::new(backend.gather(&images, indices, None), trainer.model.input(BATCH));
            let rng = Rng::new(seed, Stream::TrainAttack, epoch * 1000 + step as u32);
            let start = Start { rng: &rng, first: 0 };
            let batch = Batch { images: clean, labels: &backend.labels(&labels) };
            trainer.step(backend, &batch, Some((&attack, start)), 0.05, &mut metrics).unwrap();
        }
        loss = backend.metrics_read(&metrics).mean_loss();
    }
    // The test images on the CPU.
    let cpu = Cpu::<f32>::new(2).unwrap();
    let mut model = Trainer::new(&cpu, architecture(), Init::KaimingNormal, seed, &optimizer).unwrap().model;
    let state = trainer.model.state(backend);
    let value = |wanted: &str| state.iter().find(|(name, ..)| name == wanted).map(|(_, _, values)| values.clone());
    model.load_state(&cpu, |name, _| Ok(value(name).expect("a value of the state"))).unwrap();
    let images = cpu.resident(data.shape, &data.test.images);
    let indices: Vec<u32> = (0..data.test.labels.len() as u32).collect();
    let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
    let pgd = PgdConfig { steps: 10, step_size: 1.0 / 255.0, ..attack };
    let report = evaluate(&cpu, &model, &subset, Some(&pgd), 1, &|_| Ok(())).unwrap();
    [loss, report.natural, report.adversarial]
}

/// What an attack in mixed precision is worth: the loss in f32 of images that were attacked in f32 and in bf16, on fresh networks
/// in training, where the signs of small gradients are hardest to get right.
#[test]
#[ignore = "a measurement of minutes"]
fn attacks_in_mixed_precision() {
    let Some(bf16) = crate::cuda_host::bf16() else { return };
    let cpu = Cpu::<f32>::new(2).unwrap();
    for (seed, steps) in [(1, 1), (2, 1), (3, 1), (1, 5), (2, 5), (3, 5)] {
        let clean = fresh_loss(&cpu, seed, &fresh_attack(&cpu, seed, 0));
        let attacked = [fresh_attack(&cpu, seed, steps), fresh_attack(&bf16, seed, steps)];
        let [f32, bf16] = attacked.map(|images| fresh_loss(&cpu, seed, &images) - clean);
        println!("seed {seed}, {steps} steps: the loss rises from {clean:.4} by {f32:.4} in f32, by {bf16:.4} in bf16");
    }
}

/// The first images of the CIFAR-10 sample after so many steps of an attack, from the images themselves.
fn fresh_attack<B: Backend>(backend: &B, seed: u64, steps: usize) -> Vec<f32> {
    fresh(backend, seed, |backend, model, batch| {
        let config =
            PgdConfig { eps: 8.0 / 255.0, step_size: 4.0 / 255.0, random_start: false, ..attack(steps.max(1)) };
        let rng = Rng::new(seed, Stream::TrainAttack, 0);
        let start = Start { rng: &rng, first: 0 };
        let pgd = PgdAttack { backend, model, mode: Mode::Train, config: &config };
        let images = match steps {
            0 => batch.images.clone(),
            _ => pgd.attack(start, batch, &mut backend.metrics(), drop).unwrap(),
        };
        images.values(backend)
    })
}

/// Their mean loss.
fn fresh_loss<B: Backend>(backend: &B, seed: u64, images: &[f32]) -> f64 {
    fresh(backend, seed, |backend, model, batch| {
        let n = batch.n();
        let tape = Tape::new(backend);
        let (params, x) =
            (model.leaves(&tape), tape.leaf(Tensor::new(backend.upload_batch(n, images), model.input(n))));
        let logits = model.forward(&tape, &params, &x, Mode::Train).unwrap().logits;
        let loss = engine::autograd::ops::loss(&tape, LossKind::CrossEntropy, 1.0 / n as f32, &logits, batch.labels);
        f64::from(loss.param().values(backend)[0])
    })
}

fn fresh<B: Backend, R>(backend: &B, seed: u64, f: impl FnOnce(&B, &Model<B>, &Batch<'_, B>) -> R) -> R {
    let n = 32;
    let data = Dataset::sample(DatasetName::Cifar10).unwrap();
    let sgd = OptimizerConfig::Sgd { lr: 0.05, momentum: 0.9, weight_decay: 1e-4 };
    let architecture = Architecture::new(Network::ResNet18, 1, 10).unwrap();
    let model = Trainer::new(backend, architecture, Init::KaimingNormal, seed, &sgd).unwrap().model;
    let images = backend.resident(data.shape, &data.train.images);
    let indices: Vec<u32> = (0..n as u32).collect();
    let images = Tensor::new(backend.gather(&images, &indices, None), model.input(n));
    let labels = backend.labels(&data.train.labels[..n]);
    f(backend, &model, &Batch { images, labels: &labels })
}
