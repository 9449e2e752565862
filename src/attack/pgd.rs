//! Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018).

use super::PgdConfig;
use crate::backend::{Backend, Counts};
use crate::error::Result;
use crate::models::{Mode, Model, Stats};
use crate::ops;
use crate::rng::Rng;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// An attack on a model.
pub struct Pgd<'a, B: Backend> {
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

/// Result of an attack.
pub struct Attacked<B: Backend> {
    /// The adversarial batch.
    pub images: B::Buf,
    /// Gradient elements met, and how many of them were zero.
    pub counts: Counts,
}

impl<B: Backend> Pgd<'_, B> {
    /// Attacks the batch `clean` as a whole. `on_pass` gets the batch statistics of every forward pass, for running
    /// statistics that are to move.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] if the batch does not fit the model.
    pub fn attack(
        &self,
        start: Start<'_>,
        clean: &B::Buf,
        labels: &[u8],
        on_pass: impl FnMut(Stats<B>),
    ) -> Result<Attacked<B>> {
        let n = labels.len();
        let features = self.model.input(n).len() / n;
        let x = if self.config.random_start {
            let eps = start.strength * self.config.eps;
            self.backend.random_start(n, features, eps, start.rng, start.first, clean)
        } else {
            self.backend.copy(clean)
        };
        self.ascend(start.strength, clean, x, labels, on_pass)
    }

    /// As [`Pgd::attack`] with batch statistics left alone, on the parts of a batch side by side where its samples do
    /// not depend on each other. The result is the same.
    ///
    /// # Errors
    /// As [`Pgd::attack`].
    pub fn attack_in_parts(&self, start: Start<'_>, clean: &B::Buf, labels: &[u8]) -> Result<Attacked<B>> {
        if self.model.couples_samples(self.mode) {
            return self.attack(start, clean, labels, drop);
        }
        let n = labels.len();
        let parts = self.backend.map_parts(n, |range| {
            let start = Start { first: start.first + range.start as u64, ..start };
            self.attack(start, &self.backend.part(n, range.clone(), clean), &labels[range], drop)
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
        let mut counts = Counts::default();
        parts.iter().for_each(|part| counts += part.counts);
        let images = self.backend.join(&parts.iter().map(|part| &part.images).collect::<Vec<_>>());
        Ok(Attacked { images, counts })
    }

    /// The steps from the point `x`: each goes up the gradient's sign, projects to the ball around the clean images,
    /// then clamps to [0, 1].
    ///
    /// # Errors
    /// As [`Pgd::attack`].
    pub fn ascend(
        &self,
        strength: f32,
        clean: &B::Buf,
        x: B::Buf,
        labels: &[u8],
        mut on_pass: impl FnMut(Stats<B>),
    ) -> Result<Attacked<B>> {
        let (backend, model, n) = (self.backend, self.model, labels.len());
        let (eps, step) = (strength * self.config.eps, strength * self.config.step_size);
        let labels = backend.labels(labels);
        let mut tally = backend.tally();
        let mut x = Tensor::new(x, model.input(n));
        for _ in 0..self.config.steps {
            let tape = Tape::new(backend);
            let params = model.leaves(&tape);
            let input = tape.leaf(x.clone());
            let output = model.forward(&tape, &params, &input, self.mode)?;
            // The sum, not the mean: a sample's gradient must not underflow because its batch is large.
            let loss = ops::loss(&tape, self.config.loss.kind(), 1.0, &output.logits, &labels)?;
            let gradient = tape.backward(&loss, &[&input])?;
            on_pass(output.stats);
            drop((params, input));
            backend.pgd_step(n, eps, step, clean, gradient[0].buf(), x.buf_mut()?, &mut tally);
        }
        Ok(Attacked { images: x.into_buf()?, counts: backend.tally_read(&tally) })
    }
}
