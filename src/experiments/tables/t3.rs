//! Table 3 of the main paper: robust LeNets on CIFAR-10, dense and pruned with ADMM; and ADMM's rivals on the same
//! grid.

use super::grids::{
    self, ADMM, ADMM_BESIDE_THE_OTHERS, ADVERSARIAL_TRAINING, INHERITED, NATURAL_TRAINING, NO_RETRAIN, POST_PRUNE,
    PROXIMAL, SCRATCH,
};
use super::{BlockSpec, Demo, Table, t2, t4};
use crate::data::DatasetName;
use crate::nn::models::Network;

/// The registry entry.
pub const TABLE: Table = Table {
    id: "t3",
    title: "LeNet on CIFAR-10: adversarial training, and pruning with ADMM",
    dataset: DatasetName::Cifar10,
    blocks: &[
        ADVERSARIAL_TRAINING,
        ADMM,
        BlockSpec { by_default: false, ..NATURAL_TRAINING },
        POST_PRUNE,
        NO_RETRAIN,
        PROXIMAL,
        SCRATCH,
        INHERITED,
    ],
    comparisons: ADMM_BESIDE_THE_OTHERS,
    smoke: (300, 100),
    demo: Demo { images: t4::DEMO_IMAGES, ..t2::DEMO },
    seeds: grids::seeds,
    chain: |at, settings| grids::chain(Network::LeNetCifar, at, settings),
    identity: grids::identity,
    published_csv: &[include_str!("published/t3.csv")],
    remarks: |_| Vec::new(),
};
