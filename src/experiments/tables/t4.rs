//! Table 4 of the main paper: robust ResNet-18s on CIFAR-10, dense and pruned with ADMM; and post-pruning of table A1.

use super::grids::{self, ADMM, ADVERSARIAL_TRAINING, NATURAL_TRAINING, POST_PRUNE};
use super::{BlockSpec, Demo, Method, Table};
use crate::data::DatasetName;
use crate::nn::models::Network;

/// Training and test images of the embedded sample; table A1 takes the same ones, so that it finds the models of this one.
pub const SMOKE: (usize, usize) = (30, 10);

/// Those of the demos on CIFAR-10.
pub const DEMO_IMAGES: (usize, usize) = (800, 200);

/// The numbers of this table and of table A1, which share their methods.
pub const PUBLISHED: &[&str] = &[include_str!("published/t4.csv"), include_str!("published/a1.csv")];

/// The registry entry.
pub const TABLE: Table = Table {
    id: "t4",
    title: "ResNet-18 on CIFAR-10: natural training, adversarial training, and pruning with ADMM or at once",
    dataset: DatasetName::Cifar10,
    blocks: &[NATURAL_TRAINING, ADVERSARIAL_TRAINING, ADMM, BlockSpec { by_default: true, ..POST_PRUNE }],
    comparisons: &[(Method::Admm, Method::PostPrune)],
    smoke: SMOKE,
    demo: Demo {
        images: DEMO_IMAGES,
        methods: &[
            Method::NaturalTraining.name(),
            Method::AdversarialTraining.name(),
            Method::Admm.name(),
            Method::PostPrune.name(),
        ],
        cells: &["2:dense", "2:1"],
    },
    seeds: grids::seeds,
    chain: |at, settings| grids::chain(Network::ResNet18, at, settings),
    identity: grids::identity,
    published_csv: PUBLISHED,
    remarks: |_| Vec::new(),
};
