//! Convolution of stride 1, activation and 2×2 max pooling in one go.

use std::ops::Range;

use super::packing::PANEL;
use super::pool::FIRST_INDEX;
use crate::backend::Activation;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::{Element, activate};

/// The job for one row of windows of one block of images: the outputs of [`super::Correlate`] under a window, of which only the
/// largest is written. The activation must not fall anywhere, so it is that of the largest.
pub struct Conv2dPoolFwd<'a, T> {
    /// Offsets of the taps into the padded input, in pixels, row by row of a filter of `k` rows.
    pub taps: &'a [u32],
    pub k: usize,
    pub x: &'a [[T; LANES]],
    /// Pixels between the rows of the input.
    pub x_row: usize,
    /// Weights of the taps, packed as [`super::Packing::whole`] of the channels and the taps.
    pub w: &'a [[T; PANEL]],
    pub bias: Option<&'a [T]>,
    pub activation: Activation,
    /// The output channels, of those that are packed.
    pub channels: Range<usize>,
    /// Windows of the row.
    pub cols: usize,
    /// Of the first channel's windows of this row; those of the next channel are `y_channel` further.
    pub y: &'a mut [[T; LANES]],
    pub indices: &'a mut [[T; LANES]],
    pub y_channel: usize,
}

impl<T: Element> Conv2dPoolFwd<'_, T> {
    /// The definition, term by term. A NaN is larger than any number and stays, because no number is larger.
    pub fn plain(self) {
        for (i, channel) in self.channels.enumerate() {
            let panel = &self.w[channel / PANEL * self.taps.len()..][..self.taps.len()];
            for col in 0..self.cols {
                let (mut max, mut index) = ([T::zero(); LANES], [T::of(FIRST_INDEX); LANES]);
                for q in 0..4 {
                    let mut sum = [self.bias.map_or(T::zero(), |b| b[channel]); LANES];
                    for (&tap, w) in self.taps.iter().zip(panel) {
                        let x = &self.x[q / 2 * self.x_row + 2 * col + q % 2 + tap as usize];
                        sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += w[channel % PANEL] * x);
                    }
                    for l in 0..LANES {
                        if q == 0 || sum[l] > max[l] || sum[l].is_nan() {
                            (max[l], index[l]) = (sum[l], T::of(FIRST_INDEX + q as f32));
                        }
                    }
                }
                let at = i * self.y_channel + col;
                (self.y[at], self.indices[at]) = (max.map(|max| activate(self.activation, max)), index);
            }
        }
    }
}
