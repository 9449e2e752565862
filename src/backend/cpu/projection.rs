//! Projection to the eps-ball and to [0, 1], and signed steps, which the attacks share. Minima and maxima are comparisons, whose
//! answer for NaN is the second argument, as on the GPU.

use super::layout::element::Element;

#[inline(always)]
pub(super) fn larger<T: Element>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

#[inline(always)]
pub(super) fn smaller<T: Element>(a: T, b: T) -> T {
    if a < b { a } else { b }
}

/// `x` in [0, 1].
#[inline(always)]
pub(super) fn clamp<T: Element>(x: T) -> T {
    smaller(larger(x, T::zero()), T::one())
}

/// `x` in the eps-ball around `clean` and in [0, 1].
#[inline(always)]
pub(super) fn project<T: Element>(x: T, clean: T, eps: T) -> T {
    clamp(smaller(larger(x, clean - eps), clean + eps))
}

/// `step sign(dx)`, sign(0) = 0.
#[inline(always)]
pub(super) fn signed_step<T: Element>(step: T, dx: T) -> T {
    let rising = if dx > T::zero() { step } else { T::zero() };
    if dx < T::zero() { -step } else { rising }
}
