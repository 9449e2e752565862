//! [`RandomStart`] on vector registers.

use pulp::Simd;

use super::registers_mut;
use crate::backend::cpu::LANES;
use crate::backend::cpu::attack::RandomStart;
use crate::base::rng::{MULTIPLIERS, ROUNDS, WEYL};

/// The job on vector registers. Where the number of features is a multiple of 4, the four numbers of a Philox block are
/// those of four neighbouring pixels, and the blocks of [`LANES`] images fill registers.
pub struct Fast<'a>(pub RandomStart<'a, f32>);

impl pulp::WithSimd for Fast<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if !self.0.x.len().is_multiple_of(4) {
            return self.0.plain();
        }
        let RandomStart { rng, first, eps, x, .. } = self.0;
        let blocks = x.len() as u64 / 4;
        let (zero, one, two, eps) =
            (simd.splat_f32s(0.0), simd.splat_f32s(1.0), simd.splat_f32s(2.0), simd.splat_f32s(eps));
        for (q, pixels) in x.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // In lanes without an image, numbers of images that follow: any will do.
            let (mut low, mut high) = ([[0u32; LANES]], [[0u32; LANES]]);
            for l in 0..LANES {
                let index = (first + l as u64) * blocks + q as u64;
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
