//! Appendix A: at a large prune rate, pruning at once and the proximal gradient method fail where ADMM succeeds, in the
//! same number of epochs. The paper gives no numbers.

use super::chains::Recipe;
use super::grids::{self, ADMM, ADVERSARIAL_TRAINING, POST_PRUNE, PROXIMAL};
use super::{BlockSpec, Cell, Coordinates, Demo, Identity, Method, Settings, Table};
use crate::base::error::Result;
use crate::data::DatasetName;
use crate::experiments::pipeline::StageConfig;
use crate::nn::models::Network;

/// The registry entry.
pub const TABLE: Table = Table {
    id: "fashion",
    title: "LeNet on Fashion-MNIST: pruning at once, proximal gradient, ADMM",
    dataset: DatasetName::FashionMnist,
    blocks: &[BlockSpec { rows: ROWS, ..ADVERSARIAL_TRAINING }, by_rate(POST_PRUNE), by_rate(PROXIMAL), by_rate(ADMM)],
    comparisons: &[(Method::Admm, Method::PostPrune), (Method::Admm, Method::Proximal)],
    smoke: (150, 50),
    demo: Demo {
        images: (2700, 500),
        methods: &[
            Method::AdversarialTraining.name(),
            Method::PostPrune.name(),
            Method::Proximal.name(),
            Method::Admm.name(),
        ],
        cells: &["4:dense", "4:2x", "4:8x"],
    },
    seeds: grids::seeds,
    chain,
    identity,
    published_csv: &[],
    remarks,
};

const ROWS: &[&str] = &["16", "8", "4"];

/// The columns are prune rates in place of widths.
const fn by_rate(block: BlockSpec) -> BlockSpec {
    BlockSpec {
        column_axis: "Prune rate",
        rows: ROWS,
        columns: &["2x", "4x", "8x", "16x", "32x"],
        exists: leaves_a_filter,
        absent: "no filter of the first layer would be left",
        by_default: true,
        ..block
    }
}

/// The first layer is the narrowest: twice the width.
fn leaves_a_filter(row: &str, column: &str) -> bool {
    matches!((grids::width(row), rate(column)), (Ok(width), Some(rate)) if rate <= 2 * width)
}

/// The share that is kept is one by the rate.
fn rate(column: &str) -> Option<usize> {
    column.strip_suffix('x')?.parse().ok()
}

fn chain(at: &Coordinates, settings: &Settings) -> Result<Vec<StageConfig>> {
    let kept = rate(at.column).map_or(1.0, |rate| 1.0 / rate as f64);
    let recipe = Recipe::new(Network::LeNet, settings, at.seed);
    Ok(recipe.chain(at.block.method.parse()?, grids::width(at.row)?, kept))
}

fn identity(at: &Coordinates, _: &StageConfig) -> Identity {
    let original_w = at.row.parse().ok();
    let pruned_w = original_w.zip(rate(at.column)).filter(|(w, rate)| w % rate == 0).map(|(w, rate)| w / rate);
    Identity { original_w, pruned_w, ..Identity::default() }
}

fn remarks(_: &[Cell]) -> Vec<String> {
    vec![
        "The paper gives neither numbers nor the attack's settings for Fashion-MNIST; change these with --set attack.eps=… \
         and --set eval_attack.eps=…"
            .to_string(),
    ]
}
