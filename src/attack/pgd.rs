//! Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018).

use super::PgdConfig;
use crate::autograd::ops;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, PgdParams};
use crate::base::error::Result;
use crate::base::nvtx;
use crate::base::rng::Rng;
use crate::nn::models::{Mode, Model, Stats};

/// An attack on a model.
pub struct PgdAttack<'a, B: Backend> {
    /// What computes.
    pub backend: &'a B,
    /// The model under attack.
    pub model: &'a Model<B>,
    /// Where its batch normalisation takes statistics from.
    pub mode: Mode,
    /// Radius, steps, loss.
    pub config: &'a PgdConfig,
}

/// Where an attack begins and how strong it is.
#[derive(Clone, Copy, Debug)]
pub struct Start<'r> {
    /// Numbers of the random start.
    pub rng: &'r Rng,
    /// Position of the batch's first sample among those numbers.
    pub first: u64,
    /// Multiplies radius and step size, 0 to 1: the radius schedule of training.
    pub strength: f32,
}

/// Images and their classes.
pub struct Batch<'b, B: Backend> {
    /// `[n, c, h, w]`, pixels in [0, 1].
    pub images: Tensor<B>,
    /// As many labels.
    pub labels: &'b B::Labels,
}

impl<B: Backend> Batch<'_, B> {
    /// Number of images.
    pub fn n(&self) -> usize {
        self.images.shape().dims()[0]
    }
}

impl<B: Backend> PgdAttack<'_, B> {
    /// Attacks `batch` as a whole and returns the adversarial images. `tally` counts the gradient elements met, and how
    /// many of them were zero; `on_pass` gets the batch statistics of every forward pass, for running statistics that are
    /// to move.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] if the batch does not fit the model.
    pub fn attack(
        &self,
        start: Start<'_>,
        batch: &Batch<'_, B>,
        tally: &mut B::Tally,
        mut on_pass: impl FnMut(Stats<B>),
    ) -> Result<Tensor<B>> {
        let (n, clean) = (batch.n(), &batch.images);
        if let Some(x) = self.fused(start, batch, tally) {
            (0..self.config.steps).for_each(|_| on_pass(Stats::none()));
            return Ok(x);
        }
        let x = if self.config.random_start {
            let (features, eps) = (clean.shape().len() / n, start.strength * self.config.eps);
            self.backend.random_start(n, features, eps, start.rng, start.first, clean.buf())
        } else {
            self.backend.copy(clean.buf())
        };
        let x = Tensor::new(x, clean.shape().clone());
        self.ascend(start.strength, batch, x, tally, on_pass)
    }

    /// The whole attack by one kernel, if the backend has one for this network.
    fn fused(&self, start: Start<'_>, batch: &Batch<'_, B>, tally: &mut B::Tally) -> Option<Tensor<B>> {
        let (n, clean, config) = (batch.n(), &batch.images, self.config);
        let network = self.model.sequential(n).filter(|_| *clean.shape() == self.model.input(n))?;
        let params = PgdParams {
            eps: start.strength * config.eps,
            step_size: start.strength * config.step_size,
            steps: config.steps as u32,
            loss: config.loss.kind(),
            start: config.random_start.then_some((start.rng, start.first)),
        };
        let _range = nvtx::range(|| "attack".to_string());
        let x = self.backend.fused_pgd(&network, &params, clean.buf(), batch.labels, tally)?;
        Some(Tensor::new(x, clean.shape().clone()))
    }

    /// As [`PgdAttack::attack`] with batch statistics left alone, as one [`crate::backend::Memory::step`]. After every gradient
    /// `watch` is told how many images it was of; its error ends the attack.
    ///
    /// # Errors
    /// As [`PgdAttack::attack`]; whatever `watch` returns.
    pub fn attack_watched(
        &self,
        start: Start<'_>,
        batch: &Batch<'_, B>,
        tally: &mut B::Tally,
        watch: &(dyn Fn(u64) -> Result<()> + Sync),
    ) -> Result<Tensor<B>> {
        let mut told = Ok(());
        let attacked = self.backend.step(batch.n(), || {
            self.attack(start, batch, tally, |_| {
                if told.is_ok() {
                    told = watch(batch.n() as u64);
                }
            })
        })?;
        told.map(|()| attacked)
    }

    /// As [`PgdAttack::attack`] with batch statistics left alone, on the parts of a batch side by side where its samples do
    /// not depend on each other. The result is the same.
    ///
    /// # Errors
    /// As [`PgdAttack::attack`].
    pub fn attack_in_parts(&self, start: Start<'_>, batch: &Batch<'_, B>, tally: &mut B::Tally) -> Result<Tensor<B>> {
        let (backend, n) = (self.backend, batch.n());
        if self.model.couples_samples(self.mode) || !backend.splits(n) {
            return self.attack(start, batch, tally, drop);
        }
        let parts = backend.map_parts(n, |range| {
            let start = Start { first: start.first + range.start as u64, ..start };
            let labels = &backend.labels_part(range.clone(), batch.labels);
            let images = backend.part(n, range.clone(), batch.images.buf());
            let part = Batch { images: Tensor::new(images, self.model.input(range.len())), labels };
            let mut tally = backend.tally();
            Ok((self.attack(start, &part, &mut tally, drop)?, tally))
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
        let mut counts = backend.tally_read(tally);
        parts.iter().for_each(|(_, counted)| counts += backend.tally_read(counted));
        *tally = backend.tally_from(&counts);
        let images = backend.join(&parts.iter().map(|(images, _)| images.buf()).collect::<Vec<_>>());
        Ok(Tensor::new(images, batch.images.shape().clone()))
    }

    /// The steps from the point `x`: each goes up the gradient's sign, projects to the ball around the clean images,
    /// then clamps to [0, 1].
    ///
    /// # Errors
    /// As [`PgdAttack::attack`].
    pub fn ascend(
        &self,
        strength: f32,
        batch: &Batch<'_, B>,
        mut x: Tensor<B>,
        tally: &mut B::Tally,
        mut on_pass: impl FnMut(Stats<B>),
    ) -> Result<Tensor<B>> {
        let (backend, model) = (self.backend, self.model);
        let (eps, step) = (strength * self.config.eps, strength * self.config.step_size);
        for number in 0..self.config.steps {
            let _range = nvtx::range(|| format!("attack step {number}"));
            let tape = Tape::new(backend);
            let params = model.leaves(&tape);
            let input = tape.leaf(x.clone());
            let output = model.forward(&tape, &params, &input, self.mode)?;
            // The sum, not the mean: a sample's gradient must not underflow because its batch is large.
            let loss = ops::loss(&tape, self.config.loss.kind(), 1.0, &output.logits, batch.labels)?;
            let gradient = tape.backward(&loss, &[&input])?;
            on_pass(output.stats);
            drop((params, input));
            backend.pgd_step(batch.n(), eps, step, batch.images.buf(), gradient[0].buf(), x.buf_mut()?, tally);
        }
        Ok(x)
    }
}
