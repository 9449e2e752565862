//! Carlini & Wagner's l2 attack.

use super::{AdamStep, Memory};

/// The change of variables of Carlini & Wagner (2017): every point of tanh space is an image in [0, 1].
pub trait CwL2: Memory {
    /// `atanh(0.999999 (2 x - 1))`: the variable in which the attack descends.
    fn tanh_space(&self, x: &Self::Batch) -> Self::Batch;
    /// `(tanh(w) + 1) / 2`.
    fn tanh_image(&self, w: &Self::Batch) -> Self::Batch;
    /// One step of Adam on the batch `w`, as [`super::Optim::adam_step`] does it on a parameter.
    fn adam_step_batch(
        &self,
        s: &AdamStep,
        g: &Self::Batch,
        m: &mut Self::Batch,
        v: &mut Self::Batch,
        w: &mut Self::Batch,
    );
    /// Gradient of `‖x - clean‖² + f(x)` with respect to `w`, where `x` comes from it and `dx` is the gradient of `f`:
    /// `2 x (1 - x) (2 (x - clean) + dx)`.
    fn tanh_image_bwd(&self, clean: &Self::Batch, x: &Self::Batch, dx: &Self::Batch) -> Self::Batch;
}
