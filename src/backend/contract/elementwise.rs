//! Ops on each element.

use super::{Activated, Activation, Memory};

/// Ops on each element of a batch or a parameter.
pub trait Elementwise: Memory {
    /// `a + b`.
    fn add(&self, a: &Self::Batch, b: &Self::Batch) -> Self::Batch;
    /// `y += x`.
    fn add_assign(&self, x: &Self::Batch, y: &mut Self::Batch);
    /// `y += x` for parameters.
    fn add_assign_param(&self, x: &Self::Buf, y: &mut Self::Buf);
    /// The activation of `x`.
    fn activation_fwd(&self, activation: Activation, x: &Self::Batch) -> Self::Batch;
    /// The gradient with respect to the activation's input.
    fn activation_bwd(&self, activated: Activated<'_, Self::Batch>, dy: &Self::Batch) -> Self::Batch;
}
