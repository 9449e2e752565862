//! The jobs in f32 on vector registers, for every width that [`LANES`] is a multiple of.
//!
//! Each job computes what its function `plain` says, up to rounding. The code is generic over pulp's [`Simd`]: it becomes
//! AVX-512 (one register holds the [`LANES`] images of a pixel) or AVX2 (two do).
//!
//! Loops over the registers of a register tile are unrolled by a macro: the compiler does not reliably unroll loops of
//! that length, and an array that is indexed by a variable is in memory. Closures are avoided: they are not reliably
//! inlined into functions with other target features than their own.

/// Repeats a block for the constant `I` from 0 to `N - 1`; `N` is at most 28, or at most 8 where it is said so: blocks beyond `N` are
/// work for the compiler, above all where they are nested.
macro_rules! unroll {
    ($i:ident < $n:expr, at most 8, $body:block) => {
        unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7)
    };
    ($i:ident < $n:expr, $body:block) => {
        unroll!(@ $i, $n, $body,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27)
    };
    (@ $i:ident, $n:expr, $body:block, $($k:literal)*) => {
        $({
            const $i: usize = $k;
            // Clippy sees the index of a block that never runs.
            #[allow(clippy::out_of_bounds_indexing)]
            if $i < $n $body
        })*
    };
}

mod conv2d_bwd_weight;
mod conv2d_pool_bwd_input;
mod conv2d_pool_fwd;
mod correlate;
mod gemm;
mod loss;
mod norm;
mod pgd;
mod pool;
mod sums;
mod winograd;

pub use conv2d_pool_bwd_input::Permuting;

use crate::backend::Activation;
use pulp::Simd;

use super::layout::LANES;

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

/// Fetches the cache line at `x[i]`, which may lie beyond the end.
#[inline(always)]
pub fn prefetch<T>(x: &[T], i: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing as far as the program can tell, and does not fault at any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(i).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (x, i);
}

/// The activation of `x`.
#[inline(always)]
pub fn activate<S: Simd>(simd: S, activation: Activation, x: S::f32s) -> S::f32s {
    match activation {
        Activation::Identity => x,
        // NaN passes: where an operand is NaN, x86's maximum is the second one.
        Activation::Relu => simd.max_f32s(simd.splat_f32s(0.0), x),
    }
}

/// The gradient with respect to the input of an activation whose output was `y`. Where `y` is NaN, `dy` passes.
#[inline(always)]
pub fn activation_gradient<S: Simd>(simd: S, activation: Activation, y: S::f32s, dy: S::f32s) -> S::f32s {
    match activation {
        Activation::Identity => dy,
        Activation::Relu => {
            let zero = simd.splat_f32s(0.0);
            simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, dy)
        }
    }
}
