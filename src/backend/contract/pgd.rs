//! Projected gradient descent.

use super::{Loss, LossKind, SequentialLayer};
use crate::base::rng::Rng;

/// Parameters of an attack by projected gradient ascent in the l-infinity ball.
#[derive(Clone, Copy, Debug)]
pub struct PgdParams<'r> {
    /// Radius of the ball.
    pub eps: f32,
    /// Length of a step.
    pub step_size: f32,
    /// Number of steps.
    pub steps: u32,
    /// The loss that is maximised.
    pub loss: LossKind,
    /// Numbers of the random start and the place of the first sample among them, as [`Pgd::random_start`] takes them. `None`
    /// starts at the clean images.
    pub start: Option<(&'r Rng, u64)>,
}

/// The steps of PGD. Images are in [0, 1].
pub trait Pgd: Loss {
    /// `clamp(clean + eps (2u - 1), 0, 1)` with `u` uniform: element `(first + i) * features + j` of `rng` for
    /// feature `j` of sample `i`, so that a batch and its parts start at the same points.
    fn random_start(
        &self,
        n: usize,
        features: usize,
        eps: f32,
        rng: &Rng,
        first: u64,
        clean: &Self::Batch,
    ) -> Self::Batch;
    /// One step of projected gradient ascent: `x += step sign(dx)` with sign(0) = 0, projected to the eps-ball around
    /// `clean`, then clamped to [0, 1]. Counts the gradient's elements and its zeros.
    #[allow(clippy::too_many_arguments)]
    fn pgd_step(
        &self,
        n: usize,
        eps: f32,
        step: f32,
        clean: &Self::Batch,
        dx: &Self::Batch,
        x: &mut Self::Batch,
        metrics: &mut Self::MetricsBuf,
    );
    /// All steps of an attack on `network` by one kernel, without leaving the device's cores between them: up to rounding what
    /// the other ops come to. `network` has the sizes of the batch `clean`, which fits it. `None` where the backend has no kernel
    /// for such a network, or not for this size.
    fn fused_pgd(
        &self,
        _network: &[SequentialLayer<'_, Self::Buf>],
        _params: &PgdParams<'_>,
        _clean: &Self::Batch,
        _labels: &Self::Labels,
        _metrics: &mut Self::MetricsBuf,
    ) -> Option<Self::Batch> {
        None
    }
}
