//! One step of training: the attack, then the weights.

use std::sync::Arc;

use super::sparse::Sparsifier;
use crate::attack::pgd::{Batch, PgdAttack, Start};
use crate::attack::{BnMode, PgdConfig};
use crate::autograd::ops;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, LossKind};
use crate::base::dims::LogitDims;
use crate::base::error::Result;
use crate::base::nvtx;
use crate::nn::init::{Init, initial_values};
use crate::nn::models::{Architecture, Mode, Model};
use crate::nn::optim::{Optimizer, OptimizerConfig};

/// A network in training: its weights and the optimiser's state.
pub struct Trainer<B: Backend> {
    /// The network.
    pub model: Model<B>,
    /// The update rule, and what it remembers.
    pub optimizer: Optimizer<B>,
    /// Keeps or makes the weights sparse.
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

    /// One step on `batch`: attacks it, if there is an attack, and updates the weights along the gradient of the
    /// mean cross-entropy with learning rate `lr`. What was counted on the way is added to `metrics`.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] if the batch does not fit the network; what [`crate::backend::Memory::status`] says.
    pub fn step(
        &mut self,
        backend: &B,
        batch: &Batch<'_, B>,
        attack: Option<(&PgdConfig, Start<'_>)>,
        lr: f32,
        metrics: &mut B::MetricsBuf,
    ) -> Result<()> {
        let step = || match attack {
            Some((config, start)) => {
                let images = self.attack(backend, config, start, batch, metrics)?;
                self.update(backend, &Batch { images, labels: batch.labels }, lr, metrics)
            }
            None => self.update(backend, batch, lr, metrics),
        };
        backend.parallel(|| backend.capture(batch.n(), step))?;
        self.sparsifier.after_step(backend, &mut self.model)?;
        backend.status()
    }

    /// The adversarial images of a step.
    fn attack(
        &mut self,
        backend: &B,
        config: &PgdConfig,
        start: Start<'_>,
        batch: &Batch<'_, B>,
        metrics: &mut B::MetricsBuf,
    ) -> Result<Tensor<B>> {
        let mode = if config.bn == BnMode::Eval { Mode::Eval } else { Mode::Train };
        let pgd = PgdAttack { backend, model: &self.model, mode, config };
        if config.bn != BnMode::TrainMoving {
            return pgd.attack_in_parts(start, batch, metrics);
        }
        let mut batches = Vec::new();
        let images = pgd.attack(start, batch, metrics, |stats| batches.push(stats))?;
        // Training mode does not read the running statistics, so they may as well be updated after the last pass.
        batches.into_iter().try_for_each(|stats| self.model.update_running_stats(backend, stats))?;
        Ok(images)
    }

    /// One update of the weights on `batch`.
    fn update(&mut self, backend: &B, batch: &Batch<'_, B>, lr: f32, metrics: &mut B::MetricsBuf) -> Result<()> {
        let n = batch.n();
        let _range = nvtx::range(|| "update".to_string());
        let tape = Tape::new(backend);
        let params = self.model.leaves(&tape);
        let input = tape.leaf(batch.images.clone());
        let output = self.model.forward(&tape, &params, &input, Mode::Train)?;
        let loss = ops::loss(&tape, LossKind::CrossEntropy, 1.0 / n as f32, &output.logits, batch.labels);
        let d = LogitDims { n: n as u32, classes: self.model.architecture().classes as u32 };
        backend.metrics_add(&d, output.logits.buf(), batch.labels, metrics);
        let gradients = tape.backward(&loss, &[], &params.iter().collect::<Vec<_>>())?;
        // The optimiser wants the weights for itself.
        drop((params, input, output.logits));
        let constraint = |param| self.sparsifier.constraint(param);
        self.optimizer.step(backend, lr, &gradients.params, self.model.params_mut(), constraint)?;
        self.model.update_running_stats(backend, output.stats)
    }
}
