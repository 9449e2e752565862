//! Table A1: is pruning a robust ResNet-18 at once, with retraining, as good as ADMM? Without retraining almost every
//! cell is one class for every image.

use super::grids::{self, ADMM, ADVERSARIAL_TRAINING, NO_RETRAIN, POST_PRUNE, PRUNABLE};
use super::{BlockSpec, Cell, Demo, Method, Table, t4};
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
    demo: Demo {
        images: t4::DEMO_IMAGES,
        methods: &[
            Method::AdversarialTraining.name(),
            Method::PostPrune.name(),
            Method::NoRetrain.name(),
            Method::Admm.name(),
        ],
        cells: &["2:dense", "2:1"],
    },
    seeds: grids::seeds,
    chain: |at, settings| grids::chain(Network::ResNet18, at, settings),
    identity: grids::identity,
    published_csv: t4::PUBLISHED,
    remarks,
};

fn remarks(cells: &[Cell]) -> Vec<String> {
    let mut remarks = vec!["The paper has the dense networks and ADMM in table 4.".to_string()];
    if cells.iter().any(|cell| cell.at.block.method == Method::NoRetrain.name()) {
        remarks.push("Without retraining, the paper says, almost every cell is 10.00/10.00.".to_string());
    }
    remarks
}
