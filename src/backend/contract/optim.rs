//! Optimiser updates.

use super::Memory;
use crate::base::layout::layout;

/// Constants of an SGD update.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct SgdStep {
    pub lr: f32,
    pub momentum: f32,
    pub weight_decay: f32,
}

layout!(SgdStep { lr, momentum, weight_decay });

/// Constants of an Adam update.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct AdamStep {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// Number of this update, counted from 1.
    pub t: u32,
}

impl AdamStep {
    /// The learning rate over the first moment's bias correction, and the root of the second moment's. The corrections are
    /// powers close to 1: in f32 they would lose the digits that matter.
    pub fn step_and_root(&self) -> (f64, f64) {
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(self.t as i32);
        (f64::from(self.lr) / correction(self.beta1), correction(self.beta2).sqrt())
    }
}

/// The constraint that keeps a parameter sparse, or makes it so, during training.
#[derive(Debug)]
pub enum Constraint<'a, Buf> {
    /// Nothing.
    Free,
    /// Where the mask is 0, the weight and the optimiser's state are set to zero.
    Mask(&'a Buf),
    /// The ADMM penalty `rho/2 ‖w - z + u‖²`: `rho (w - z + u)` is added to the gradient; `z` and `u` are constants.
    Penalty { rho: f32, z: &'a Buf, u: &'a Buf },
}

/// A parameter that SGD updates.
pub struct SgdParam<'a, Buf> {
    /// Its constraint.
    pub constraint: Constraint<'a, Buf>,
    /// Gradient.
    pub g: &'a Buf,
    /// Velocity.
    pub v: &'a mut Buf,
    /// Weight.
    pub w: &'a mut Buf,
}

/// A parameter that Adam updates.
pub struct AdamParam<'a, Buf> {
    /// Its constraint.
    pub constraint: Constraint<'a, Buf>,
    /// Gradient.
    pub g: &'a Buf,
    /// First moment.
    pub m: &'a mut Buf,
    /// Second moment.
    pub v: &'a mut Buf,
    /// Weight.
    pub w: &'a mut Buf,
}

/// Updates of all parameters, in place, on plain buffers.
pub trait Optim: Memory {
    /// `v = momentum v + (g + weight_decay w)`, `w -= lr v`, under each parameter's constraint.
    fn sgd_step(&self, s: &SgdStep, params: &mut [SgdParam<'_, Self::Buf>]);
    /// Adam with coupled weight decay and bias correction, in PyTorch's order of operations, under each parameter's
    /// constraint.
    fn adam_step(&self, s: &AdamStep, params: &mut [AdamParam<'_, Self::Buf>]);
}
