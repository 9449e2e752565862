//! What is left of a pruned network.

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::models::Model;

/// What is left of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSparsity {
    /// PyTorch's name.
    pub name: String,
    /// Outputs, and those with a weight left.
    pub filters: usize,
    pub filters_kept: usize,
    /// Weights of one output, and those positions that some output has left.
    pub columns: usize,
    pub columns_kept: usize,
    /// Weights, and those left.
    pub weights: usize,
    pub weights_kept: usize,
    /// Multiply-adds of one image, and those with a weight that is left.
    pub multiply_adds: u64,
    pub multiply_adds_kept: u64,
}

/// What is left of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SparsityReport {
    /// Every convolution and fully connected layer.
    pub layers: Vec<LayerSparsity>,
    /// Trainable parameters, and those that are not zero.
    pub parameters: usize,
    pub parameters_kept: usize,
    /// Weights of the convolutions over those left: 16 is "16x".
    pub conv_compression: f64,
    /// The same of all parameters.
    pub compression: f64,
    /// Of the forward pass of one image, and those with a weight that is left.
    pub multiply_adds: u64,
    pub multiply_adds_kept: u64,
}

impl SparsityReport {
    /// Counts the zeros of `model`.
    pub fn of<B: Backend>(backend: &B, model: &Model<B>) -> Self {
        let _ = (backend, model);
        todo!()
    }
}
