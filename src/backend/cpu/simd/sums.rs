//! [`Sum`] and [`Deviations`] on vector registers.
//!
//! A sum is ready for the next addend after four cycles. Four sums side by side, each of every fourth register, keep
//! the adders busy while a plane is in the cache.

use pulp::Simd;

use super::{per_pixel, registers};
use crate::backend::cpu::jobs::{Deviations, Sum};
use crate::backend::cpu::layout::LANES;

/// Sums side by side: a multiple of the registers of a pixel, so that each belongs to certain lanes.
pub(super) const CHAINS: usize = 4;

impl pulp::WithSimd for Sum<'_, f32> {
    type Output = [f32; LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; LANES] {
        let (groups, rest) = registers::<S>(self.x).as_chunks::<CHAINS>();
        let mut sums = [simd.splat_f32s(0.0); CHAINS];
        for x in groups {
            unroll!(I < CHAINS, { sums[I] = simd.add_f32s(sums[I], x[I]) });
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum = simd.add_f32s(*sum, x);
        }
        per_lane(simd, sums)
    }
}

impl pulp::WithSimd for Deviations<'_, f32> {
    type Output = [[f32; LANES]; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [[f32; LANES]; 2] {
        let centre = simd.splat_f32s(self.centre);
        let (groups, rest) = registers::<S>(self.x).as_chunks::<CHAINS>();
        let [mut sums, mut squares] = [[simd.splat_f32s(0.0); CHAINS]; 2];
        for x in groups {
            unroll!(I < CHAINS, {
                let deviation = simd.sub_f32s(x[I], centre);
                sums[I] = simd.add_f32s(sums[I], deviation);
                squares[I] = simd.mul_add_f32s(deviation, deviation, squares[I]);
            });
        }
        for (i, &x) in rest.iter().enumerate() {
            let deviation = simd.sub_f32s(x, centre);
            sums[i] = simd.add_f32s(sums[i], deviation);
            squares[i] = simd.mul_add_f32s(deviation, deviation, squares[i]);
        }
        [per_lane(simd, sums), per_lane(simd, squares)]
    }
}

/// The sums of each lane, put together.
#[inline(always)]
pub(super) fn per_lane<S: Simd>(simd: S, sums: [S::f32s; CHAINS]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (half, lanes) in out.chunks_exact_mut(S::F32_LANES).enumerate() {
        let mut sum = sums[half];
        for &other in sums[half..].iter().step_by(per_pixel::<S>()).skip(1) {
            sum = simd.add_f32s(sum, other);
        }
        lanes.copy_from_slice(bytemuck::cast_slice(&[sum]));
    }
    out
}
