//! [`SignStep`] on vector registers.

use pulp::Simd;

use super::{per_pixel, registers, registers_mut};
use crate::backend::cpu::LANES;
use crate::backend::cpu::attack::SignStep;

/// The job on vector registers.
pub struct Fast<'a>(pub SignStep<'a, f32>);

impl pulp::WithSimd for Fast<'_> {
    type Output = [u32; LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [u32; LANES] {
        let SignStep { eps, step, clean, dx, x } = self.0;
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
