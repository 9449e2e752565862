//! [`Correlate`] with a register tile of outputs.
//!
//! While the taps go by, `CHANNELS × COLS` sums stay in registers: per tap, `COLS` loads, `CHANNELS` broadcasts and
//! `CHANNELS × COLS` multiply-adds. Both AVX-512 (32 registers) and AVX2 (16) do two multiply-adds and two loads a
//! cycle, and a sum is ready again after four cycles: a tile needs eight sums or more, and fewer loads than
//! multiply-adds.
//!
//! A column of the tile is a register. With AVX2 a pixel has two of them, which lie side by side like two columns.

use pulp::Simd;

use super::{activate, per_pixel, registers, registers_mut};
use crate::backend::cpu::jobs::Correlate;

impl pulp::WithSimd for Correlate<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.x_col == 1 && self.y_col == 1 {
            all::<S, true>(simd, &mut self);
        } else {
            all::<S, false>(simd, &mut self);
        }
    }
}

/// Chooses the register tile. `DENSE`: inputs and outputs of neighbouring columns are neighbours in memory.
#[inline(always)]
fn all<S: Simd, const DENSE: bool>(simd: S, job: &mut Correlate<'_, f32>) {
    let cols = job.cols * per_pixel::<S>();
    if S::REGISTER_COUNT >= 32 {
        match (job.channels, cols) {
            (1, _) if cols.is_multiple_of(28) => register_tiles::<S, DENSE, 1, 28, 28>(simd, job),
            (1, _) if cols.is_multiple_of(14) => register_tiles::<S, DENSE, 1, 14, 14>(simd, job),
            (1, 8..) => register_tiles::<S, DENSE, 1, 8, 8>(simd, job),
            (1, 4..) => register_tiles::<S, DENSE, 1, 4, 4>(simd, job),
            (_, _) if cols.is_multiple_of(14) => register_tiles::<S, DENSE, 2, 14, 28>(simd, job),
            (4.., _) if cols.is_multiple_of(6) => register_tiles::<S, DENSE, 4, 6, 24>(simd, job),
            (4.., _) if cols.is_multiple_of(5) => register_tiles::<S, DENSE, 4, 5, 20>(simd, job),
            (4.., 4..) => register_tiles::<S, DENSE, 4, 4, 16>(simd, job),
            (_, 4..) => register_tiles::<S, DENSE, 2, 4, 8>(simd, job),
            (8.., 2..) => register_tiles::<S, DENSE, 8, 2, 16>(simd, job),
            (16.., _) if job.w_channel == 1 => register_tiles::<S, DENSE, 16, 1, 16>(simd, job),
            (8.., _) => register_tiles::<S, DENSE, 8, 1, 8>(simd, job),
            (2.., _) => register_tiles::<S, DENSE, 2, 1, 2>(simd, job),
            _ => register_tiles::<S, DENSE, 1, 1, 1>(simd, job),
        }
    } else {
        match (job.channels, cols) {
            (1, 8..) => register_tiles::<S, DENSE, 1, 8, 8>(simd, job),
            (1, 4..) => register_tiles::<S, DENSE, 1, 4, 4>(simd, job),
            (_, 4..) if !cols.is_multiple_of(6) && cols.is_multiple_of(4) && cols < 20 => {
                register_tiles::<S, DENSE, 2, 4, 8>(simd, job)
            }
            (_, 6..) => register_tiles::<S, DENSE, 2, 6, 12>(simd, job),
            (_, 4..) => register_tiles::<S, DENSE, 2, 4, 8>(simd, job),
            (6.., _) => register_tiles::<S, DENSE, 6, 2, 12>(simd, job),
            (2.., _) => register_tiles::<S, DENSE, 2, 2, 4>(simd, job),
            _ => register_tiles::<S, DENSE, 1, 2, 2>(simd, job),
        }
    }
}

/// Covers the outputs with register tiles. The last one of a row or of the channels overlaps the one before where the size
/// does not divide: computing a few outputs twice needs no second, narrower loop.
#[inline(always)]
fn register_tiles<S: Simd, const DENSE: bool, const CHANNELS: usize, const COLS: usize, const SUMS: usize>(
    simd: S,
    job: &mut Correlate<'_, f32>,
) {
    let cols = job.cols * per_pixel::<S>();
    for row in 0..job.rows {
        for channel in (0..job.channels).step_by(CHANNELS) {
            let channel = channel.min(job.channels - CHANNELS);
            for col in (0..cols).step_by(COLS) {
                register_tile::<S, DENSE, CHANNELS, COLS, SUMS>(simd, job, channel, row, col.min(cols - COLS));
            }
        }
    }
}

/// `SUMS` is `CHANNELS * COLS`, the sums of one column after the other.
#[inline(always)]
fn register_tile<S: Simd, const DENSE: bool, const CHANNELS: usize, const COLS: usize, const SUMS: usize>(
    simd: S,
    job: &mut Correlate<'_, f32>,
    channel: usize,
    row: usize,
    col: usize,
) {
    let pixel = per_pixel::<S>();
    // Registers from the tile's first column to its column `i`, for neighbours that are `stride` pixels apart.
    let at = |i: usize, stride: usize| {
        if DENSE { i } else { ((col + i) / pixel - col / pixel) * stride * pixel + (col + i) % pixel - col % pixel }
    };
    let x_first = (row * job.x_row + col / pixel * job.x_col) * pixel + col % pixel;
    let x = &registers::<S>(job.x)[x_first..];
    let w = &job.w[channel * job.w_channel..];
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    if let Some(bias) = job.bias {
        unroll!(I < SUMS, { sums[I] = simd.splat_f32s(bias[channel + I % CHANNELS]) });
    }
    let span = at(COLS - 1, job.x_col) + 1;
    let rows = job.rows_of_weights::<CHANNELS>(channel);
    if let Some(rows) = rows.filter(|_| COLS == pixel) {
        for (i, tap) in job.taps.iter().enumerate() {
            let x = &x[tap.x as usize * pixel..][..span];
            unroll!(I < SUMS, {
                sums[I] = simd.mul_add_f32s(x[I / CHANNELS], simd.splat_f32s(rows[I % CHANNELS][i]), sums[I]);
            });
        }
    } else if job.w_channel == 1 {
        for tap in job.taps {
            let (x, w) = (&x[tap.x as usize * pixel..][..span], &w[tap.w as usize..][..CHANNELS]);
            unroll!(I < SUMS, {
                let x = x[at(I / CHANNELS, job.x_col)];
                sums[I] = simd.mul_add_f32s(x, simd.splat_f32s(w[I % CHANNELS]), sums[I]);
            });
        }
    } else {
        for tap in job.taps {
            let x = &x[tap.x as usize * pixel..][..span];
            let mut weights = [simd.splat_f32s(0.0); CHANNELS];
            unroll!(C < CHANNELS, { weights[C] = simd.splat_f32s(w[C * job.w_channel + tap.w as usize]) });
            unroll!(I < SUMS, {
                sums[I] = simd.mul_add_f32s(x[at(I / CHANNELS, job.x_col)], weights[I % CHANNELS], sums[I]);
            });
        }
    }
    let y_first =
        (job.y_first + channel * job.y_channel + row * job.y_row + col / pixel * job.y_col) * pixel + col % pixel;
    let y = &mut registers_mut::<S>(job.y)[y_first..];
    unroll!(I < SUMS, {
        let to = &mut y[I % CHANNELS * job.y_channel * pixel + at(I / CHANNELS, job.y_col)];
        *to = activate(simd, job.activation, sums[I]);
    });
}

impl Correlate<'_, f32> {
    /// For a matrix product, in which every weight is used once: the rows of the weight from `channel` on. A row that is a
    /// slice needs no address and no check for each of its elements.
    #[inline(always)]
    fn rows_of_weights<const CHANNELS: usize>(&self, channel: usize) -> Option<[&[f32]; CHANNELS]> {
        let n = self.taps.len();
        // Taps come in the order of their weights, each of another: n of them up to number n - 1 are all.
        let in_order =
            self.rows * self.cols == 1 && n > 0 && self.w_channel == n && self.taps[n - 1].w as usize == n - 1;
        in_order.then(|| {
            let mut rows: [&[f32]; CHANNELS] = [&[]; CHANNELS];
            unroll!(C < CHANNELS, { rows[C] = &self.w[(channel + C) * n..][..n] });
            rows
        })
    }
}
