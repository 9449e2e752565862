//! The element types of tensors on the CPU.

use num_traits::{Float, ToPrimitive};

/// `f32` or `f64`.
pub trait Element:
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
}

impl Element for f32 {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn of_f64(x: f64) -> f32 {
        x as f32
    }
}

impl Element for f64 {
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
pub fn relu<T: Element>(x: T) -> T {
    if x < T::zero() { T::zero() } else { x }
}
