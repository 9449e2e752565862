//! A target laid over an architecture: which tensors are selected from together.

use super::{Scheme, Target};
use crate::base::error::{Error, Result};
use crate::nn::models::Architecture;
use crate::nn::params::{LayerSpec, ParamSpec, Role};

/// The kind of item that a group keeps or removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// One element.
    Element,
    /// One row: of a weight, the filter of one output.
    Row,
    /// One column: the same position in all filters.
    Column,
}

impl Slice {
    /// How many of them a tensor has.
    fn count(self, tensor: &ParamSpec) -> usize {
        match self {
            Slice::Element => tensor.len(),
            Slice::Row => tensor.shape[0],
            Slice::Column => tensor.len() / tensor.shape[0],
        }
    }
}

/// Tensors whose items are kept or removed together: `keep` of `items` stay, those of the largest Euclidean norm over
/// all members, among equal ones those of the lowest indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The layers whose outputs, inputs or weights are selected, as indices into [`Architecture::layers`].
    pub layers: Vec<usize>,
    /// The tensors that are scored and projected, as indices into [`Architecture::params`]: the layers' weights, or the
    /// scales behind the layers.
    pub members: Vec<usize>,
    /// The kind of its items.
    pub slice: Slice,
    /// Number of items.
    pub items: usize,
    /// How many are kept.
    pub keep: usize,
}

impl Group {
    /// Whether the members are the layers' weights, rather than the scales behind them.
    pub(super) fn scores_weights(&self, architecture: &Architecture) -> bool {
        self.layers.iter().zip(&self.members).all(|(&layer, &member)| architecture.layers[layer].weight == member)
    }
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
    let group =
        |layers, members, slice, items| Group { layers, members, slice, items, keep: keep(items, target.ratio) };
    // One group for each layer, of a tensor that it has.
    let each = |slice: Slice, member: &dyn Fn(&LayerSpec) -> Result<usize>| {
        let of_layer = |&layer: &usize| {
            let member = member(&architecture.layers[layer])?;
            Ok(group(vec![layer], vec![member], slice, slice.count(&architecture.params[member])))
        };
        layers.iter().map(of_layer).collect::<Result<Vec<_>>>()
    };
    let weight = |layer: &LayerSpec| Ok(layer.weight);
    let groups = match target.scheme {
        Scheme::Irregular => each(Slice::Element, &weight)?,
        Scheme::Filter => each(Slice::Row, &weight)?,
        Scheme::Column => each(Slice::Column, &weight)?,
        Scheme::BnFilter => each(Slice::Element, &|layer| scale(architecture, target, layer))?,
        Scheme::Tied => {
            let writers =
                |space| layers.iter().copied().filter(move |&layer| architecture.layers[layer].writes == space);
            let of_space = |(space, &channels)| {
                let members = writers(space).map(|layer| architecture.layers[layer].weight).collect();
                group(writers(space).collect(), members, Slice::Row, channels)
            };
            let groups = architecture.spaces.iter().enumerate().map(of_space);
            groups.filter(|group| !group.layers.is_empty()).collect()
        }
    };
    // A smaller group is never left with more.
    match groups.iter().min_by_key(|group| group.items) {
        Some(group) if group.keep == 0 => Err(empty(architecture, target.ratio, group)),
        _ => Ok(groups),
    }
}

/// Every layer but the classifier, or every convolution.
fn prunable(architecture: &Architecture, linear: bool) -> Vec<usize> {
    let conv = |layer: usize| architecture.params[architecture.layers[layer].weight].role == Role::ConvWeight;
    (0..architecture.layers.len().saturating_sub(1)).filter(|&layer| linear || conv(layer)).collect()
}

/// The scale behind a layer, as an index into the parameters.
fn scale(architecture: &Architecture, target: &Target, layer: &LayerSpec) -> Result<usize> {
    let missing = || {
        Error::Usage(format!(
            "scheme '{}' needs batch normalisation behind every layer; network '{}' has none behind {}; use {}",
            target.scheme,
            architecture.network,
            layer.name,
            Scheme::Filter
        ))
    };
    layer.norm.map(|norm| norm.gamma).ok_or_else(missing)
}

/// How many of `items` are left.
fn keep(items: usize, ratio: f64) -> usize {
    items - (items as f64 * ratio).round() as usize
}

fn empty(architecture: &Architecture, ratio: f64, group: &Group) -> Error {
    let items = match group.slice {
        Slice::Element if group.scores_weights(architecture) => "weights",
        Slice::Element | Slice::Row => "filters",
        Slice::Column => "columns",
    };
    // Rounded down, so that what is printed works.
    let most = ((1.0 - 1.0 / group.items as f64) * 1e4).floor() / 1e4;
    Error::Usage(format!(
        "ratio: {ratio} would leave {} ({} {items}) empty; use at most {most}",
        architecture.layers[group.layers[0]].name, group.items
    ))
}
