//! Element by element.

use super::Memory;

/// Element by element.
pub trait Elementwise: Memory {
    /// `a + b`.
    fn add(&self, a: &Self::Batch, b: &Self::Batch) -> Self::Batch;
    /// `y += x`.
    fn add_assign(&self, x: &Self::Batch, y: &mut Self::Batch);
    /// `y += x` for parameters.
    fn add_assign_param(&self, x: &Self::Buf, y: &mut Self::Buf);
    /// `max(x, 0)`.
    fn relu_fwd(&self, x: &Self::Batch) -> Self::Batch;
    /// `dy` where the output `y` of the ReLU is positive, else 0.
    fn relu_bwd(&self, y: &Self::Batch, dy: &Self::Batch) -> Self::Batch;
}
