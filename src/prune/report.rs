//! Sparsity of a pruned network: the weights, filters and multiply-adds that are left.

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::nn::models::{Architecture, Model};
use crate::nn::params::{LayerSpec, Role};

/// Sparsity of one layer.
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

/// Sparsity of a network.
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
        let architecture = model.architecture();
        let values: Vec<Vec<f32>> = model.params().iter().map(|p| p.values(backend)).collect();
        let count = |layer: &LayerSpec| LayerSparsity::of(architecture, layer, &values[layer.weight]);
        let layers: Vec<LayerSparsity> = architecture.layers.iter().map(count).collect();
        let is_conv = |layer: &LayerSpec| architecture.params[layer.weight].role == Role::ConvWeight;
        let convs = architecture.layers.iter().zip(&layers).filter(|(spec, _)| is_conv(spec)).map(|(_, layer)| layer);
        let (conv_weights, conv_kept) = convs.fold((0, 0), |(all, kept), l| (all + l.weights, kept + l.weights_kept));
        let (parameters, parameters_kept) = (architecture.parameters(), values.iter().map(|v| nonzero(v)).sum());
        SparsityReport {
            parameters,
            parameters_kept,
            conv_compression: times(conv_weights, conv_kept),
            compression: times(parameters, parameters_kept),
            multiply_adds: architecture.multiply_adds,
            multiply_adds_kept: layers.iter().map(|l| l.multiply_adds_kept).sum(),
            layers,
        }
    }

    /// An aligned table, one line a layer, and a line of totals; ends in a newline.
    pub fn text(&self) -> String {
        let header = ["layer", "filters", "columns", "weights", "multiply-adds", "compression"];
        let mut rows = vec![header.map(str::to_string)];
        rows.extend(self.layers.iter().map(LayerSparsity::cells));
        let widths: [usize; 6] = std::array::from_fn(|c| rows.iter().map(|row| row[c].len()).max().unwrap_or(0));
        let mut text = String::new();
        for row in &rows {
            let [first, others @ ..] = row;
            text += &format!("{first:<width$}", width = widths[0]);
            for (cell, &width) in others.iter().zip(&widths[1..]) {
                text += &format!("  {cell:>width$}");
            }
            text.push('\n');
        }
        text += &format!(
            "conv layers {:.1}x, network {:.1}x, multiply-adds {} of {}\n",
            self.conv_compression,
            self.compression,
            short(self.multiply_adds_kept),
            short(self.multiply_adds)
        );
        text
    }
}

impl LayerSparsity {
    fn of(architecture: &Architecture, layer: &LayerSpec, weight: &[f32]) -> Self {
        let filters = architecture.params[layer.weight].shape[0];
        let columns = weight.len() / filters;
        let mut column_kept = vec![false; columns];
        let mut filters_kept = 0;
        for row in weight.chunks_exact(columns) {
            filters_kept += usize::from(nonzero(row) > 0);
            column_kept.iter_mut().zip(row).for_each(|(kept, &w)| *kept |= w != 0.0);
        }
        let weights_kept = nonzero(weight);
        // Each weight is used once at every position of the output.
        let positions = layer.multiply_adds / weight.len() as u64;
        LayerSparsity {
            name: layer.name.clone(),
            filters,
            filters_kept,
            columns,
            columns_kept: column_kept.into_iter().filter(|&kept| kept).count(),
            weights: weight.len(),
            weights_kept,
            multiply_adds: layer.multiply_adds,
            multiply_adds_kept: weights_kept as u64 * positions,
        }
    }

    /// Of its line in the table.
    fn cells(&self) -> [String; 6] {
        [
            self.name.clone(),
            format!("{}/{}", self.filters_kept, self.filters),
            format!("{}/{}", self.columns_kept, self.columns),
            format!("{}/{}", self.weights_kept, self.weights),
            format!("{} of {}", short(self.multiply_adds_kept), short(self.multiply_adds)),
            format!("{:.1}x", times(self.weights, self.weights_kept)),
        ]
    }
}

/// Number of elements that are not zero; NaN counts.
fn nonzero(values: &[f32]) -> usize {
    values.iter().filter(|&&v| v != 0.0).count()
}

/// How many times less. Finite, because JSON has no infinity.
fn times(all: usize, kept: usize) -> f64 {
    all as f64 / kept.max(1) as f64
}

/// `640`, `12.5 k`, `35.2 M`.
pub fn short(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        _ => format!("{:.1} M", count as f64 / 1e6),
    }
}
