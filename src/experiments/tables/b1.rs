//! Table B1: can a small robust network be trained from scratch? Seven initialisers × three optimisers,
//! LeNet w=1, MNIST. In the paper almost every cell collapses to one class: 11.35 is the share of class 1.

use super::chains::shortened;
use super::defaults::{Hyperparameters, adam, paper_training, sgd};
use super::published::{self, Published};
use super::{BlockSpec, Cell, Coordinates, Demo, Identity, Method, Profile, Settings, Table, t2};
use crate::attack::{EpsSchedule, Ramp};
use crate::base::error::{Error, Result};
use crate::data::DatasetName;
use crate::experiments::pipeline::StageConfig;
use crate::nn::init::Init;
use crate::nn::models::Network;
use crate::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use crate::train::TrainConfig;

const INITS: &[&str] = &[
    Init::Uniform.name(),
    Init::Normal.name(),
    Init::XavierUniform.name(),
    Init::XavierNormal.name(),
    Init::KaimingUniform.name(),
    Init::KaimingNormal.name(),
    Init::Orthogonal.name(),
];
/// The paper's method.
const SCRATCH: &str = Method::Scratch.name();
/// The method that ramps eps.
const WARMUP: &str = "warmup";

/// The registry entry.
pub const TABLE: Table = Table {
    id: "b1",
    title: "LeNet w=1 trained adversarially from scratch on MNIST: 7 initialisers x 3 optimisers",
    dataset: DatasetName::Mnist,
    blocks: &[
        BlockSpec {
            method: SCRATCH,
            title: "From scratch, as in the paper",
            row_axis: "Initialiser",
            column_axis: "Optimiser",
            rows: INITS,
            columns: &["adam", "sgd", "cosanneal"],
            exists: |_, _| true,
            absent: "",
            by_default: true,
        },
        BlockSpec {
            method: WARMUP,
            title: "From scratch with eps warm-up",
            row_axis: "Initialiser",
            column_axis: "Optimiser",
            rows: INITS,
            columns: &["adam-1e-4", "adam-1e-3", "sgd", "cosanneal"],
            exists: |_, _| true,
            absent: "",
            by_default: false,
        },
    ],
    comparisons: &[],
    smoke: (3000, 1000),
    demo: Demo {
        images: (2700, 500),
        methods: &[SCRATCH, WARMUP],
        cells: &["uniform:adam", "xavier_normal:sgd", "xavier_normal:adam-1e-3"],
    },
    seeds,
    chain,
    identity,
    published_csv: &[include_str!("published/b1.csv")],
    remarks,
};

fn seeds(profile: Profile) -> usize {
    match profile {
        Profile::Paper => 10,
        Profile::Quick | Profile::Demo | Profile::Smoke => 1,
    }
}

fn epochs(profile: Profile) -> usize {
    match profile {
        Profile::Paper => 300,
        Profile::Quick => 5,
        Profile::Demo => 120,
        Profile::Smoke => 8,
    }
}

fn chain(at: &Coordinates, settings: &Settings) -> Result<Vec<StageConfig>> {
    let epochs = settings.epochs.unwrap_or_else(|| epochs(settings.profile));
    let (optimizer, schedule) = optimizer(at.column)?;
    let mut config = TrainConfig {
        network: Network::LeNet,
        width: 1,
        init: at.row.parse()?,
        epochs,
        seed: at.seed,
        optimizer,
        schedule,
        ..paper_training(&settings.data, settings.train_images)
    };
    match settings.profile {
        Profile::Paper | Profile::Quick => {}
        Profile::Demo => config = TrainConfig { eval_every: epochs, ..shortened(config, Profile::Demo) },
        Profile::Smoke => {
            let attack = (Hyperparameters::of(settings.data.name).sample_attack)(&config.eval_attack);
            config.attack = Some(attack.clone());
            config.eval_attack = attack;
        }
    }
    if at.block.method == WARMUP {
        config.eps_schedule = EpsSchedule { ramp: Ramp::Cosine, epochs: warmup_epochs(epochs) };
    }
    Ok(vec![StageConfig::Train(config)])
}

/// A third of the training, but 5 to 30 epochs, and always some epochs at the full radius.
fn warmup_epochs(epochs: usize) -> f64 {
    (epochs as f64 / 3.0).clamp(5.0, 30.0).min(0.6 * epochs as f64)
}

/// The paper names the optimisers only; learning rates and drops are ours.
fn optimizer(column: &str) -> Result<(OptimizerConfig, LrSchedule)> {
    let schedule = |shape, milestones: &[usize]| LrSchedule {
        shape,
        milestones: milestones.to_vec(),
        gamma: 0.1,
        period: 0,
        warmup_epochs: 0.0,
    };
    Ok(match column {
        "adam" | "adam-1e-4" => (adam(1e-4), schedule(LrShape::Constant, &[])),
        "adam-1e-3" => (adam(1e-3), schedule(LrShape::Constant, &[])),
        "sgd" => (sgd(0.1, 0.0), schedule(LrShape::MultiStep, &[20])),
        "cosanneal" => (sgd(0.1, 0.0), schedule(LrShape::Cosine, &[])),
        other => return Err(Error::Failed(format!("table b1 has no optimiser '{other}'"))),
    })
}

fn identity(at: &Coordinates, last: &StageConfig) -> Identity {
    let init = match last {
        StageConfig::Train(config) => config.init.name(),
        _ => at.row,
    };
    Identity {
        init: Some(init.to_string()),
        optimizer: Some(at.column.to_string()),
        original_w: Some(last.network().1),
        pruned_w: None,
    }
}

fn remarks(cells: &[Cell]) -> Vec<String> {
    let mut remarks = vec!["The paper names its optimisers only.".to_string()];
    let pruned = published::find(t2::TABLE.published_csv, Method::Admm.name(), "4", "1");
    if cells.iter().any(|cell| cell.at.block.method == WARMUP)
        && let Some(Published { natural: Some(natural), adversarial }) = pruned
    {
        remarks.push(format!(
            "With eps warm-up the number to come near is {natural:.2}/{adversarial:.2}, which the paper reaches at w=1 by \
             pruning w=4 with ADMM."
        ));
    }
    remarks
}
