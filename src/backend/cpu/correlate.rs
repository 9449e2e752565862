//! The one inner loop of convolutions and linear layers, forward and input gradient.
//!
//! For every output position `(channel, row, col)` of a block of images
//!
//! ```text
//! y[channel, row, col] = bias[channel] + Σ_tap w[channel * w_stride + tap.w] * x[row * x_row + col * x_col + tap.x]
//! ```
//!
//! where `x` and `y` hold one vector of [`LANES`] images per pixel. What differs between a convolution, its input
//! gradient (of any stride) and a matrix product is only the list of taps and the strides.
//!
//! A tile of `CHANNELS × COLS` outputs stays in registers while the taps go by: per tap it loads `COLS` vectors,
//! broadcasts `CHANNELS` weights and does `CHANNELS × COLS` multiply-adds. With AVX2's 16 registers, two multiply-adds
//! and two loads a cycle, 2 × 5 (10 multiply-adds, 7 loads) and 2 × 4 are bound by arithmetic; 1 × 7 and the 8 × 1 of
//! matrix products nearly so.

// Plain index loops, not iterators or `array::map` and `array::from_fn`: closures are not inlined into a function with
// other target features than their own, and would take the values out of the registers at every element.
#![allow(clippy::needless_range_loop)]

use pulp::Simd;

use super::{LANES, Real};

/// One term of the sum: offsets into the padded input (in pixels) and into the weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub x: u32,
    pub w: u32,
}

/// What one call computes for one block of images.
pub(super) struct Correlate<'a, T> {
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

impl<T: Real> pulp::WithSimd for Correlate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.x_col == 1 { self.all::<S, true>(simd) } else { self.all::<S, false>(simd) }
    }
}

impl<T: Real> Correlate<'_, T> {
    #[inline(always)]
    fn all<S: Simd, const DENSE: bool>(&mut self, simd: S) {
        match (self.channels, self.cols) {
            (1, cols) if cols % 7 == 0 => self.tiles::<S, DENSE, 1, 7, 7>(simd),
            (_, cols) if cols % 7 == 0 => self.tiles::<S, DENSE, 2, 5, 10>(simd),
            (1, 4..) => self.tiles::<S, DENSE, 1, 4, 4>(simd),
            (_, 4..) => self.tiles::<S, DENSE, 2, 4, 8>(simd),
            (8.., _) => self.tiles::<S, DENSE, 8, 1, 8>(simd),
            (2.., _) => self.tiles::<S, DENSE, 2, 1, 2>(simd),
            _ => self.tiles::<S, DENSE, 1, 1, 1>(simd),
        }
    }

    /// Covers the outputs with tiles. The last tile of a row or of the channels overlaps the one before where the
    /// size does not divide: computing a few outputs twice needs no second, narrower loop.
    #[inline(always)]
    fn tiles<S: Simd, const DENSE: bool, const CHANNELS: usize, const COLS: usize, const TILE: usize>(
        &mut self,
        simd: S,
    ) {
        for channel in (0..self.channels).step_by(CHANNELS) {
            let channel = channel.min(self.channels - CHANNELS);
            for row in 0..self.rows {
                for col in (0..self.cols).step_by(COLS) {
                    self.tile::<S, DENSE, CHANNELS, COLS, TILE>(simd, channel, row, col.min(self.cols - COLS));
                }
            }
        }
    }

    /// `TILE` is `CHANNELS * COLS`. One flat array and plain index loops: this is the form that the compiler keeps in
    /// registers without writing it to the stack at every tap.
    #[inline(always)]
    fn tile<S: Simd, const DENSE: bool, const CHANNELS: usize, const COLS: usize, const TILE: usize>(
        &mut self,
        simd: S,
        channel: usize,
        row: usize,
        col: usize,
    ) {
        let x_col = if DENSE { 1 } else { self.x_col };
        let x = &self.x[row * self.x_row + col * x_col..];
        let w = &self.w[channel * self.w_channel..];
        let mut sums = [[T::zero(); LANES]; TILE];
        if let Some(bias) = self.bias {
            for i in 0..TILE {
                sums[i] = T::splat(simd, bias[channel + i % CHANNELS]);
            }
        }
        for tap in self.taps {
            let pixels = &x[tap.x as usize..][..(COLS - 1) * x_col + 1];
            let mut weights = [[T::zero(); LANES]; CHANNELS];
            for c in 0..CHANNELS {
                weights[c] = T::splat(simd, w[c * self.w_channel + tap.w as usize]);
            }
            for i in 0..TILE {
                sums[i] = T::mul_add_lanes(simd, pixels[i / CHANNELS * x_col], weights[i % CHANNELS], sums[i]);
            }
        }
        let first = self.y_first + channel * self.y_channel + row * self.y_row + col * self.y_col;
        for i in 0..TILE {
            let y = &mut self.y[first + i % CHANNELS * self.y_channel + i / CHANNELS * self.y_col];
            *y = if self.relu { T::relu_lanes(simd, sums[i]) } else { sums[i] };
        }
    }
}

/// The weight gradient of the same sum, for one output channel tile and all taps:
/// `dw[channel, tap] += Σ_(row, col, lane) dy[channel, row, col] * x[row * x_row + col * x_col + tap.x]`.
pub(super) struct CorrelateWeight<'a, T> {
    pub taps: &'a [Tap],
    pub x: &'a [[T; LANES]],
    pub x_row: usize,
    pub x_col: usize,
    /// `[channels][rows][cols]` of the tile's channels, one or two.
    pub dy: &'a [[T; LANES]],
    pub rows: usize,
    pub cols: usize,
    /// `[channels][taps]`.
    pub dw: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for CorrelateWeight<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let two_channels = self.dw.len() == 2 * self.taps.len();
        match (two_channels, self.taps.len()) {
            (true, 5..) => self.tiles::<S, 2, 5, 10>(simd),
            (true, _) => self.tiles::<S, 2, 1, 2>(simd),
            (false, 5..) => self.tiles::<S, 1, 5, 5>(simd),
            (false, _) => self.tiles::<S, 1, 1, 1>(simd),
        }
    }
}

impl<T: Real> CorrelateWeight<'_, T> {
    #[inline(always)]
    fn tiles<S: Simd, const CHANNELS: usize, const TAPS: usize, const TILE: usize>(&mut self, simd: S) {
        let count = self.taps.len();
        for first in (0..count).step_by(TAPS) {
            // The last tile starts earlier to stay inside; what it shares with the one before is not added again.
            let start = first.min(count - TAPS);
            let sums = self.tile::<S, CHANNELS, TAPS, TILE>(simd, start);
            for (i, sum) in sums.iter().enumerate() {
                let (c, t) = (i / TAPS, i % TAPS);
                if start + t >= first {
                    self.dw[c * count + start + t] += *sum;
                }
            }
        }
    }

    /// `TILE` is `CHANNELS * TAPS`, one flat array as in [`Correlate::tile`].
    #[inline(always)]
    fn tile<S: Simd, const CHANNELS: usize, const TAPS: usize, const TILE: usize>(
        &self,
        simd: S,
        start: usize,
    ) -> [T; TILE] {
        let mut offsets = [0; TAPS];
        for t in 0..TAPS {
            offsets[t] = self.taps[start + t].x as usize;
        }
        let plane = self.rows * self.cols;
        let mut sums = [[T::zero(); LANES]; TILE];
        for row in 0..self.rows {
            for col in 0..self.cols {
                let x = &self.x[row * self.x_row + col * self.x_col..];
                let dy = &self.dy[row * self.cols + col..];
                for i in 0..TILE {
                    sums[i] = T::mul_add_lanes(simd, dy[i / TAPS * plane], x[offsets[i % TAPS]], sums[i]);
                }
            }
        }
        let mut totals = [T::zero(); TILE];
        for i in 0..TILE {
            totals[i] = sums[i].iter().fold(T::zero(), |sum, &v| sum + v);
        }
        totals
    }
}
