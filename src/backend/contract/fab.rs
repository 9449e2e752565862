//! Fast Adaptive Boundary attack.

use super::Memory;
use crate::base::layout::layout;

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

/// The steps of FAB. Images are in [0, 1]; a slice has one element for each image of the batch.
pub trait Fab: Memory {
    /// One step of FAB towards the hyperplane `value + dx (y - x) = 0`, the linearised boundary between two classes:
    /// with `d` the smallest l-infinity change that reaches it within [0, 1] (as far as it goes, if there is none), from `x` and
    /// from `clean`, `x = clamp((1 - a) (x + eta d(x)) + a (clean + eta d(clean)), 0, 1)`,
    /// `a = min(|d(x)| / (|d(x)| + |d(clean)|), alpha_max)`, either length at least 1e-8. `values` is what the linearised
    /// function is at `x`.
    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &Self::Batch, dx: &Self::Batch, x: &mut Self::Batch);
    /// `x = clean + t (x - clean)` for each image; one with `t = 1` stays as it is to the bit.
    fn interpolate(&self, t: &[f32], clean: &Self::Batch, x: &mut Self::Batch);
}
