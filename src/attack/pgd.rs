//! Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018).

use super::PgdConfig;
use crate::backend::{Backend, Counts};
use crate::error::Result;
use crate::models::{Mode, Model, Stats};
use crate::ops;
use crate::rng::Rng;
use crate::tape::Tape;
use crate::tensor::Tensor;

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

/// Attacks the batch `clean` as a whole and returns the adversarial batch, adding to the gradient counts.
/// `on_pass` gets the batch statistics of every forward pass, for running statistics that are to move.
///
/// # Errors
/// [`crate::error::Error::Shape`] if the batch does not fit the model.
#[allow(clippy::too_many_arguments)]
pub fn pgd<B: Backend>(
    backend: &B,
    model: &Model<B>,
    mode: Mode,
    config: &PgdConfig,
    start: Start<'_>,
    clean: &B::Buf,
    labels: &[u8],
    counts: &mut Counts,
    on_pass: impl FnMut(Stats<B>),
) -> Result<B::Buf> {
    let n = labels.len();
    let features = model.input(n).len() / n;
    let eps = start.strength * config.eps;
    let x = if config.random_start {
        backend.random_start(n, features, eps, start.rng, start.first, clean)
    } else {
        backend.copy(clean)
    };
    pgd_from(backend, model, mode, config, start.strength, clean, x, labels, counts, on_pass)
}

/// As [`pgd`] from a given point: each step goes up the gradient's sign, projects to the ball around the clean images,
/// then clamps to [0, 1].
///
/// # Errors
/// As [`pgd`].
#[allow(clippy::too_many_arguments)]
pub fn pgd_from<B: Backend>(
    backend: &B,
    model: &Model<B>,
    mode: Mode,
    config: &PgdConfig,
    strength: f32,
    clean: &B::Buf,
    x: B::Buf,
    labels: &[u8],
    counts: &mut Counts,
    mut on_pass: impl FnMut(Stats<B>),
) -> Result<B::Buf> {
    let n = labels.len();
    let (eps, step) = (strength * config.eps, strength * config.step_size);
    let labels = backend.labels(labels);
    let mut tally = backend.tally();
    let mut x = Tensor::new(x, model.input(n));
    for _ in 0..config.steps {
        let tape = Tape::new(backend);
        let params = model.leaves(&tape);
        let input = tape.leaf(x.clone());
        let output = model.forward(&tape, &params, &input, mode)?;
        // The sum, not the mean: a sample's gradient must not underflow because its batch is large.
        let loss = ops::loss(&tape, config.loss.kind(), 1.0, &output.logits, &labels)?;
        let gradient = tape.backward(&loss, &[&input])?;
        on_pass(output.stats);
        drop((params, input));
        backend.pgd_step(n, eps, step, clean, gradient[0].buf(), x.buf_mut()?, &mut tally);
    }
    *counts += backend.tally_read(&tally);
    x.into_buf()
}

/// As [`pgd`] with batch statistics left alone, on the parts of a batch side by side where its samples do not depend
/// on each other. The result is the same.
///
/// # Errors
/// As [`pgd`].
#[allow(clippy::too_many_arguments)]
pub fn pgd_in_parts<B: Backend>(
    backend: &B,
    model: &Model<B>,
    mode: Mode,
    config: &PgdConfig,
    start: Start<'_>,
    clean: &B::Buf,
    labels: &[u8],
    counts: &mut Counts,
) -> Result<B::Buf> {
    if model.couples_samples(mode) {
        return pgd(backend, model, mode, config, start, clean, labels, counts, drop);
    }
    let n = labels.len();
    let parts = backend.map_parts(n, |range| {
        let mut counts = Counts::default();
        let start = Start { first: start.first + range.start as u64, ..start };
        let clean = backend.part(n, range.clone(), clean);
        pgd(backend, model, mode, config, start, &clean, &labels[range], &mut counts, drop).map(|x| (x, counts))
    });
    let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
    parts.iter().for_each(|(_, part)| *counts += *part);
    Ok(backend.join(&parts.iter().map(|(x, _)| x).collect::<Vec<_>>()))
}
