//! A target laid over an architecture: which tensors are selected from together.

use super::{Scheme, Target};
use crate::base::error::{Error, Result};
use crate::nn::models::Architecture;
use crate::nn::params::Role;

/// What one item of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// One element.
    Element,
    /// One row: of a weight, the filter of one output.
    Row,
    /// One column: the same position in all filters.
    Column,
}

/// Tensors whose items are kept or removed together: `keep` of `items` stay, those of the largest Euclidean norm over
/// all members, among equal ones those of the lowest indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The layers whose outputs, inputs or weights are selected, as indices into [`Architecture::layers`].
    pub layers: Vec<usize>,
    /// The tensors that are scored and projected, as indices into [`Architecture::params`]: the layers' weights, or for
    /// `bn-filter` the scale behind the layer.
    pub members: Vec<usize>,
    /// What one item is.
    pub slice: Slice,
    /// Number of items.
    pub items: usize,
    /// How many are kept.
    pub keep: usize,
}

/// The groups of `architecture` under `target`; each prunable layer is in exactly one.
///
/// # Errors
/// [`crate::base::error::Error::Usage`] for a ratio outside [0, 1), a ratio that would leave a layer empty, or a scheme that
/// does not fit the network.
pub fn groups(architecture: &Architecture, target: &Target) -> Result<Vec<Group>> {
    if !(0.0..1.0).contains(&target.ratio) {
        return Err(Error::Usage(format!("ratio: must be in [0, 1), got {}", target.ratio)));
    }
    let layers = prunable(architecture, target.linear);
    let groups = match target.scheme {
        Scheme::Tied => tied(architecture, target.ratio, &layers),
        _ => layers.iter().map(|&layer| alone(architecture, target, layer)).collect::<Result<Vec<_>>>()?,
    };
    // A smaller group is never left with more.
    match groups.iter().min_by_key(|group| group.items) {
        Some(group) if group.keep == 0 => Err(empty(architecture, target, group)),
        _ => Ok(groups),
    }
}

/// Every layer but the classifier, or every convolution.
fn prunable(architecture: &Architecture, linear: bool) -> Vec<usize> {
    let conv = |layer: usize| architecture.params[architecture.layers[layer].weight].role == Role::ConvWeight;
    (0..architecture.layers.len().saturating_sub(1)).filter(|&layer| linear || conv(layer)).collect()
}

/// The group of a layer that is pruned on its own.
fn alone(architecture: &Architecture, target: &Target, index: usize) -> Result<Group> {
    let layer = &architecture.layers[index];
    let weight = &architecture.params[layer.weight];
    let rows = weight.shape[0];
    let (member, slice, items) = match target.scheme {
        Scheme::Irregular => (layer.weight, Slice::Element, weight.len()),
        Scheme::Filter | Scheme::Tied => (layer.weight, Slice::Row, rows),
        Scheme::Column => (layer.weight, Slice::Column, weight.len() / rows),
        Scheme::BnFilter => match layer.norm {
            Some(norm) => (norm.gamma, Slice::Element, rows),
            None => {
                return Err(Error::Usage(format!(
                    "scheme '{}' needs batch normalisation behind every layer; network '{}' has none behind {}; use {}",
                    target.scheme,
                    architecture.network,
                    layer.name,
                    Scheme::Filter
                )));
            }
        },
    };
    Ok(Group { layers: vec![index], members: vec![member], slice, items, keep: keep(items, target.ratio) })
}

/// One group for each channel space that one of `layers` writes.
fn tied(architecture: &Architecture, ratio: f64, layers: &[usize]) -> Vec<Group> {
    let group = |(space, &items): (usize, &usize)| {
        let writers = layers.iter().copied().filter(|&layer| architecture.layers[layer].writes == space);
        let layers: Vec<usize> = writers.collect();
        let members = layers.iter().map(|&layer| architecture.layers[layer].weight).collect();
        Group { layers, members, slice: Slice::Row, items, keep: keep(items, ratio) }
    };
    architecture.spaces.iter().enumerate().map(group).filter(|group| !group.layers.is_empty()).collect()
}

/// How many of `items` are left.
fn keep(items: usize, ratio: f64) -> usize {
    items - (items as f64 * ratio).round() as usize
}

fn empty(architecture: &Architecture, target: &Target, group: &Group) -> Error {
    let what = match target.scheme {
        Scheme::Irregular => "weights",
        Scheme::Column => "columns",
        Scheme::Filter | Scheme::BnFilter | Scheme::Tied => "filters",
    };
    // Rounded down, so that what is printed works.
    let most = ((1.0 - 1.0 / group.items as f64) * 1e4).floor() / 1e4;
    Error::Usage(format!(
        "ratio: {} would leave {} ({} {what}) empty; use at most {most}",
        target.ratio, architecture.layers[group.layers[0]].name, group.items
    ))
}
