//! What pruning costs: `cargo bench --bench prune`.
//!
//! Projection of the 11-million-weight ResNet-18 should take less than 100 ms in every scheme on one thread, and ADMM's
//! penalty should add less than 5 % to a training step.

use std::sync::Arc;
use std::time::Instant;

use divan::{Bencher, black_box};
use engine::attack::PgdConfig;
use engine::attack::pgd::{Batch, Start};
use engine::autograd::tape::Tape;
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Loss, Memory};
use engine::base::rng::{Rng, Stream};
use engine::data::DatasetName;
use engine::nn::init::{Init, initial_values};
use engine::nn::models::{Architecture, Mode, Model, Network};
use engine::nn::optim::OptimizerConfig;
use engine::prune::{Admm, AdmmConfig, Scheme, Target, groups, hard_prune, project, shrink};
use engine::train::{Sparsifier, Trainer};

/// Images of a step: the paper's for MNIST.
const BATCH: usize = 64;

fn main() {
    divan::main();
    // What `cargo bench` passes; a user who names a benchmark wants that one.
    if std::env::args().skip(1).eq(["--bench"]) {
        penalty("natural", 400, None);
        penalty("adversarial", 40, Some(&PgdConfig::paper(DatasetName::Mnist)));
    }
}

/// A quarter is kept: from width 16 to 4.
fn target(scheme: Scheme) -> Target {
    Target { scheme, ratio: 0.75, linear: true }
}

fn admm_config(scheme: Scheme) -> AdmmConfig {
    AdmmConfig { target: target(scheme), rho: 1e-3, growth: 1.3, update_every: 1 }
}

fn cpu() -> Cpu<f32> {
    Cpu::new(1).expect("one thread")
}

fn resnet18() -> (Arc<Architecture>, Vec<Vec<f32>>) {
    let architecture = Architecture::new(Network::ResNet18, 16, 10).expect("a width of the paper");
    let mut values = initial_values(&architecture, Init::KaimingNormal, 0);
    // Scales that can be told apart.
    let scales = values.iter_mut().flatten().enumerate().filter(|(_, v)| **v == 1.0);
    scales.for_each(|(i, v)| *v = 1.0 + (i % 97) as f32 / 97.0);
    (Arc::new(architecture), values)
}

#[divan::bench(args = Scheme::ALL, sample_count = 12, sample_size = 1)]
fn project_resnet18(bencher: Bencher<'_, '_>, scheme: &Scheme) {
    let (backend, (architecture, values)) = (cpu(), resnet18());
    let groups = groups(&architecture, &target(*scheme)).expect("fits");
    // A projected network would be easier to project.
    let fresh = || Model::new(&backend, architecture.clone(), &values).expect("fits");
    bencher.with_inputs(fresh).bench_local_refs(|model| project(&backend, &groups, model).expect("no NaN"));
}

#[divan::bench(args = Scheme::ALL, sample_count = 12, sample_size = 1)]
fn admm_update_resnet18(bencher: Bencher<'_, '_>, scheme: &Scheme) {
    let (backend, (architecture, values)) = (cpu(), resnet18());
    let model = Model::new(&backend, architecture, &values).expect("fits");
    let mut admm = Admm::start(&backend, &admm_config(*scheme), &model).expect("fits");
    bencher.bench_local(|| black_box(admm.update(&backend, &model).expect("no NaN")));
}

/// Networks of which a quarter of every layer is kept, in a way that lets them shrink.
const SHRINKING: &[(Network, usize, Scheme)] =
    &[(Network::LeNet, 4, Scheme::Filter), (Network::LeNet, 16, Scheme::Filter), (Network::ResNet18, 4, Scheme::Tied)];

/// A masked network, or what is left of it when the zeros are removed.
fn pruned(backend: &Cpu<f32>, at: usize, small: bool) -> Model<Cpu<f32>> {
    let (network, width, scheme) = SHRINKING[at];
    let architecture = Architecture::new(network, width, 10).expect("a width of the paper");
    let values = initial_values(&architecture, Init::KaimingNormal, 0);
    let mut model = Model::new(backend, Arc::new(architecture), &values).expect("fits");
    hard_prune(backend, &target(scheme), &mut model).expect("no NaN");
    if small { shrink(backend, &model).expect("fits").model } else { model }
}

/// A batch through each of [`SHRINKING`].
fn forward(bencher: Bencher<'_, '_>, at: usize, small: bool) {
    let backend = cpu();
    let model = pruned(&backend, at, small);
    let rng = Rng::new(0, Stream::Augment, 0);
    let shape = model.input(BATCH);
    let images: Vec<f32> = (0..shape.len() as u64).map(|i| rng.uniform_at(i)).collect();
    bencher.bench_local(|| {
        let tape = Tape::new(&backend);
        let params = model.leaves(&tape);
        let input = tape.leaf(Tensor::new(backend.upload_batch(BATCH, &images), shape.clone()));
        black_box(model.forward(&tape, &params, &input, Mode::Eval).expect("fits").logits)
    });
}

#[divan::bench(args = [0, 1, 2], sample_count = 20, sample_size = 1)]
fn forward_masked(bencher: Bencher<'_, '_>, at: usize) {
    forward(bencher, at, false);
}

#[divan::bench(args = [0, 1, 2], sample_count = 20, sample_size = 1)]
fn forward_shrunk(bencher: Bencher<'_, '_>, at: usize) {
    forward(bencher, at, true);
}

/// Training of LeNet w=4, by itself and with the penalty, a step of each in turn.
struct Pair {
    backend: Cpu<f32>,
    trainers: [Trainer<Cpu<f32>>; 2],
    images: Vec<f32>,
    labels: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let backend = cpu();
        let adam = OptimizerConfig::Adam { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let trainer = || {
            let architecture = Architecture::new(Network::LeNet, 4, 10).expect("a width of the paper");
            Trainer::new(&backend, architecture, Init::Default, 0, &adam).expect("fits")
        };
        let mut trainers = [trainer(), trainer()];
        let admm = Admm::start(&backend, &admm_config(Scheme::Filter), &trainers[1].model).expect("fits");
        trainers[1].sparsifier = Sparsifier::Admm { admm, update_every: 1 };
        let rng = Rng::new(0, Stream::Augment, 0);
        let images = (0..BATCH as u64 * 784).map(|i| rng.uniform_at(i)).collect();
        let labels = (0..BATCH).map(|i| (i % 10) as u8).collect();
        Pair { backend, trainers, images, labels }
    }

    /// Seconds of one step of one of the two.
    fn step(&mut self, which: usize, step: u32, attack: Option<&PgdConfig>) -> f64 {
        let (backend, trainer) = (&self.backend, &mut self.trainers[which]);
        let images = Tensor::new(backend.upload_batch(BATCH, &self.images), trainer.model.input(BATCH));
        let batch = Batch { images, labels: &self.labels };
        let rng = Rng::new(0, Stream::TrainAttack, step);
        let attack = attack.map(|attack| (attack, Start { rng: &rng, first: 0 }));
        let begin = Instant::now();
        trainer.step(backend, &batch, attack, 1e-4, &mut backend.metrics()).expect("fits");
        begin.elapsed().as_secs_f64()
    }
}

/// Prints what the penalty adds to a step: medians of steps done in turn, so that both meet the same machine.
fn penalty(what: &str, steps: u32, attack: Option<&PgdConfig>) {
    let mut pair = Pair::new();
    let mut seconds = [Vec::new(), Vec::new()];
    for step in 0..steps {
        for which in [0, 1] {
            seconds[which].push(pair.step(which, step, attack));
        }
    }
    let [without, with] = seconds.map(median);
    let percent = 100.0 * (with / without - 1.0);
    println!(
        "{what} step of LeNet w=4: {:.3} ms, with the penalty {:.3} ms, {percent:+.1} %",
        1e3 * without,
        1e3 * with
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
