//! The settings that tables start from: the published ones of each data set, and those of the shorter profiles.

use super::Profile;
use crate::attack::{EpsSchedule, PgdConfig, Ramp};
use crate::data::{DataId, DatasetName};
use crate::nn::init::Init;
use crate::nn::models::Network;
use crate::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use crate::train::{Origin, Selection, Sparsity, TrainConfig};

/// A tenth of the training images is put aside for honest model selection, but no more than these.
const MOST_HELD_OUT: usize = 5000;

/// How one phase of training goes.
#[derive(Clone)]
pub struct Phase {
    /// Its length.
    pub epochs: usize,
    /// Update rule.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the phase.
    pub shape: LrShape,
}

/// The phases from a fresh network to a pruned one.
#[derive(Clone)]
pub struct Phases {
    /// Training of the dense network.
    pub dense: Phase,
    /// Training of the dense network towards a pruned one: with ADMM, or for as long with the proximal gradient method.
    pub admm: Phase,
    /// Training of what a hard prune has left.
    pub retrain: Phase,
}

/// The settings that all trainings on one data set share.
///
/// Batch size, augmentation and the CIFAR-10 learning rate are from the authors' code. Unpublished and ours: the optimiser of
/// the ADMM phase (next to Adam's normalised steps the small penalty would hardly pull), the learning rate and length of
/// MNIST's retraining, and all of `quick`.
pub struct Hyperparameters {
    /// The network, where none is asked for.
    pub network: Network,
    /// Makes of the paper's attack the one that profile `quick` trains with.
    pub quick_attack: fn(&PgdConfig) -> PgdConfig,
    /// Makes of the paper's attack the one that the profiles on the embedded sample train with; `smoke` measures with it too.
    pub sample_attack: fn(&PgdConfig) -> PgdConfig,
    /// Whether the attack grows over the first epochs of a short training: narrow networks only get going so.
    pub eps_warmup: bool,
    /// Random crop and flip of the training images.
    pub augment: bool,
    /// Images a step.
    pub batch: usize,
    /// Phases of profile `paper`.
    pub paper: Phases,
    /// Phases of profile `quick`.
    pub quick: Phases,
    /// Phases of profile `demo`, by network.
    pub demo: fn(Network) -> Phases,
}

const MNIST: Hyperparameters = Hyperparameters {
    network: Network::LeNet,
    quick_attack: coarse,
    sample_attack: coarse,
    eps_warmup: true,
    augment: false,
    batch: 64,
    paper: Phases {
        dense: phase(83, adam(1e-4), LrShape::Constant),
        admm: phase(40, sgd(0.01, 0.0), LrShape::Periodic),
        retrain: phase(40, adam(1e-4), LrShape::Constant),
    },
    quick: Phases {
        dense: phase(5, adam(1e-3), LrShape::Constant),
        admm: phase(3, sgd(0.01, 0.0), LrShape::Periodic),
        retrain: phase(3, adam(1e-3), LrShape::Cosine),
    },
    demo: |_| Phases {
        dense: phase(10, adam(1e-3), LrShape::Constant),
        admm: phase(10, sgd(0.01, 0.0), LrShape::Periodic),
        retrain: phase(10, adam(1e-3), LrShape::Cosine),
    },
};

const CIFAR10: Hyperparameters = Hyperparameters {
    network: Network::ResNet18,
    quick_attack: PgdConfig::clone,
    sample_attack: one_step,
    eps_warmup: false,
    augment: true,
    batch: 128,
    paper: Phases {
        dense: phase(300, sgd(0.1, 1e-4), LrShape::MultiStep),
        admm: phase(200, sgd(0.01, 1e-4), LrShape::Periodic),
        retrain: phase(100, sgd(0.01, 1e-4), LrShape::Cosine),
    },
    quick: Phases {
        dense: phase(4, sgd(0.1, 1e-4), LrShape::Cosine),
        admm: phase(4, sgd(0.01, 1e-4), LrShape::Periodic),
        retrain: phase(3, sgd(0.01, 1e-4), LrShape::Cosine),
    },
    demo: |network| {
        // Without normalisation a network diverges sooner.
        let lr = if network == Network::LeNetCifar { 0.01 } else { 0.03 };
        Phases {
            dense: phase(60, sgd(lr, 1e-4), LrShape::Cosine),
            admm: phase(30, sgd(0.01, 1e-4), LrShape::Periodic),
            retrain: phase(30, sgd(0.01, 1e-4), LrShape::Cosine),
        }
    },
};

impl Hyperparameters {
    /// The hyperparameters of a data set.
    pub fn of(name: DatasetName) -> &'static Self {
        match name {
            DatasetName::Mnist | DatasetName::FashionMnist => &MNIST,
            DatasetName::Cifar10 => &CIFAR10,
        }
    }

    /// The phases of a network under a profile.
    pub fn phases(&self, profile: Profile, network: Network) -> Phases {
        match profile {
            Profile::Paper => self.paper.clone(),
            Profile::Quick => self.quick.clone(),
            Profile::Smoke => self.quick.clone().with_epochs(1),
            Profile::Demo => (self.demo)(network),
        }
    }
}

impl Phases {
    /// The same phases, each of this length.
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        for phase in [&mut self.dense, &mut self.admm, &mut self.retrain] {
            phase.epochs = epochs;
        }
        self
    }
}

impl Phase {
    /// Its learning rate over time; if that is periodic, it starts over every `period` epochs.
    pub fn schedule(&self, period: usize) -> LrSchedule {
        // The published drops at epochs 80 and 150 of 300, stretched to other lengths.
        let drops: &[usize] = if self.shape == LrShape::MultiStep { &[80, 150] } else { &[] };
        LrSchedule {
            shape: self.shape,
            milestones: drops.iter().map(|drop| self.epochs.saturating_mul(*drop) / 300).collect(),
            gamma: 0.1,
            period: if self.shape == LrShape::Periodic { period } else { 0 },
            warmup_epochs: 0.0,
        }
    }
}

/// An attack in the same ball at a quarter of the work: a quarter of the steps, four times as long.
pub fn coarse(attack: &PgdConfig) -> PgdConfig {
    PgdConfig { steps: attack.steps.div_ceil(4), step_size: 4.0 * attack.step_size, ..attack.clone() }
}

/// The paper's adversarial training of a dense network on a data set with `train` training images: width 1 and seed 0,
/// to be replaced.
pub fn paper_training(data: &DataId, train: usize) -> TrainConfig {
    let Hyperparameters { network, augment, batch, paper: Phases { dense, .. }, .. } = Hyperparameters::of(data.name);
    let attack = PgdConfig::paper(data.name);
    TrainConfig {
        data: data.clone(),
        augment: *augment,
        network: *network,
        width: 1,
        origin: Origin::Initialisation,
        init: Init::Default,
        epochs: dense.epochs,
        batch: *batch,
        held_out: (train / 10).min(MOST_HELD_OUT),
        select: Selection::TestBest,
        seed: 0,
        optimizer: dense.optimizer.clone(),
        schedule: dense.schedule(0),
        attack: Some(attack.clone()),
        eps_schedule: EpsSchedule { ramp: Ramp::Constant, epochs: 0.0 },
        eval_attack: attack,
        eval_every: 1,
        sparsity: Sparsity::Dense,
    }
}

/// SGD with the momentum that all of the paper's SGD runs use.
pub const fn sgd(lr: f32, weight_decay: f32) -> OptimizerConfig {
    OptimizerConfig::Sgd { lr, momentum: 0.9, weight_decay }
}

/// Adam with PyTorch's constants.
pub const fn adam(lr: f32) -> OptimizerConfig {
    OptimizerConfig::Adam { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
}

const fn phase(epochs: usize, optimizer: OptimizerConfig, shape: LrShape) -> Phase {
    Phase { epochs, optimizer, shape }
}

/// An attack in the same ball that takes one step, as long as its radius.
fn one_step(attack: &PgdConfig) -> PgdConfig {
    PgdConfig { steps: 1, step_size: attack.eps, ..attack.clone() }
}
