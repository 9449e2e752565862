//! Pruning: what to keep, how to train towards it, and what is left.
//!
//! A [`Target`] says which scheme prunes a network and how much; [`groups()`] lays it over an architecture. Everything else
//! works on groups: [`project()`] keeps the best of each, [`Admm`] trains towards the projection, [`Masks`] keep a pruned
//! network pruned, [`SparsityReport`] counts what is left and [`shrink()`] removes what is gone.

mod admm;
mod groups;
mod masks;
mod project;
mod report;
mod shrink;

pub use admm::{Admm, AdmmConfig};
pub use groups::{Group, Slice, groups};
pub use masks::Masks;
pub use project::{hard_prune, project, select};
pub use report::{LayerSparsity, SparsityReport, short};
pub use shrink::{Shrunk, shrink};

use serde::{Deserialize, Serialize};

use crate::base::named_enum::named_enum;

named_enum! {
    /// The unit that is kept or removed as a whole.
    pub enum Scheme: "pruning scheme" {
        /// Single weights, by magnitude.
        Irregular = "irregular",
        /// Output filters of a layer, by Euclidean norm, each layer on its own.
        Filter = "filter",
        /// Columns of a layer: the same position in all its filters, by Euclidean norm.
        Column = "column",
        /// Output filters, by the magnitude of the scale of the batch normalisation behind them.
        BnFilter = "bn-filter",
        /// Output filters, by the Euclidean norm over all layers that write to the same residual stream, so that the
        /// network can be shrunk.
        Tied = "tied",
    }
}

/// How much of a network is pruned, and in which way. Every layer but the classifier loses the same share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The unit that is kept or removed as a whole.
    pub scheme: Scheme,
    /// Share removed of each layer, in [0, 1); from width W to w it is 1 - w/W.
    pub ratio: f64,
    /// Prune fully connected layers too, except the classifier.
    pub linear: bool,
}
