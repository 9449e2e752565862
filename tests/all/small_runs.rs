//! Training runs of seconds, on a part of the embedded sample.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::attack::{AttackLoss, BnMode, EpsSchedule, PgdConfig, Ramp};
use engine::backend::Backend;
use engine::checkpoint::load_model;
use engine::data::{Dataset, DatasetName, Split};
use engine::nn::init::Init;
use engine::nn::models::{Model, Network};
use engine::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use engine::train::{EpochRow, Observer, Origin, Selection, Sparsity, TrainConfig, train};

/// The first images of the MNIST sample.
pub fn digits(train: usize, test: usize) -> Dataset {
    let data = Dataset::sample(DatasetName::Mnist).unwrap();
    let first = |split: &Split, n: usize| split.select(&(0..n).collect::<Vec<_>>());
    Dataset { train: first(&data.train, train), test: first(&data.test, test), ..data }
}

/// PGD at the paper's radius, in few steps.
pub fn attack(steps: usize) -> PgdConfig {
    PgdConfig {
        eps: 0.3,
        step_size: 0.1,
        steps,
        random_start: true,
        restarts: 1,
        loss: AttackLoss::CrossEntropy,
        bn: BnMode::Train,
    }
}

/// Adversarial training of LeNet w=1 for three short epochs, with images put aside.
pub fn config(data: &Dataset) -> TrainConfig {
    TrainConfig {
        data: data.id.clone(),
        augment: false,
        network: Network::LeNet,
        width: 1,
        origin: Origin::Initialisation,
        init: Init::XavierUniform,
        epochs: 3,
        batch: 20,
        held_out: 30,
        select: Selection::TestBest,
        seed: 1,
        optimizer: OptimizerConfig::Adam { lr: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 },
        schedule: LrSchedule {
            shape: LrShape::Constant,
            milestones: vec![],
            gamma: 0.1,
            period: 0,
            warmup_epochs: 0.0,
        },
        attack: Some(attack(2)),
        eps_schedule: EpsSchedule { ramp: Ramp::Linear, epochs: 2.0 },
        eval_attack: attack(3),
        eval_every: 1,
        sparsity: Sparsity::Dense,
    }
}

/// Counts how often it was asked, and asks to stop at the `stop_at`th time and ever after.
pub struct Stop {
    pub stop_at: usize,
    pub asked: AtomicUsize,
    pub passes: AtomicUsize,
}

impl Stop {
    pub fn at(stop_at: usize) -> Self {
        Stop { stop_at, asked: AtomicUsize::new(0), passes: AtomicUsize::new(0) }
    }

    pub fn never() -> Self {
        Stop::at(usize::MAX)
    }
}

impl Observer for Stop {
    fn advance(&self, passes: u64) {
        self.passes.fetch_add(passes as usize, Ordering::Relaxed);
    }

    fn epoch(&self, _: &EpochRow, _: usize) {}

    fn stop_requested(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1 >= self.stop_at
    }
}

/// LeNet after a natural training that is enough to see an attack work.
pub fn trained<B: Backend>(backend: &B) -> Model<B> {
    let data = digits(1000, 100);
    let config = TrainConfig { attack: None, eval_attack: attack(1), ..config(&data) };
    let dir = tempfile::tempdir().unwrap();
    train(backend, &config, &data, None, dir.path(), &Stop::never()).unwrap();
    load(backend, dir.path())
}

/// The model that a finished run left in `dir`.
pub fn load<B: Backend>(backend: &B, dir: &Path) -> Model<B> {
    load_model(backend, &dir.join("model.safetensors")).unwrap().0
}
