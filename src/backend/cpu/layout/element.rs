//! The element types of tensors on the CPU.

use crate::backend::Activation;
use num_traits::{Float, ToPrimitive};

/// `f32` or `f64`.
pub trait Element:
    Float
    + Default
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

/// The activation of `x`.
#[inline(always)]
pub fn activate<T: Element>(activation: Activation, x: T) -> T {
    match activation {
        Activation::Identity => x,
        Activation::Relu => relu(x),
    }
}

/// The gradient with respect to the input of an activation whose output was `y`. Where `y` is NaN, `dy` passes.
#[inline(always)]
pub fn activation_gradient<T: Element>(activation: Activation, y: T, dy: T) -> T {
    match activation {
        Activation::Identity => dy,
        Activation::Relu if y <= T::zero() => T::zero(),
        Activation::Relu => dy,
    }
}

/// `max(x, 0)` that lets NaN through.
#[inline(always)]
pub fn relu<T: Element>(x: T) -> T {
    if x < T::zero() { T::zero() } else { x }
}
