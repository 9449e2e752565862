//! Table A1: is pruning a robust ResNet-18 at once, with retraining, as good as ADMM? Without retraining almost every
//! cell is one class for every image.

use super::grids::{self, ADMM, ADVERSARIAL_TRAINING, NO_RETRAIN, POST_PRUNE, PRUNABLE};
use super::{BlockSpec, Method, Settings, Table, chains, t4};
use crate::data::DatasetName;
use crate::nn::models::Network;

/// The registry entry.
pub const TABLE: Table = Table {
    id: "a1",
    title: "ResNet-18 on CIFAR-10: pruned at once with and without retraining, beside ADMM",
    dataset: DatasetName::Cifar10,
    blocks: &[
        BlockSpec { rows: PRUNABLE, ..ADVERSARIAL_TRAINING },
        BlockSpec { by_default: true, ..POST_PRUNE },
        BlockSpec { by_default: true, ..NO_RETRAIN },
        ADMM,
    ],
    comparisons: &[(Method::Admm, Method::PostPrune)],
    smoke: t4::SMOKE,
    seeds: grids::seeds,
    chain: |at, settings| grids::chain(Network::ResNet18, at, settings),
    identity: grids::identity,
    published_csv: t4::PUBLISHED,
    notes,
};

fn notes(settings: &Settings) -> Vec<String> {
    let mut notes = chains::notes(settings);
    notes.push(
        "Without retraining, the paper says, almost every cell is 10.00/10.00. Its dense and ADMM numbers are those of \
         table 4."
            .to_string(),
    );
    notes
}
