//! The one inner loop of convolutions and linear layers, forward and input gradient.
//!
//! For every output position `(channel, row, col)` of a block of images
//!
//! ```text
//! y[channel, row, col] = bias[channel] + Σ_tap w[channel * w_channel + tap.w] * x[row * x_row + col * x_col + tap.x]
//! ```
//!
//! where `x` and `y` hold one vector of [`LANES`] images per pixel. What differs between a convolution, its input
//! gradient (of any stride) and a matrix product is only the list of taps and the strides.

use super::real::relu;
use super::{LANES, Real};

/// One term of the sum: offsets into the padded input (in pixels) and into the weight.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    pub x: u32,
    pub w: u32,
}

/// What one call computes for one block of images.
pub struct Correlate<'a, T> {
    pub taps: &'a [Tap],
    pub x: &'a [[T; LANES]],
    /// Pixels between inputs of neighbouring output rows and columns.
    pub x_row: usize,
    pub x_col: usize,
    pub w: &'a [T],
    /// Elements of `w` between output channels.
    pub w_channel: usize,
    pub bias: Option<&'a [T]>,
    pub relu: bool,
    pub channels: usize,
    pub rows: usize,
    pub cols: usize,
    pub y: &'a mut [[T; LANES]],
    /// First output pixel and the pixels between output channels, rows and columns.
    pub y_first: usize,
    pub y_channel: usize,
    pub y_row: usize,
    pub y_col: usize,
}

impl<T: Real> Correlate<'_, T> {
    /// The definition, term by term.
    pub fn plain(self) {
        for channel in 0..self.channels {
            for row in 0..self.rows {
                for col in 0..self.cols {
                    let mut sum = [self.bias.map_or(T::zero(), |b| b[channel]); LANES];
                    for tap in self.taps {
                        let w = self.w[channel * self.w_channel + tap.w as usize];
                        let x = &self.x[row * self.x_row + col * self.x_col + tap.x as usize];
                        sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += w * x);
                    }
                    let y = self.y_first + channel * self.y_channel + row * self.y_row + col * self.y_col;
                    self.y[y] = if self.relu { sum.map(relu) } else { sum };
                }
            }
        }
    }
}

/// The weight gradient of the same sum, for some output channels and all taps, of some blocks of images, added to `dw`:
/// `dw[channel, tap] += Σ_(block, row, col, lane) dy[channel, row, col] * x[row * x_row + col * x_col + tap.x]`.
pub struct CorrelateWeight<'a, T> {
    pub taps: &'a [Tap],
    pub blocks: usize,
    pub x: &'a [[T; LANES]],
    /// Pixels between blocks, and between inputs of neighbouring output rows and columns.
    pub x_block: usize,
    pub x_row: usize,
    pub x_col: usize,
    /// `[channels][rows][cols]` for each block.
    pub dy: &'a [[T; LANES]],
    pub dy_block: usize,
    pub rows: usize,
    pub cols: usize,
    /// `[channels][taps]`.
    pub dw: &'a mut [T],
}

impl<T: Real> CorrelateWeight<'_, T> {
    /// The definition, term by term; the sum over the lanes comes last.
    pub fn plain(self) {
        let positions = self.rows * self.cols;
        for (channel, dw) in self.dw.chunks_exact_mut(self.taps.len()).enumerate() {
            for (tap, dw) in self.taps.iter().zip(dw) {
                let mut sum = [T::zero(); LANES];
                for block in 0..self.blocks {
                    let dy = &self.dy[block * self.dy_block + channel * positions..][..positions];
                    let x = &self.x[block * self.x_block + tap.x as usize..];
                    for (i, dy) in dy.iter().enumerate() {
                        let x = &x[i / self.cols * self.x_row + i % self.cols * self.x_col];
                        for l in 0..LANES {
                            sum[l] += dy[l] * x[l];
                        }
                    }
                }
                *dw += sum.iter().fold(T::zero(), |sum, &v| sum + v);
            }
        }
    }
}
