//! Rounds: an attack goes over its images once for each random start, each target class, or each start towards each target.

use super::target_model::TargetModel;
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::Result;
use crate::base::rng::{Rng, Stream};
use crate::nn::models::Model;

/// Other classes that the targeted attacks go for, at most: the likeliest ones.
const MOST_TARGETS: usize = 9;

/// Target classes on a network of `classes` classes.
pub(super) fn targets(classes: usize) -> usize {
    MOST_TARGETS.min(classes.saturating_sub(1))
}

/// The images of a round, its random numbers, and the network that a transfer attacks instead.
pub struct Round<'r, B: Backend> {
    /// Number of the round, counted from 0.
    pub number: usize,
    /// `[n, c, h, w]`, pixels in [0, 1].
    pub clean: &'r Tensor<B>,
    /// As many classes.
    pub labels: &'r [u8],
    /// Key of all random numbers.
    pub seed: u64,
    /// Place of the attack in its suite: it has random numbers of its own.
    pub attack: usize,
    /// Place of the first image among those of the round.
    pub first: u64,
    /// For attacks that [need one](super::Attack::needs_surrogate).
    pub surrogate: Option<&'r Model<B>>,
}

impl<B: Backend> Round<'_, B> {
    /// The random numbers of this attack and round.
    pub(super) fn rng(&self, stream: Stream) -> Rng {
        Rng::new(self.seed, stream, (self.attack << 16 | self.number) as u32)
    }

    /// A uniform random point of the l-infinity ball around each image.
    pub(super) fn random_start(&self, backend: &B, eps: f32) -> Tensor<B> {
        let shape = self.clean.shape();
        let features = shape.len() / self.labels.len();
        let rng = self.rng(Stream::SuiteStart);
        let x = backend.random_start(self.labels.len(), features, eps, &rng, self.first, self.clean.buf());
        Tensor::new(x, shape.clone())
    }

    /// For each image its `number`-th target class, counted from 0: number 0 is the class with the second largest logit.
    pub(super) fn target_classes(&self, target_model: &TargetModel<'_, B>, number: usize) -> Result<Vec<usize>> {
        Ok(target_model.logits(self.clean)?.ranked(2 + number))
    }
}
