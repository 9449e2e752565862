//! The matrix product of linear layers, forward and input gradient.
//!
//! For every block of images `y = activation(bias + A x)`: `A` is the layer's weight, or its transpose, packed in pieces of
//! [`DEPTH`] inputs, which stay in the first-level cache while all rows go by. So a product reads `A` from the beginning to
//! the end, with one address.

use std::ops::Range;

use super::packing::{PANEL, Packing};
use crate::backend::Activation;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::{Element, activate};

/// Inputs of a block that stay in the first-level cache: 16 KiB in f32.
pub const DEPTH: usize = 256;

/// The product for some blocks of images.
pub struct Gemm<'a, T> {
    pub packing: Packing,
    /// The rows, from the first of a panel to the last of one.
    pub rows: Range<usize>,
    pub a: &'a [[T; PANEL]],
    /// Of every row.
    pub bias: Option<&'a [T]>,
    pub activation: Activation,
    /// `[blocks][depth]`.
    pub x: &'a [[T; LANES]],
    /// `[blocks][rows]`.
    pub y: &'a mut [[T; LANES]],
}

impl<T: Element> Gemm<'_, T> {
    /// The definition, term by term.
    pub fn plain(self) {
        let depth = self.packing.depth;
        for (x, y) in self.x.chunks_exact(depth).zip(self.y.chunks_exact_mut(self.rows.len())) {
            let bias = |row: usize| self.bias.map_or(T::zero(), |b| b[row]);
            y.iter_mut().zip(self.rows.clone()).for_each(|(y, row)| *y = [bias(row); LANES]);
            for (first, panels) in self.packing.pieces(self.a) {
                for (panel, y) in panels.skip(self.rows.start / PANEL).zip(y.chunks_mut(PANEL)) {
                    for (weights, x) in panel.iter().zip(&x[first..]) {
                        for (&w, y) in weights.iter().zip(&mut *y) {
                            y.iter_mut().zip(x).for_each(|(y, &x)| *y += w * x);
                        }
                    }
                }
            }
            y.as_flattened_mut().iter_mut().for_each(|y| *y = activate(self.activation, *y));
        }
    }
}
