//! One step of training: the attack, then the weights.

use std::sync::Arc;

use super::sparse::Sparsifier;
use crate::attack::pgd::{Attacked, Pgd, Start};
use crate::attack::{BnMode, PgdConfig};
use crate::backend::{Backend, Counts, LossKind};
use crate::dims::LogitDims;
use crate::error::Result;
use crate::init::{Init, initial_values};
use crate::models::{Architecture, Mode, Model};
use crate::ops;
use crate::optim::{Optimizer, OptimizerConfig};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// A network in training: its weights and the optimiser's state.
pub struct Trainer<B: Backend> {
    /// The network.
    pub model: Model<B>,
    /// What moves its weights.
    pub optimizer: Optimizer<B>,
    /// What keeps or makes them sparse.
    pub sparsifier: Sparsifier<B>,
}

impl<B: Backend> Trainer<B> {
    /// A fresh network with the initial weights of `seed`, and an optimiser without history.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn new(
        backend: &B,
        architecture: Architecture,
        init: Init,
        seed: u64,
        optimizer: &OptimizerConfig,
    ) -> Result<Self> {
        let values = initial_values(&architecture, init, seed);
        let model = Model::new(backend, Arc::new(architecture), &values)?;
        Ok(Trainer::of(backend, model, optimizer, Sparsifier::Dense))
    }

    /// `model` with an optimiser without history.
    pub fn of(backend: &B, model: Model<B>, optimizer: &OptimizerConfig, sparsifier: Sparsifier<B>) -> Self {
        let optimizer = Optimizer::new(backend, optimizer, model.params());
        Trainer { model, optimizer, sparsifier }
    }

    /// One step on the batch `clean`: attacks it, if there is an attack, and moves the weights down the gradient of the
    /// mean cross-entropy with learning rate `lr`. Returns what was counted on the way.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] if the batch does not fit the network.
    pub fn step(
        &mut self,
        backend: &B,
        clean: B::Buf,
        labels: &[u8],
        attack: Option<(&PgdConfig, Start<'_>)>,
        lr: f32,
    ) -> Result<Counts> {
        let (images, mut counts) = match attack {
            Some((config, start)) => {
                let attacked = self.attack(backend, config, start, &clean, labels)?;
                (attacked.images, attacked.counts)
            }
            None => (clean, Counts::default()),
        };
        counts += self.update(backend, images, labels, lr)?;
        Ok(counts)
    }

    /// The adversarial images of a step.
    fn attack(
        &mut self,
        backend: &B,
        config: &PgdConfig,
        start: Start<'_>,
        clean: &B::Buf,
        labels: &[u8],
    ) -> Result<Attacked<B>> {
        let mode = if config.bn == BnMode::Eval { Mode::Eval } else { Mode::Train };
        let pgd = Pgd { backend, model: &self.model, mode, config };
        if config.bn != BnMode::TrainMoving {
            return pgd.attack_in_parts(start, clean, labels);
        }
        let mut met = Vec::new();
        let attacked = pgd.attack(start, clean, labels, |stats| met.push(stats))?;
        // Training mode does not read the running statistics, so they may as well move after the last pass.
        met.into_iter().try_for_each(|stats| self.model.move_running(backend, stats))?;
        Ok(attacked)
    }

    /// One update of the weights on `images`.
    fn update(&mut self, backend: &B, images: B::Buf, labels: &[u8], lr: f32) -> Result<Counts> {
        let n = labels.len();
        let tape = Tape::new(backend);
        let params = self.model.leaves(&tape);
        let input = tape.leaf(Tensor::new(images, self.model.input(n)));
        let output = self.model.forward(&tape, &params, &input, Mode::Train)?;
        let labels = backend.labels(labels);
        let loss = ops::loss(&tape, LossKind::CrossEntropy, 1.0 / n as f32, &output.logits, &labels)?;
        let d = LogitDims { n: n as u32, classes: self.model.architecture().classes as u32 };
        let mut tally = backend.tally();
        backend.tally_add(&d, output.logits.buf(), &labels, &mut tally);
        let counts = backend.tally_read(&tally);
        let grads = tape.backward(&loss, &params.iter().collect::<Vec<_>>())?;
        // The optimiser wants the weights for itself.
        drop((params, input, output.logits));
        let constraint = |param| self.sparsifier.constraint(param);
        self.optimizer.step(backend, lr, &grads, self.model.params_mut(), constraint)?;
        self.model.move_running(backend, output.stats)?;
        self.sparsifier.after_step(backend, &mut self.model)?;
        Ok(counts)
    }
}
