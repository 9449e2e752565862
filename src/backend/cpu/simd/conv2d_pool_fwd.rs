//! [`Conv2dPoolFwd`] with a register tile of one channel and two rows of outputs, which become windows without leaving the
//! registers. A row of the input under both is loaded once for both: per load two multiply-adds.

use pulp::Simd;

use super::pool::maximum;
use super::{activate, per_pixel, registers, registers_mut};
use crate::backend::cpu::jobs::{Conv2dPoolFwd, PANEL};

impl pulp::WithSimd for Conv2dPoolFwd<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let cols = 2 * self.cols * per_pixel::<S>();
        let wasted = |tile: usize| cols.div_ceil(tile) * tile - cols;
        if S::REGISTER_COUNT >= 32 && cols >= 14 && wasted(14) <= wasted(8) {
            register_tiles::<S, 14>(simd, &mut self);
        } else if S::REGISTER_COUNT >= 32 && cols >= 8 {
            register_tiles::<S, 8>(simd, &mut self);
        } else if cols >= 4 {
            register_tiles::<S, 4>(simd, &mut self);
        } else {
            register_tiles::<S, 2>(simd, &mut self);
        }
    }
}

/// Covers the windows with register tiles; the last one overlaps the one before where the size does not divide.
#[inline(always)]
fn register_tiles<S: Simd, const COLS: usize>(simd: S, job: &mut Conv2dPoolFwd<'_, f32>) {
    let cols = 2 * job.cols * per_pixel::<S>();
    for channel in job.channels.clone() {
        for col in (0..cols).step_by(COLS) {
            register_tile::<S, COLS>(simd, job, channel, col.min(cols - COLS));
        }
    }
}

/// `COLS` registers of either row from register `col` on.
#[inline(always)]
fn register_tile<S: Simd, const COLS: usize>(simd: S, job: &mut Conv2dPoolFwd<'_, f32>, channel: usize, col: usize) {
    let pixel = per_pixel::<S>();
    let x = &registers::<S>(job.x)[col..];
    let panel = &job.w[channel / PANEL * job.taps.len()..][..job.taps.len()];
    let weight = |w: &[f32; PANEL]| simd.splat_f32s(w[channel % PANEL]);
    let bias = simd.splat_f32s(job.bias.map_or(0.0, |bias| bias[channel]));
    let (mut upper, mut lower) = ([bias; COLS], [bias; COLS]);
    let k = job.k;
    for (taps, weights) in job.taps.chunks_exact(k * k).zip(panel.chunks_exact(k * k)) {
        for (&tap, w) in taps[..k].iter().zip(weights) {
            let (x, w) = (&x[tap as usize * pixel..][..COLS], weight(w));
            unroll!(I < COLS, { upper[I] = simd.mul_add_f32s(x[I], w, upper[I]) });
        }
        // A row of the input is under one row of weights for the upper row, and under the row of weights before for the lower one.
        for ((&tap, w), before) in taps[k..].iter().zip(&weights[k..]).zip(weights) {
            let (x, w, before) = (&x[tap as usize * pixel..][..COLS], weight(w), weight(before));
            unroll!(I < COLS, {
                upper[I] = simd.mul_add_f32s(x[I], w, upper[I]);
                lower[I] = simd.mul_add_f32s(x[I], before, lower[I]);
            });
        }
        for (&tap, w) in taps[k * k - k..].iter().zip(&weights[k * k - k..]) {
            let (x, w) = (&x[(tap as usize + job.x_row) * pixel..][..COLS], weight(w));
            unroll!(I < COLS, { lower[I] = simd.mul_add_f32s(x[I], w, lower[I]) });
        }
    }
    let at = (channel - job.channels.start) * job.y_channel * pixel + col / 2;
    let (y, indices) = (&mut registers_mut::<S>(job.y)[at..], &mut registers_mut::<S>(job.indices)[at..]);
    let (y, indices) = (&mut y[..COLS / 2], &mut indices[..COLS / 2]);
    unroll!(I < COLS / 2, {
        // Of a pixel's registers this is number `I % pixel`.
        let left = (I - I % pixel) * 2 + I % pixel;
        let pixels = [upper[left], upper[left + pixel], lower[left], lower[left + pixel]];
        let (max, index) = maximum(simd, pixels);
        (y[I], indices[I]) = (activate(simd, job.activation, max), index);
    });
}
