//! [`Conv2dBwdWeight`] with a register tile of `CHANNELS × TAPS` sums: per position, `CHANNELS + TAPS` loads and as many
//! multiply-adds as sums.

use pulp::Simd;

use super::{per_pixel, registers};
use crate::backend::cpu::jobs::Conv2dBwdWeight;

impl pulp::WithSimd for Conv2dBwdWeight<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let taps = self.taps.len();
        let job = &mut self;
        // Rows of 3×3 filters: three neighbouring pixels, which need one address.
        let threes = taps.is_multiple_of(9)
            && job.taps.as_chunks().0.iter().all(|&[a, b, c]: &[u32; 3]| [b, c] == [a + 1, a + 2]);
        match (job.dw.len() / taps, taps) {
            (8.., _) if S::REGISTER_COUNT >= 32 && threes => register_tiles::<S, 3, 9, 3, 27>(simd, job),
            (2.., _) if S::REGISTER_COUNT >= 32 && threes => register_tiles::<S, 2, 9, 3, 18>(simd, job),
            (4.., 4..) if S::REGISTER_COUNT >= 32 && taps.is_multiple_of(4) => {
                register_tiles::<S, 4, 4, 1, 16>(simd, job)
            }
            (4.., 5..) if S::REGISTER_COUNT >= 32 => register_tiles::<S, 4, 5, 1, 20>(simd, job),
            (4.., _) if threes => register_tiles::<S, 4, 3, 3, 12>(simd, job),
            (2.., 5..) => register_tiles::<S, 2, 5, 1, 10>(simd, job),
            (1, 5..) => register_tiles::<S, 1, 5, 1, 5>(simd, job),
            (2.., _) => register_tiles::<S, 2, 1, 1, 2>(simd, job),
            _ => register_tiles::<S, 1, 1, 1, 1>(simd, job),
        }
    }
}

/// Covers channels and taps with register tiles. The last ones start earlier to stay inside; what they share with those
/// before is not added again.
#[inline(always)]
fn register_tiles<S: Simd, const CHANNELS: usize, const TAPS: usize, const GROUP: usize, const SUMS: usize>(
    simd: S,
    job: &mut Conv2dBwdWeight<'_, f32>,
) {
    let taps = job.taps.len();
    let channels = job.dw.len() / taps;
    for first_tap in (0..taps).step_by(TAPS) {
        let tap = first_tap.min(taps - TAPS);
        for first_channel in (0..channels).step_by(CHANNELS) {
            let channel = first_channel.min(channels - CHANNELS);
            let sums = register_tile::<S, CHANNELS, TAPS, GROUP, SUMS>(simd, job, channel, tap);
            for (i, sum) in sums.into_iter().enumerate() {
                let (c, t) = (channel + i / TAPS, tap + i % TAPS);
                if c >= first_channel && t >= first_tap {
                    job.dw[c * taps + t] += sum;
                }
            }
        }
    }
}

/// `SUMS` is `CHANNELS * TAPS`. Of every `GROUP` taps, all lie beside the first.
#[inline(always)]
fn register_tile<S: Simd, const CHANNELS: usize, const TAPS: usize, const GROUP: usize, const SUMS: usize>(
    simd: S,
    job: &Conv2dBwdWeight<'_, f32>,
    channel: usize,
    tap: usize,
) -> [f32; SUMS] {
    let pixel = per_pixel::<S>();
    let plane = job.rows * job.cols * pixel;
    let x_span = ((job.cols - 1) * job.x_col + GROUP) * pixel;
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    for block in 0..job.blocks {
        let all_x = &registers::<S>(job.x)[block * job.x_block * pixel..];
        let all_dy = &registers::<S>(job.dy)[block * job.dy_block * pixel + channel * plane..];
        for row in 0..job.rows {
            // Slices of one length, so that one comparison a position checks the index into all of them.
            let mut x = [&[] as &[S::f32s]; TAPS];
            unroll!(G < TAPS / GROUP, {
                x[G] = &all_x[(row * job.x_row + job.taps[tap + G * GROUP] as usize) * pixel..][..x_span];
            });
            let mut dy = [&[] as &[S::f32s]; CHANNELS];
            unroll!(C < CHANNELS, { dy[C] = &all_dy[C * plane + row * job.cols * pixel..][..job.cols * pixel] });
            for col in 0..job.cols {
                for half in 0..pixel {
                    let (from, at) = (col * job.x_col * pixel + half, col * pixel + half);
                    unroll!(I < SUMS, {
                        // Of the operands, the fewer stay in registers.
                        let (tap, channel) =
                            if CHANNELS > TAPS { (I % TAPS, I / TAPS) } else { (I / CHANNELS, I % CHANNELS) };
                        let (x, sum) = (x[tap / GROUP][from + tap % GROUP * pixel], channel * TAPS + tap);
                        sums[sum] = simd.mul_add_f32s(dy[channel][at], x, sums[sum]);
                    });
                }
            }
        }
    }
    let mut totals = [0.0; SUMS];
    unroll!(I < SUMS, { totals[I] = simd.reduce_sum_f32s(sums[I]) });
    totals
}
