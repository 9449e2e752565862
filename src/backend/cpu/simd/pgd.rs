//! [`RandomStart`] and [`PgdStep`] on vector registers.

use pulp::Simd;

use super::{per_pixel, registers, registers_mut};
use crate::backend::cpu::jobs::{PgdStep, RandomStart};
use crate::backend::cpu::layout::LANES;
use crate::base::rng::{MULTIPLIERS, ROUNDS, WEYL};

impl pulp::WithSimd for RandomStart<'_, f32> {
    type Output = ();

    /// Where the number of features is a multiple of 4, the four numbers of a Philox counter are those of four neighbouring
    /// pixels, and the counters of [`LANES`] images fill registers.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if !self.x.len().is_multiple_of(4) {
            return self.plain();
        }
        let RandomStart { rng, first, eps, x, .. } = self;
        let counters = x.len() as u64 / 4;
        let (zero, one, two, eps) =
            (simd.splat_f32s(0.0), simd.splat_f32s(1.0), simd.splat_f32s(2.0), simd.splat_f32s(eps));
        for (q, pixels) in x.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // In lanes without an image, numbers of images that follow: any will do.
            let (mut low, mut high) = ([[0u32; LANES]], [[0u32; LANES]]);
            for l in 0..LANES {
                let index = (first + l as u64) * counters + q as u64;
                (low[0][l], high[0][l]) = (index as u32, (index >> 32) as u32);
            }
            let (counter, key) = rng.counter(0);
            let pixels = registers_mut::<S>(pixels);
            let halves = pixels.len() / 4;
            for half in 0..halves {
                let word = |x: &[[u32; LANES]]| bytemuck::cast_slice::<_, S::u32s>(x)[half];
                let counter = [word(&low), word(&high), simd.splat_u32s(counter[2]), simd.splat_u32s(counter[3])];
                let numbers = philox4x32(simd, counter, key);
                for (j, &bits) in numbers.iter().enumerate() {
                    let unit = unit_interval(simd, bits);
                    // In the order of the plain loop, so that the bits are the same.
                    let signed = simd.sub_f32s(simd.mul_f32s(two, unit), one);
                    let x = &mut pixels[j * halves + half];
                    let moved = simd.add_f32s(*x, simd.mul_f32s(eps, signed));
                    *x = simd.min_f32s(simd.max_f32s(moved, zero), one);
                }
            }
        }
    }
}

impl pulp::WithSimd for PgdStep<'_, f32> {
    type Output = [u32; LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [u32; LANES] {
        let PgdStep { eps, step, clean, dx, x } = self;
        let (clean, dx, x) = (registers::<S>(clean), registers::<S>(dx), registers_mut::<S>(x));
        let pixel = per_pixel::<S>();
        let (zero, one, eps) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0), simd.splat_f32s(eps));
        let (up, down) = (simd.splat_f32s(step), simd.splat_f32s(-step));
        let mut zeros = [0; LANES];
        for half in 0..pixel {
            let mut count = simd.splat_u32s(0);
            for at in (half..x.len()).step_by(pixel) {
                let g = dx[at];
                let rising = simd.select_f32s(simd.greater_than_f32s(g, zero), up, zero);
                let direction = simd.select_f32s(simd.less_than_f32s(g, zero), down, rising);
                let (low, high) = (simd.sub_f32s(clean[at], eps), simd.add_f32s(clean[at], eps));
                let projected = simd.min_f32s(simd.max_f32s(simd.add_f32s(x[at], direction), low), high);
                x[at] = simd.min_f32s(simd.max_f32s(projected, zero), one);
                let is_zero = simd.equal_f32s(g, zero);
                count = simd.add_u32s(count, simd.select_u32s(is_zero, simd.splat_u32s(1), simd.splat_u32s(0)));
            }
            let lanes = S::F32_LANES;
            zeros[half * lanes..][..lanes].copy_from_slice(bytemuck::cast_slice(&[count]));
        }
        zeros
    }
}

/// [`crate::base::rng::philox4x32`] in every lane.
#[inline(always)]
fn philox4x32<S: Simd>(simd: S, mut counter: [S::u32s; 4], mut key: [u32; 2]) -> [S::u32s; 4] {
    let multipliers = [simd.splat_u32s(MULTIPLIERS[0]), simd.splat_u32s(MULTIPLIERS[1])];
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let (low0, high0) = simd.widening_mul_u32s(multipliers[0], counter[0]);
        let (low1, high1) = simd.widening_mul_u32s(multipliers[1], counter[2]);
        counter = [
            simd.xor_u32s(simd.xor_u32s(high1, counter[1]), simd.splat_u32s(key[0])),
            low1,
            simd.xor_u32s(simd.xor_u32s(high0, counter[3]), simd.splat_u32s(key[1])),
            low0,
        ];
    }
    counter
}

/// [`crate::base::rng::unit_interval`] in every lane, exactly: of the upper 24 bits, 12 at a time.
#[inline(always)]
fn unit_interval<S: Simd>(simd: S, bits: S::u32s) -> S::f32s {
    let high = to_float(simd, simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(20)));
    let low = simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(8));
    let low = to_float(simd, simd.and_u32s(low, simd.splat_u32s(0xFFF)));
    simd.mul_f32s(simd.mul_add_f32s(high, simd.splat_f32s(4096.0), low), simd.splat_f32s(1.0 / 16_777_216.0))
}

/// A number below 2^23 as float, by taking the place of the lowest bits of a mantissa.
#[inline(always)]
fn to_float<S: Simd>(simd: S, bits: S::u32s) -> S::f32s {
    let biased = simd.transmute_f32s_u32s(simd.or_u32s(bits, simd.splat_u32s(0x4B00_0000)));
    simd.sub_f32s(biased, simd.splat_f32s(8_388_608.0))
}
