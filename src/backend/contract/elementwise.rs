//! Element by element.

use super::Memory;

/// Element by element.
pub trait Elementwise: Memory {
    /// `a + b`.
    fn add(&self, a: &Self::Buf, b: &Self::Buf) -> Self::Buf;
    /// `y += a x`.
    fn axpy(&self, a: f32, x: &Self::Buf, y: &mut Self::Buf);
    /// `s x` for a plain scalar `s` that lives on the device.
    fn scale_by(&self, s: &Self::Buf, x: &Self::Buf) -> Self::Buf;
    /// `max(x, 0)`.
    fn relu_fwd(&self, x: &Self::Buf) -> Self::Buf;
    /// `dy` where the output `y` of the ReLU is positive, else 0.
    fn relu_bwd(&self, y: &Self::Buf, dy: &Self::Buf) -> Self::Buf;
}
