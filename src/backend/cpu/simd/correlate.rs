//! [`Correlate`] with a register tile of outputs.
//!
//! While the taps go by, `CHANNELS × COLS` sums stay in registers: per tap, `COLS` loads, `CHANNELS` broadcasts and
//! `CHANNELS × COLS` multiply-adds. Both AVX-512 (32 registers) and AVX2 (16) do two multiply-adds and two loads a
//! cycle, and a sum is ready again after four cycles: a tile needs eight sums or more, and fewer loads than
//! multiply-adds. More channels mean fewer loads from the second-level cache, where wide layers have their inputs.
//!
//! A column of the tile is a register. With AVX2 a pixel has two of them, which lie side by side like two columns.

use pulp::Simd;

use super::{activate, per_pixel, registers, registers_mut};
use crate::backend::cpu::jobs::{Correlate, PANEL};

impl pulp::WithSimd for Correlate<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let job = &mut self;
        let cols = job.cols * per_pixel::<S>();
        if S::REGISTER_COUNT >= 32 {
            match (job.channels.len(), cols) {
                (1, _) if cols.is_multiple_of(28) => register_tiles::<S, 1, 28, 28>(simd, job),
                (1, _) if cols.is_multiple_of(14) => register_tiles::<S, 1, 14, 14>(simd, job),
                (1, 8..) => register_tiles::<S, 1, 8, 8>(simd, job),
                (1, 4..) => register_tiles::<S, 1, 4, 4>(simd, job),
                (2.., _) if cols.is_multiple_of(14) => register_tiles::<S, 2, 14, 28>(simd, job),
                (8.., 24..) => register_tiles::<S, 8, 3, 24>(simd, job),
                (5.., 2..) => register_tiles::<S, 8, 2, 16>(simd, job),
                (3.., _) if cols.is_multiple_of(6) => register_tiles::<S, 4, 6, 24>(simd, job),
                (3.., _) if cols.is_multiple_of(5) => register_tiles::<S, 4, 5, 20>(simd, job),
                (3.., 4..) => register_tiles::<S, 4, 4, 16>(simd, job),
                (2.., 8..) => register_tiles::<S, 2, 8, 16>(simd, job),
                (2.., 4..) => register_tiles::<S, 2, 4, 8>(simd, job),
                (9.., _) => register_tiles::<S, 16, 1, 16>(simd, job),
                (5.., _) => register_tiles::<S, 8, 1, 8>(simd, job),
                (2.., _) => register_tiles::<S, 4, 1, 4>(simd, job),
                _ => register_tiles::<S, 1, 1, 1>(simd, job),
            }
        } else {
            match (job.channels.len(), cols) {
                (1, 8..) => register_tiles::<S, 1, 8, 8>(simd, job),
                (1, 4..) => register_tiles::<S, 1, 4, 4>(simd, job),
                (_, 4..) if !cols.is_multiple_of(6) && cols.is_multiple_of(4) && cols < 20 => {
                    register_tiles::<S, 2, 4, 8>(simd, job)
                }
                (_, 6..) => register_tiles::<S, 2, 6, 12>(simd, job),
                (_, 4..) => register_tiles::<S, 2, 4, 8>(simd, job),
                (2.., _) => register_tiles::<S, 4, 2, 8>(simd, job),
                _ => register_tiles::<S, 1, 2, 2>(simd, job),
            }
        }
    }
}

/// Covers the outputs with register tiles. The last one of a row overlaps the one before where the size does not divide: computing
/// a few outputs twice needs no second, narrower loop. The last one of the channels has some without weights.
#[inline(always)]
fn register_tiles<S: Simd, const CHANNELS: usize, const COLS: usize, const SUMS: usize>(
    simd: S,
    job: &mut Correlate<'_, f32>,
) {
    let cols = job.cols * per_pixel::<S>();
    for row in 0..job.rows {
        for channel in job.channels.clone().step_by(CHANNELS) {
            for col in (0..cols).step_by(COLS) {
                register_tile::<S, CHANNELS, COLS, SUMS>(simd, job, channel, row, col.min(cols - COLS));
            }
        }
    }
}

/// `SUMS` is `CHANNELS * COLS`, the sums of one column after the other.
#[inline(always)]
fn register_tile<S: Simd, const CHANNELS: usize, const COLS: usize, const SUMS: usize>(
    simd: S,
    job: &mut Correlate<'_, f32>,
    channel: usize,
    row: usize,
    col: usize,
) {
    let pixel = per_pixel::<S>();
    let x = &registers::<S>(job.x)[row * job.x_row * pixel + col..];
    let panel = &job.w[channel / PANEL * job.taps.len()..][..job.taps.len()];
    let first = channel % PANEL;
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    if let Some(bias) = job.bias {
        let mut biases = [0.0; CHANNELS];
        biases.iter_mut().zip(&bias[channel..]).for_each(|(to, &bias)| *to = bias);
        unroll!(I < SUMS, { sums[I] = simd.splat_f32s(biases[I % CHANNELS]) });
    }
    for (&tap, weights) in job.taps.iter().zip(panel) {
        let (x, weights) = (&x[tap as usize * pixel..][..COLS], &weights[first..][..CHANNELS]);
        // Of loads and broadcasts, the fewer stay in registers.
        if CHANNELS > COLS {
            unroll!(I < SUMS, {
                let at = I % COLS * CHANNELS + I / COLS;
                sums[at] = simd.mul_add_f32s(x[I % COLS], simd.splat_f32s(weights[I / COLS]), sums[at]);
            });
        } else {
            unroll!(I < SUMS, {
                sums[I] = simd.mul_add_f32s(x[I / CHANNELS], simd.splat_f32s(weights[I % CHANNELS]), sums[I]);
            });
        }
    }
    if job.channels.end - channel >= CHANNELS {
        store::<S, CHANNELS, COLS, SUMS, true>(simd, job, channel, row, col, sums);
    } else {
        store::<S, CHANNELS, COLS, SUMS, false>(simd, job, channel, row, col, sums);
    }
}

/// Writes the outputs of a tile; those of channels that there are, unless there are `ALL`.
#[inline(always)]
fn store<S: Simd, const CHANNELS: usize, const COLS: usize, const SUMS: usize, const ALL: bool>(
    simd: S,
    job: &mut Correlate<'_, f32>,
    channel: usize,
    row: usize,
    col: usize,
    sums: [S::f32s; SUMS],
) {
    let (pixel, real) = (per_pixel::<S>(), job.channels.end - channel);
    // Registers from the tile's first output to that of its column `i`.
    let at = |i: usize| ((col + i) / pixel - col / pixel) * job.y_col * pixel + (col + i) % pixel - col % pixel;
    let y_first =
        (job.y_first + (channel - job.channels.start) * job.y_channel + row * job.y_row + col / pixel * job.y_col)
            * pixel
            + col % pixel;
    let y = &mut registers_mut::<S>(job.y)[y_first..];
    unroll!(I < SUMS, {
        if ALL || I % CHANNELS < real {
            let to = &mut y[I % CHANNELS * job.y_channel * pixel + at(I / CHANNELS)];
            *to = activate(simd, job.activation, sums[I]);
        }
    });
}
