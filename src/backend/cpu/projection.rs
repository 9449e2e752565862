//! Projection and comparisons, which the steps of the attacks share. Minima and maxima are comparisons, whose answer for NaN is the second argument,
//! as on the GPU.

use super::Real;

#[inline(always)]
pub(super) fn larger<T: Real>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

#[inline(always)]
pub(super) fn smaller<T: Real>(a: T, b: T) -> T {
    if a < b { a } else { b }
}

/// `x` in the eps-ball around `clean` and in [0, 1].
#[inline(always)]
pub(super) fn project<T: Real>(x: T, clean: T, eps: T) -> T {
    let ball = smaller(larger(x, clean - eps), clean + eps);
    smaller(larger(ball, T::zero()), T::one())
}
