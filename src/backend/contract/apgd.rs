//! Auto-PGD.

use super::Memory;
use crate::base::layout::layout;

/// The state that APGD keeps from step to step: four batches.
pub struct ApgdPoints<'a, Batch> {
    /// Where the gradient was taken last.
    pub x: &'a mut Batch,
    /// Where it was taken before that.
    pub previous: &'a mut Batch,
    /// Where the loss was highest so far.
    pub best: &'a mut Batch,
    /// The gradient there.
    pub best_dx: &'a mut Batch,
}

/// Instructions of an APGD step for one image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct ApgdStep {
    /// Length of the step.
    pub step_size: f32,
    /// Not 0: the loss has risen above all before, so that point and gradient are the best ones now.
    pub improved: u32,
    /// Not 0: the step goes from the best point.
    pub restart: u32,
}

layout!(ApgdStep { step_size, improved, restart });

/// The step of APGD (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
/// attacks", 2020). Images are in [0, 1].
pub trait Apgd: Memory {
    /// One step; `steps` has one element for each image of the batch. With `p` the projection to the eps-ball around `clean` and
    /// to [0, 1], `x` and its gradient `dx` or, after a restart, the best ones:
    ///
    /// `z = p(x + step_size sign(dx))`, then `p(x + momentum (z - x) + (1 - momentum) (x - previous))`.
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        steps: &[ApgdStep],
        clean: &Self::Batch,
        dx: &Self::Batch,
        points: ApgdPoints<'_, Self::Batch>,
    );
}
