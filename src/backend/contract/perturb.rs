//! The attacks beyond PGD.

use super::{AdamStep, Memory};
use crate::base::layout::layout;

/// What lies between the iterates of APGD: four batches.
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

/// What APGD does with one image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct ApgdMove {
    /// Length of the step.
    pub step: f32,
    /// Not 0: the loss has risen above all before, so that point and gradient are the best ones now.
    pub improved: u32,
    /// Not 0: the step goes from the best point.
    pub restart: u32,
}

layout!(ApgdMove { step, improved, restart });

/// Constants of the l-infinity FAB attack (Croce & Hein, 2020).
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct FabStep {
    /// How far beyond the hyperplane a step goes; 1 is onto it.
    pub eta: f32,
    /// Most weight of the step that starts from the clean image.
    pub alpha_max: f32,
}

layout!(FabStep { eta, alpha_max });

/// A square within one image, all of whose pixels move by the same amount in each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct Window {
    /// First row.
    pub top: u32,
    /// First column.
    pub left: u32,
    /// Rows and columns; 0 for no window.
    pub side: u32,
    /// Bit `c`: channel `c` moves up; else down.
    pub up: u32,
}

layout!(Window { top, left, side, up });

/// How far images are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Largest difference of a pixel.
    LInf,
    /// Euclidean.
    L2,
}

/// Moves of the attacks beyond PGD, each image of a batch by its own numbers: a slice has one element an image. Images
/// are in [0, 1].
pub trait Perturb: Memory {
    /// One step of APGD (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    /// parameter-free attacks", 2020). With `p` the projection to the eps-ball around `clean` and to [0, 1], `x` and its
    /// gradient `dx` or, after a restart, the best ones:
    ///
    /// `z = p(x + step sign(dx))`, then `p(x + momentum (z - x) + (1 - momentum) (x - previous))`.
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        moves: &[ApgdMove],
        clean: &Self::Batch,
        dx: &Self::Batch,
        points: ApgdPoints<'_, Self::Batch>,
    );
    /// One step of FAB towards the hyperplane `value + dx (y - x) = 0`, the linearised boundary between two classes:
    /// with `d` the smallest l-infinity move onto it within [0, 1] (as far as it goes, if there is none), from `x` and
    /// from `clean`, `x = clamp((1 - a) (x + eta d(x)) + a (clean + eta d(clean)), 0, 1)`,
    /// `a = min(|d(x)| / (|d(x)| + |d(clean)|), alpha_max)`, either length at least 1e-8. `values` is what the linearised
    /// function is at `x`.
    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &Self::Batch, dx: &Self::Batch, x: &mut Self::Batch);
    /// Square's proposal: `x`, but within each image's window `clean ± eps`, clamped to [0, 1].
    /// `shape` is an image's `[c, h, w]`.
    fn windows(
        &self,
        shape: [usize; 3],
        eps: f32,
        windows: &[Window],
        clean: &Self::Batch,
        x: &Self::Batch,
    ) -> Self::Batch;
    /// `to = from` for the images that are `chosen`.
    fn copy_samples(&self, chosen: &[bool], from: &Self::Batch, to: &mut Self::Batch);
    /// `x = clean + t (x - clean)` for each image; one with `t = 1` stays as it is to the bit.
    fn towards(&self, t: &[f32], clean: &Self::Batch, x: &mut Self::Batch);
    /// Distance of each of `n` images of `a` from that of `b`, in f64.
    fn distances(&self, n: usize, distance: Distance, a: &Self::Batch, b: &Self::Batch) -> Vec<f64>;
    /// `atanh(0.999999 (2 x - 1))`: the variable that C&W's l2 attack descends in (2017).
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
