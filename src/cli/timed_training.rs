//! Training steps of which only the time counts.

use crate::attack::PgdConfig;
use crate::attack::pgd::{Batch, Start};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::Result;
use crate::base::rng::{Rng, Stream};
use crate::train::Trainer;

/// Key of the attack's random starts.
const SEED: u64 = 0;

/// A network and the images that it is trained on, the same ones in each step.
pub struct TimedTraining<'a, B: Backend> {
    trainer: Trainer<B>,
    images: B::Resident<'a>,
    labels: &'a [u8],
    lr: f32,
    metrics: B::MetricsBuf,
    steps: u32,
}

impl<'a, B: Backend> TimedTraining<'a, B> {
    /// `images` are bytes of as many images as there are `labels`.
    pub fn new(backend: &B, trainer: Trainer<B>, lr: f32, images: &'a [u8], labels: &'a [u8]) -> Self {
        let images = backend.resident(trainer.model.architecture().network.input(), images);
        TimedTraining { trainer, images, labels, lr, metrics: backend.metrics(), steps: 0 }
    }

    /// One step on the first `n` images.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step(&mut self, backend: &B, n: usize, attack: Option<&PgdConfig>) -> Result<()> {
        let indices: Vec<u32> = (0..n as u32).collect();
        let rng = Rng::new(SEED, Stream::TrainAttack, self.steps);
        self.steps += 1;
        let clean = backend.gather(&self.images, &indices, None);
        let images = Tensor::new(clean, self.trainer.model.input(n));
        let batch = Batch { images, labels: &backend.labels(&self.labels[..n]) };
        let attack = attack.map(|attack| (attack, Start { rng: &rng, first: 0 }));
        self.trainer.step(backend, &batch, attack, self.lr, &mut self.metrics)
    }
}
