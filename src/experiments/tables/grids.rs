//! Grids that the pruning tables share: dense networks by width, and pairs of an original and a pruned width.

use super::chains::{Method, Recipe};
use super::{BlockSpec, Coordinates, Identity, Profile, Settings};
use crate::base::error::{Error, Result};
use crate::experiments::pipeline::StageConfig;
use crate::nn::models::Network;

/// Widths of the dense networks.
const WIDTHS: &[&str] = &["1", "2", "4", "8", "16"];
/// The column of the dense networks.
pub(super) const DENSE: &str = "dense";
/// Widths that can be pruned to a smaller one.
pub const PRUNABLE: &[&str] = &["2", "4", "8", "16"];

/// Dense networks trained on clean images.
pub const NATURAL_TRAINING: BlockSpec = dense(Method::NaturalTraining, "Dense, natural training");
/// Dense networks trained on attacked images.
pub const ADVERSARIAL_TRAINING: BlockSpec = dense(Method::AdversarialTraining, "Dense, adversarial training");
/// Pruned with ADMM.
pub const ADMM: BlockSpec = pruned(Method::Admm, "Pruned with ADMM", true);
/// Pruned at once and retrained.
pub const POST_PRUNE: BlockSpec = pruned(Method::PostPrune, "Pruned at once, retrained", false);
/// Pruned at once.
pub const NO_RETRAIN: BlockSpec = pruned(Method::NoRetrain, "Pruned at once, not retrained", false);
/// Pruned with the proximal gradient method.
pub const PROXIMAL: BlockSpec = pruned(Method::Proximal, "Pruned with the proximal gradient method", false);
/// Dense networks of the pruned width.
pub const SCRATCH: BlockSpec = pruned(Method::Scratch, "The small dense network from scratch", false);
/// Pruned networks trained from their initialisation.
pub const INHERITED: BlockSpec = pruned(Method::Inherited, "The pruned network from its first initialisation", false);

/// ADMM beside every other way to a pruned network that retrains.
pub const ADMM_BESIDE_THE_OTHERS: &[(Method, Method)] = &[
    (Method::Admm, Method::PostPrune),
    (Method::Admm, Method::Proximal),
    (Method::Admm, Method::Scratch),
    (Method::Admm, Method::Inherited),
];

const fn dense(method: Method, title: &'static str) -> BlockSpec {
    BlockSpec { rows: WIDTHS, columns: &[DENSE], exists: |_, _| true, absent: "", ..pruned(method, title, true) }
}

/// From every width to every smaller one.
const fn pruned(method: Method, title: &'static str, by_default: bool) -> BlockSpec {
    BlockSpec {
        method: method.name(),
        title,
        row_axis: "Original width",
        column_axis: "Pruned width",
        rows: PRUNABLE,
        columns: &["1", "2", "4", "8"],
        exists: narrower,
        absent: "pruning makes a network narrower, never wider",
        by_default,
    }
}

fn narrower(row: &str, column: &str) -> bool {
    matches!((row.parse::<usize>(), column.parse::<usize>()), (Ok(original), Ok(pruned)) if pruned < original)
}

/// Most published gaps are under 2 points, so one seed says nothing.
pub fn seeds(profile: Profile) -> usize {
    match profile {
        Profile::Paper => 3,
        Profile::Quick | Profile::Demo | Profile::Smoke => 1,
    }
}

/// The chain of a cell of one of these grids.
pub fn chain(network: Network, at: &Coordinates, settings: &Settings) -> Result<Vec<StageConfig>> {
    let original = width(at.row)?;
    let kept = if at.column == DENSE { 1.0 } else { width(at.column)? as f64 / original as f64 };
    Ok(Recipe::new(network, settings, at.seed).chain(at.block.method.parse()?, original, kept))
}

/// The number behind the name of a row or column.
pub fn width(name: &str) -> Result<usize> {
    name.parse().map_err(|_| Error::Failed(format!("'{name}' is no width")))
}

/// The widths of a cell.
pub fn identity(at: &Coordinates, _: &StageConfig) -> Identity {
    Identity { original_w: at.row.parse().ok(), pruned_w: at.column.parse().ok(), ..Identity::default() }
}
