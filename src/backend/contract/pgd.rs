//! Projected gradient descent.

use super::{Loss, LossKind};
use crate::base::dims::LeNetDims;
use crate::base::rng::Rng;

/// An l-infinity attack by projected gradient ascent, all of it.
#[derive(Clone, Copy, Debug)]
pub struct Ascent<'r> {
    /// Radius.
    pub eps: f32,
    /// Length of a step.
    pub step: f32,
    /// How many.
    pub steps: u32,
    /// What is ascended.
    pub loss: LossKind,
    /// Numbers of the random start and the place of the first sample among them, as [`Pgd::random_start`] takes them;
    /// without, it starts at the images.
    pub start: Option<(&'r Rng, u64)>,
}

/// Steps of the l-infinity attacks. Images are in [0, 1].
pub trait Pgd: Loss {
    /// `clamp(clean + eps (2u - 1), 0, 1)` with `u` uniform: element `(first + i) * features + j` of `rng` for
    /// feature `j` of sample `i`, so that a batch and its parts start at the same points.
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &Self::Buf) -> Self::Buf;
    /// One step of projected gradient ascent: `x += step sign(dx)` with sign(0) = 0, projected to the eps-ball around
    /// `clean`, then clamped to [0, 1]. Counts the gradient's elements and its zeros.
    #[allow(clippy::too_many_arguments)]
    fn pgd_step(
        &self,
        n: usize,
        eps: f32,
        step: f32,
        clean: &Self::Buf,
        dx: &Self::Buf,
        x: &mut Self::Buf,
        tally: &mut Self::Tally,
    );
    /// All of an attack on a LeNet with these parameters, in PyTorch's order, without leaving the device's cores between the
    /// steps: up to rounding what the other ops come to. `None` where a backend has no such kernel, or not for this size.
    fn attack_lenet(
        &self,
        _d: &LeNetDims,
        _ascent: &Ascent<'_>,
        _params: [&Self::Buf; 8],
        _clean: &Self::Buf,
        _labels: &Self::Labels,
        _tally: &mut Self::Tally,
    ) -> Option<Self::Buf> {
        None
    }
}
