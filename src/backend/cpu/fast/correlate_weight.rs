//! [`CorrelateWeight`] with a tile of `CHANNELS × TAPS` sums in registers: per position, `CHANNELS + TAPS` loads and
//! `CHANNELS × TAPS` multiply-adds.

use pulp::Simd;

use super::{per_pixel, registers};
use crate::backend::cpu::correlate::CorrelateWeight;

/// The job on vector registers.
pub struct Fast<'a>(pub CorrelateWeight<'a, f32>);

impl pulp::WithSimd for Fast<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut job = self.0;
        let taps = job.taps.len();
        match (job.dw.len() / taps, taps) {
            (4.., 5..) if S::REGISTER_COUNT >= 32 => tiles::<S, 4, 5, 20>(simd, &mut job),
            (2.., 5..) => tiles::<S, 2, 5, 10>(simd, &mut job),
            (1, 5..) => tiles::<S, 1, 5, 5>(simd, &mut job),
            (2.., _) => tiles::<S, 2, 1, 2>(simd, &mut job),
            _ => tiles::<S, 1, 1, 1>(simd, &mut job),
        }
    }
}

/// Covers channels and taps with tiles. The last ones start earlier to stay inside; what they share with those before
/// is not added again.
#[inline(always)]
fn tiles<S: Simd, const CHANNELS: usize, const TAPS: usize, const TILE: usize>(
    simd: S,
    job: &mut CorrelateWeight<'_, f32>,
) {
    let taps = job.taps.len();
    let channels = job.dw.len() / taps;
    for first_tap in (0..taps).step_by(TAPS) {
        let tap = first_tap.min(taps - TAPS);
        for first_channel in (0..channels).step_by(CHANNELS) {
            let channel = first_channel.min(channels - CHANNELS);
            let sums = tile::<S, CHANNELS, TAPS, TILE>(simd, job, channel, tap);
            for i in 0..TILE {
                let (c, t) = (channel + i / TAPS, tap + i % TAPS);
                if c >= first_channel && t >= first_tap {
                    job.dw[c * taps + t] += sums[i];
                }
            }
        }
    }
}

/// `TILE` is `CHANNELS * TAPS`.
#[inline(always)]
fn tile<S: Simd, const CHANNELS: usize, const TAPS: usize, const TILE: usize>(
    simd: S,
    job: &CorrelateWeight<'_, f32>,
    channel: usize,
    tap: usize,
) -> [f32; TILE] {
    let pixel = per_pixel::<S>();
    let mut offsets = [0; TAPS];
    unroll!(T < TAPS, { offsets[T] = job.taps[tap + T].x as usize * pixel });
    let plane = job.rows * job.cols * pixel;
    let all_dy = &registers::<S>(job.dy)[channel * plane..];
    let mut sums = [simd.splat_f32s(0.0); TILE];
    for row in 0..job.rows {
        let x = &registers::<S>(job.x)[row * job.x_row * pixel..];
        let dy = &all_dy[row * job.cols * pixel..];
        for col in 0..job.cols {
            for half in 0..pixel {
                let (x, dy) = (&x[col * job.x_col * pixel + half..], &dy[col * pixel + half..]);
                unroll!(I < TILE, {
                    sums[I] = simd.mul_add_f32s(dy[I / TAPS * plane], x[offsets[I % TAPS]], sums[I]);
                });
            }
        }
    }
    let mut totals = [0.0; TILE];
    unroll!(I < TILE, { totals[I] = simd.reduce_sum_f32s(sums[I]) });
    totals
}
