//! Table C1: the models of table 2 under another attack, PGD on the margin loss of Carlini & Wagner.

use super::grids::{self, ADMM, ADVERSARIAL_TRAINING, PRUNABLE};
use super::{BlockSpec, Cell, Coordinates, Demo, Method, Settings, Table, t2};
use crate::attack::{AttackLoss, PgdConfig};
use crate::base::error::{Error, Result};
use crate::data::DatasetName;
use crate::experiments::pipeline::{EvalConfig, StageConfig};
use crate::nn::models::Network;
use crate::train::TrainConfig;

/// The registry entry.
pub const TABLE: Table = Table {
    id: "c1",
    title: "LeNet on MNIST under C&W l-infinity: adversarial training, and pruning with ADMM",
    dataset: DatasetName::Mnist,
    blocks: &[BlockSpec { rows: PRUNABLE, ..ADVERSARIAL_TRAINING }, ADMM],
    comparisons: &[],
    smoke: t2::SMOKE,
    demo: Demo { methods: &[Method::AdversarialTraining.name(), Method::Admm.name()], ..t2::DEMO },
    seeds: grids::seeds,
    chain,
    identity: grids::identity,
    published_csv: &[include_str!("published/c1.csv")],
    remarks,
};

/// The chain of table 2, then a measurement.
fn chain(at: &Coordinates, settings: &Settings) -> Result<Vec<StageConfig>> {
    let mut chain = grids::chain(Network::LeNet, at, settings)?;
    let Some(StageConfig::Train(model)) = chain.last() else {
        return Err(Error::Failed(format!("method '{}' ends without a trained model", at.block.method)));
    };
    let eval_attack = PgdConfig { loss: AttackLoss::Margin, ..model.eval_attack.clone() };
    let TrainConfig { data, network, width, seed, .. } = model.clone();
    let sparsity = model.sparsity.target().copied();
    chain.push(StageConfig::Eval(EvalConfig { data, network, width, seed, sparsity, eval_attack }));
    Ok(chain)
}

fn remarks(_: &[Cell]) -> Vec<String> {
    vec!["The paper does not give the attack's settings. With the same flags, table 2 has the same models.".to_string()]
}
