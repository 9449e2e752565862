//! The published settings that tables start from.

use crate::attack::{EpsSchedule, PgdConfig, Ramp};
use crate::data::{DataId, DatasetName};
use crate::nn::init::Init;
use crate::nn::models::Network;
use crate::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use crate::train::{Origin, Selection, Sparsity, TrainConfig};

/// A tenth of the training images is put aside for honest model selection, but no more than these.
const MOST_HELD_OUT: usize = 5000;

/// An attack in the same ball at a quarter of the work: a quarter of the steps, four times as long.
pub fn coarse(attack: &PgdConfig) -> PgdConfig {
    PgdConfig { steps: attack.steps.div_ceil(4), step_size: 4.0 * attack.step_size, ..attack.clone() }
}

/// The paper's adversarial training of a dense network on a data set with `train` training images: width 1 and seed 0,
/// to be replaced.
///
/// Batch size, augmentation and the CIFAR-10 learning rate are from the authors' code.
pub fn paper_training(data: &DataId, train: usize) -> TrainConfig {
    let cifar = data.name == DatasetName::Cifar10;
    let attack = PgdConfig::paper(data.name);
    let optimizer = match cifar {
        true => sgd(0.1, 1e-4),
        false => adam(1e-4),
    };
    let (shape, milestones) = if cifar { (LrShape::MultiStep, vec![80, 150]) } else { (LrShape::Constant, vec![]) };
    TrainConfig {
        data: data.clone(),
        augment: cifar,
        network: if cifar { Network::ResNet18 } else { Network::LeNet },
        width: 1,
        origin: Origin::Initialisation,
        init: Init::Default,
        epochs: if cifar { 300 } else { 83 },
        batch: if cifar { 128 } else { 64 },
        held_out: (train / 10).min(MOST_HELD_OUT),
        select: Selection::TestBest,
        seed: 0,
        optimizer,
        schedule: LrSchedule { shape, milestones, gamma: 0.1, period: 0, warmup_epochs: 0.0 },
        attack: Some(attack.clone()),
        eps_schedule: EpsSchedule { ramp: Ramp::Constant, epochs: 0.0 },
        eval_attack: attack,
        eval_every: 1,
        sparsity: Sparsity::Dense,
    }
}

/// SGD with the momentum that all of the paper's SGD runs use.
pub fn sgd(lr: f32, weight_decay: f32) -> OptimizerConfig {
    OptimizerConfig::Sgd { lr, momentum: 0.9, weight_decay }
}

/// Adam with PyTorch's constants.
pub fn adam(lr: f32) -> OptimizerConfig {
    OptimizerConfig::Adam { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
}
