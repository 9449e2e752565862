//! The weight gradient of a convolution.

use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::Element;

/// For some output channels and all taps, of some blocks of images, added to `dw`:
/// `dw[channel, tap] += Σ_(block, row, col, lane) dy[channel, row, col] * x[row * x_row + col * x_col + taps[tap]]`.
pub struct Conv2dBwdWeight<'a, T> {
    /// Offsets of the taps into the padded input, in pixels.
    pub taps: &'a [u32],
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

impl<T: Element> Conv2dBwdWeight<'_, T> {
    /// The definition, term by term; the sum over the lanes comes last.
    pub fn plain(self) {
        let positions = self.rows * self.cols;
        for (channel, dw) in self.dw.chunks_exact_mut(self.taps.len()).enumerate() {
            for (&tap, dw) in self.taps.iter().zip(dw) {
                let mut sum = [T::zero(); LANES];
                for block in 0..self.blocks {
                    let dy = &self.dy[block * self.dy_block + channel * positions..][..positions];
                    let x = &self.x[block * self.x_block + tap as usize..];
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
