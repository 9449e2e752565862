//! The fast path: f32 on vector registers, for every width that [`LANES`] is a multiple of.
//!
//! Each module computes what the `plain` function of its job says, up to rounding. The code is generic over pulp's
//! [`Simd`]: it becomes AVX-512 (one register holds the [`LANES`] images of a pixel) or AVX2 (two do).
//!
//! Loops are plain index loops, not iterators or `array::map`: closures are not reliably inlined into functions with
//! other target features than their own, and would take the values out of the registers.

pub mod correlate;
pub mod correlate_weight;
pub mod pool;
pub mod sign_step;

use pulp::Simd;

use super::LANES;

/// Registers that hold one pixel's images.
pub const fn per_pixel<S: Simd>() -> usize {
    LANES / S::F32_LANES
}

/// Pixels as registers, [`per_pixel`] for each.
#[inline(always)]
pub fn registers<S: Simd>(x: &[[f32; LANES]]) -> &[S::f32s] {
    bytemuck::cast_slice(x)
}

/// As [`registers`], to write to.
#[inline(always)]
pub fn registers_mut<S: Simd>(x: &mut [[f32; LANES]]) -> &mut [S::f32s] {
    bytemuck::cast_slice_mut(x)
}

/// `max(x, 0)`; NaN passes.
#[inline(always)]
pub fn relu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_f32s(x, zero), zero, x)
}
