//! The inner loop of convolutions, forward and input gradient: a cross-correlation.
//!
//! For every output position `(channel, row, col)` of a block of images
//!
//! ```text
//! y[channel, row, col] = bias[channel] + Σ_tap w[channel, tap] * x[row * x_row + col + taps[tap]]
//! ```
//!
//! where `x` and `y` hold one vector of [`LANES`] images per pixel. What differs between a convolution and its input
//! gradient, of any stride, is only the list of taps and where the outputs go.

use std::ops::Range;

use super::packing::PANEL;
use crate::backend::Activation;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::{Element, activate};

/// The job for some rows of outputs of one block of images.
pub struct Correlate<'a, T> {
    /// Offsets of the taps into the padded input, in pixels.
    pub taps: &'a [u32],
    pub x: &'a [[T; LANES]],
    /// Pixels between inputs of neighbouring output rows; those of neighbouring columns are neighbours.
    pub x_row: usize,
    /// Weights of the taps, packed as [`super::Packing::whole`] of the channels and the taps.
    pub w: &'a [[T; PANEL]],
    pub bias: Option<&'a [T]>,
    pub activation: Activation,
    /// The output channels, of those that are packed.
    pub channels: Range<usize>,
    pub rows: usize,
    pub cols: usize,
    pub y: &'a mut [[T; LANES]],
    /// First output pixel of the first channel, and the pixels between output channels, rows and columns.
    pub y_first: usize,
    pub y_channel: usize,
    pub y_row: usize,
    pub y_col: usize,
}

impl<T: Element> Correlate<'_, T> {
    /// The definition, term by term.
    pub fn plain(self) {
        for (i, channel) in self.channels.enumerate() {
            let panel = &self.w[channel / PANEL * self.taps.len()..][..self.taps.len()];
            for row in 0..self.rows {
                for col in 0..self.cols {
                    let mut sum = [self.bias.map_or(T::zero(), |b| b[channel]); LANES];
                    for (&tap, w) in self.taps.iter().zip(panel) {
                        let x = &self.x[row * self.x_row + col + tap as usize];
                        sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += w[channel % PANEL] * x);
                    }
                    let y = self.y_first + i * self.y_channel + row * self.y_row + col * self.y_col;
                    self.y[y] = sum.map(|sum| activate(self.activation, sum));
                }
            }
        }
    }
}
