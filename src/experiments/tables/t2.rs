//! Table 2 of the main paper: robust LeNets on MNIST, dense and pruned with ADMM; and ADMM's rivals on the same grid.

use super::grids::{
    self, ADMM, ADMM_BESIDE_THE_OTHERS, ADVERSARIAL_TRAINING, INHERITED, NATURAL_TRAINING, NO_RETRAIN, POST_PRUNE,
    PROXIMAL, SCRATCH,
};
use super::{Demo, Method, Table};
use crate::data::DatasetName;
use crate::nn::models::Network;

/// Training and test images of the embedded sample; table C1 takes the same ones, so that it finds the models of this one.
pub const SMOKE: (usize, usize) = (400, 200);

/// Table C1 measures these models, and table 3 has the same cells.
pub const DEMO: Demo = Demo {
    images: (2700, 500),
    methods: &[
        Method::AdversarialTraining.name(),
        Method::Admm.name(),
        Method::PostPrune.name(),
        Method::NoRetrain.name(),
        Method::Scratch.name(),
    ],
    cells: &["1:dense", "2:dense", "4:dense", "4:1"],
};

/// The registry entry.
pub const TABLE: Table = Table {
    id: "t2",
    title: "LeNet on MNIST: natural training, adversarial training, and pruning with ADMM",
    dataset: DatasetName::Mnist,
    blocks: &[NATURAL_TRAINING, ADVERSARIAL_TRAINING, ADMM, POST_PRUNE, NO_RETRAIN, PROXIMAL, SCRATCH, INHERITED],
    comparisons: ADMM_BESIDE_THE_OTHERS,
    smoke: SMOKE,
    demo: DEMO,
    seeds: grids::seeds,
    chain: |at, settings| grids::chain(Network::LeNet, at, settings),
    identity: grids::identity,
    published_csv: &[include_str!("published/t2.csv")],
    remarks: |_| Vec::new(),
};
