//! A target laid over an architecture: which tensors are selected from together.

use super::Target;
use crate::error::Result;
use crate::models::Architecture;

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
/// [`crate::error::Error::Usage`] for a ratio outside [0, 1), a ratio that would leave a layer empty, or a scheme that
/// does not fit the network.
pub fn groups(architecture: &Architecture, target: &Target) -> Result<Vec<Group>> {
    let _ = (architecture, target);
    todo!()
}
