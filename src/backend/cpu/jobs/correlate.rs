//! The inner loop of convolutions and linear layers, forward and input gradient: a cross-correlation.
//!
//! For every output position `(channel, row, col)` of a block of images
//!
//! ```text
//! y[channel, row, col] = bias[channel] + Σ_tap w[channel * w_channel + tap.w] * x[row * x_row + col * x_col + tap.x]
//! ```
//!
//! where `x` and `y` hold one vector of [`LANES`] images per pixel. What differs between a convolution, its input
//! gradient (of any stride) and a matrix product is only the list of taps and the strides.

use crate::backend::Activation;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::{Element, activate};

/// One term of the sum: offsets into the padded input (in pixels) and into the weight.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    pub x: u32,
    pub w: u32,
}

/// The taps that reach the output pixels `(row, col)`, `(row + stride, col)`, `(row, col + stride)` and so on.
pub struct Phase {
    pub row: usize,
    pub col: usize,
    pub taps: Vec<Tap>,
}

/// The job for one block of images.
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
    pub activation: Activation,
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

impl<T: Element> Correlate<'_, T> {
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
                    self.y[y] = sum.map(|sum| activate(self.activation, sum));
                }
            }
        }
    }
}
