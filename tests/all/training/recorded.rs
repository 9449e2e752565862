//! Whole steps of adversarial training: PyTorch's losses and weights, and how much memory they take.

use engine::attack::PgdConfig;
use engine::attack::pgd::{Batch, PgdAttack};
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Backend, Constraint, Memory};
use engine::nn::models::{Mode, Model, Network};
use engine::nn::optim::{Optimizer, OptimizerConfig};

use crate::backends::{labels, on_every_backend, uniform};
use crate::compare::assert_close;
use crate::networks::{self, pass, recorded, zeros};
use crate::oracle::Oracle;
use crate::small_runs::attack;

on_every_backend! { lenet_trains_as_in_pytorch, resnet18_trains_as_in_pytorch }

fn lenet_trains_as_in_pytorch<B: Backend>(backend: &B) {
    trains_as_in_pytorch(backend, "lenet");
}

fn resnet18_trains_as_in_pytorch<B: Backend>(backend: &B) {
    trains_as_in_pytorch(backend, "resnet18");
}

/// A model in training.
struct Trainee<'b, B: Backend> {
    backend: &'b B,
    model: Model<B>,
    optimizer: Optimizer<B>,
    attack: PgdConfig,
    lr: f32,
}

impl<B: Backend> Trainee<'_, B> {
    /// Attacks `clean` from `start`, then steps on the mean loss of the attacked images, which is returned.
    fn step(&mut self, clean: &[f32], start: &[f32], labels: &[u8]) -> f32 {
        let (backend, n) = (self.backend, labels.len());
        let (model, config) = (&self.model, &self.attack);
        let images = |values| Tensor::new(backend.upload_batch(n, values), model.input(n));
        let batch = Batch { images: images(clean), labels: &backend.labels(labels) };
        let pgd = PgdAttack { backend, model, mode: Mode::Train, config };
        let x = pgd.ascend(&batch, images(start), &mut backend.metrics(), drop).unwrap();
        let pass = pass(backend, model, Mode::Train, 1.0 / n as f32, x, labels);
        self.optimizer.step(backend, self.lr, &pass.grads, self.model.params_mut(), |_| Constraint::Free).unwrap();
        self.model.update_running_stats(backend, pass.stats).unwrap();
        pass.loss.values(backend)[0]
    }
}

fn trains_as_in_pytorch<B: Backend>(backend: &B, network: &str) {
    let oracle = Oracle::load("train");
    let constant = |key: &str| {
        let value = &oracle.metadata("cases")[network][key];
        value.as_f64().unwrap_or_else(|| panic!("{network}: no {key}"))
    };
    let (lr, momentum, weight_decay) =
        (constant("lr") as f32, constant("momentum") as f32, constant("weight_decay") as f32);
    let (_, model) = recorded(backend, network);
    let optimizer = Optimizer::new(backend, &OptimizerConfig::Sgd { lr, momentum, weight_decay }, model.params());
    let (eps, step_size) = (constant("eps") as f32, constant("step_size") as f32);
    let attack = PgdConfig { eps, step_size, ..attack(constant("attack_steps") as usize) };
    let mut trainee = Trainee { backend, model, optimizer, attack, lr };
    let rtol = oracle.rtol(network);
    for step in 0..constant("steps") as usize {
        let name = |of: &str| format!("{network}.step{step}.{of}");
        let values = |of: &str| oracle.values(&name(of));
        let loss = trainee.step(values("clean"), values("start"), &networks::labels(&oracle, &name("labels")));
        assert_close(&name("loss"), &[loss], values("loss"), rtol, 0.0);
    }
    for (name, _, values) in trainee.model.state(backend) {
        let name = format!("{network}.final.{name}");
        assert_close(&name, &values, oracle.values(&name), rtol, 0.0);
    }
}

#[test]
fn memory_of_a_lenet_step_is_bounded_and_does_not_grow() {
    const BATCH: usize = 64;
    let backend = Cpu::<f32>::new(2).unwrap();
    let model = zeros(&backend, Network::LeNet);
    let config = OptimizerConfig::Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let optimizer = Optimizer::new(&backend, &config, model.params());
    let mut trainee = Trainee { backend: &backend, model, optimizer, attack: attack(3), lr: 1e-3 };
    let (images, labels) = (uniform(1, BATCH * 784), labels(2, BATCH, 10));
    let mut peak_after = |steps: usize| {
        for _ in 0..steps {
            trainee.step(&images, &images, &labels);
        }
        backend.peak_bytes()
    };
    let (one, many) = (peak_after(1), peak_after(10));
    assert_eq!(one, many, "a step leaves nothing behind");
    // Floats of one image: input, clean image, conv1, pool, conv2, pool, fc1, fc2; each activation with its gradient.
    let activations = 784 + 784 + 2 * (784 + 1568 + 392 + 784 + 196 + 64 + 10);
    // Weights, their gradients and two moments.
    let parameters = 4 * 13_514;
    let bound = 4 * (BATCH * activations + parameters);
    assert!(many < bound, "{many} bytes at the peak, expected less than {bound}");
}
