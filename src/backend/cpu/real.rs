//! The float types the CPU backend computes in, and their vectors of [`LANES`].
//!
//! The compiler does not reliably find vector instructions in loops over small arrays, so the multiply-add that the
//! convolutions live on names them, where the processor's registers divide a vector of [`LANES`] evenly.

use bytemuck::cast;
use num_traits::{Float, ToPrimitive};
use pulp::Simd;

use super::LANES;

/// `f32` or `f64`. The operations on vectors have plain loops as default.
pub trait Real:
    Float
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + bytemuck::Pod
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// From `f32`, exactly.
    fn of(x: f32) -> Self;

    /// From `f64`, rounded.
    fn of_f64(x: f64) -> Self;

    /// To `f32`, rounded.
    fn as_f32(self) -> f32 {
        ToPrimitive::to_f32(&self).unwrap_or(f32::NAN)
    }

    /// To `f64`, exactly.
    fn as_f64(self) -> f64 {
        ToPrimitive::to_f64(&self).unwrap_or(f64::NAN)
    }

    /// The same value in every lane.
    #[inline(always)]
    fn splat<S: Simd>(_: S, x: Self) -> [Self; LANES] {
        [x; LANES]
    }

    /// `a b + c` in every lane.
    #[inline(always)]
    fn mul_add_lanes<S: Simd>(_: S, a: [Self; LANES], b: [Self; LANES], c: [Self; LANES]) -> [Self; LANES] {
        portable::mul_add(a, b, c)
    }

    /// `max(x, 0)` in every lane; NaN passes.
    #[inline(always)]
    fn relu_lanes<S: Simd>(_: S, x: [Self; LANES]) -> [Self; LANES] {
        x.map(relu)
    }

    /// One step of a maximum: where `x` is larger than `best`, or NaN, it becomes `best` and `q` its `place`. NaN,
    /// once best, stays, because no number is larger.
    #[inline(always)]
    fn keep_larger<S: Simd>(_: S, x: [Self; LANES], q: u32, best: &mut [Self; LANES], place: &mut [u32; LANES]) {
        portable::keep_larger(x, q, best, place);
    }

    /// `x` where `place` is `q`, else zero.
    #[inline(always)]
    fn where_equal<S: Simd>(_: S, place: [u32; LANES], q: u32, x: [Self; LANES]) -> [Self; LANES] {
        portable::where_equal(place, q, x)
    }

    /// `x + step sign(g)`, kept within `eps` of `clean` and then in [0, 1]; lanes with `g = 0` are counted.
    #[inline(always)]
    fn sign_step<S: Simd>(
        _: S,
        x: [Self; LANES],
        g: [Self; LANES],
        clean: [Self; LANES],
        (eps, step): (Self, Self),
        zeros: &mut [u32; LANES],
    ) -> [Self; LANES] {
        portable::sign_step(x, g, clean, (eps, step), zeros)
    }
}

/// What the operations on vectors mean, lane by lane.
mod portable {
    use super::{LANES, Real};

    /// Rounds twice: without vector registers a fused multiply-add would be a call into the C library.
    #[inline(always)]
    pub fn mul_add<T: Real>(a: [T; LANES], b: [T; LANES], c: [T; LANES]) -> [T; LANES] {
        std::array::from_fn(|l| a[l] * b[l] + c[l])
    }

    #[inline(always)]
    pub fn keep_larger<T: Real>(x: [T; LANES], q: u32, best: &mut [T; LANES], place: &mut [u32; LANES]) {
        for l in 0..LANES {
            if x[l] > best[l] || x[l].is_nan() {
                (best[l], place[l]) = (x[l], q);
            }
        }
    }

    #[inline(always)]
    pub fn where_equal<T: Real>(place: [u32; LANES], q: u32, x: [T; LANES]) -> [T; LANES] {
        std::array::from_fn(|l| if place[l] == q { x[l] } else { T::zero() })
    }

    #[inline(always)]
    pub fn sign_step<T: Real>(
        x: [T; LANES],
        g: [T; LANES],
        clean: [T; LANES],
        (eps, step): (T, T),
        zeros: &mut [u32; LANES],
    ) -> [T; LANES] {
        let (zero, one) = (T::zero(), T::one());
        std::array::from_fn(|l| {
            let rising = if g[l] > zero { step } else { zero };
            let direction = if g[l] < zero { -step } else { rising };
            zeros[l] += u32::from(g[l] == zero);
            (x[l] + direction).max(clean[l] - eps).min(clean[l] + eps).max(zero).min(one)
        })
    }
}

/// Whether `S` has registers of exactly [`LANES`] f32.
const fn one_register<S: Simd>() -> bool {
    S::F32_LANES == LANES
}

impl Real for f32 {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn of_f64(x: f64) -> f32 {
        x as f32
    }

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f32) -> [f32; LANES] {
        if one_register::<S>() { cast::<S::f32s, _>(simd.splat_f32s(x)) } else { [x; LANES] }
    }

    #[inline(always)]
    fn mul_add_lanes<S: Simd>(simd: S, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        if !one_register::<S>() {
            return portable::mul_add(a, b, c);
        }
        cast::<S::f32s, _>(simd.mul_add_f32s(cast(a), cast(b), cast(c)))
    }

    #[inline(always)]
    fn relu_lanes<S: Simd>(simd: S, x: [f32; LANES]) -> [f32; LANES] {
        if !one_register::<S>() {
            return x.map(relu);
        }
        let (zero, x) = (simd.splat_f32s(0.0), cast(x));
        cast::<S::f32s, _>(simd.select_f32s(simd.less_than_f32s(x, zero), zero, x))
    }

    #[inline(always)]
    fn keep_larger<S: Simd>(simd: S, x: [f32; LANES], q: u32, best: &mut [f32; LANES], place: &mut [u32; LANES]) {
        if !one_register::<S>() {
            return portable::keep_larger(x, q, best, place);
        }
        let (x, old, at): (S::f32s, S::f32s, S::u32s) = (cast(x), cast(*best), cast(*place));
        let (larger, number) = (simd.greater_than_f32s(x, old), simd.equal_f32s(x, x));
        let here = simd.splat_u32s(q);
        *best = cast(simd.select_f32s(number, simd.select_f32s(larger, x, old), x));
        *place = cast(simd.select_u32s(number, simd.select_u32s(larger, here, at), here));
    }

    #[inline(always)]
    fn where_equal<S: Simd>(simd: S, place: [u32; LANES], q: u32, x: [f32; LANES]) -> [f32; LANES] {
        if !one_register::<S>() {
            return portable::where_equal(place, q, x);
        }
        let hit = simd.equal_u32s(cast(place), simd.splat_u32s(q));
        cast::<S::f32s, _>(simd.select_f32s(hit, cast(x), simd.splat_f32s(0.0)))
    }

    #[inline(always)]
    fn sign_step<S: Simd>(
        simd: S,
        x: [f32; LANES],
        g: [f32; LANES],
        clean: [f32; LANES],
        (eps, step): (f32, f32),
        zeros: &mut [u32; LANES],
    ) -> [f32; LANES] {
        if !one_register::<S>() {
            return portable::sign_step(x, g, clean, (eps, step), zeros);
        }
        let (x, g, clean): (S::f32s, S::f32s, S::f32s) = (cast(x), cast(g), cast(clean));
        let (zero, one, eps) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0), simd.splat_f32s(eps));
        let rising = simd.select_f32s(simd.greater_than_f32s(g, zero), simd.splat_f32s(step), zero);
        let direction = simd.select_f32s(simd.less_than_f32s(g, zero), simd.splat_f32s(-step), rising);
        let (low, high) = (simd.sub_f32s(clean, eps), simd.add_f32s(clean, eps));
        let projected = simd.min_f32s(simd.max_f32s(simd.add_f32s(x, direction), low), high);
        let is_zero = simd.select_u32s(simd.equal_f32s(g, zero), simd.splat_u32s(1), simd.splat_u32s(0));
        *zeros = cast::<S::u32s, _>(simd.add_u32s(cast(*zeros), is_zero));
        cast::<S::f32s, _>(simd.min_f32s(simd.max_f32s(projected, zero), one))
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(x: f32) -> f64 {
        f64::from(x)
    }

    #[inline(always)]
    fn of_f64(x: f64) -> f64 {
        x
    }
}

/// `max(x, 0)` that lets NaN through.
#[inline(always)]
pub fn relu<T: Real>(x: T) -> T {
    if x < T::zero() { T::zero() } else { x }
}
