//! Natural and adversarial accuracy of a model.

use serde::{Deserialize, Serialize};

use crate::attack::PgdConfig;
use crate::attack::pgd::{Pgd, Start};
use crate::backend::{Backend, Counts};
use crate::dims::LogitDims;
use crate::error::Result;
use crate::models::{Mode, Model};
use crate::rng::{Rng, Stream};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Accuracies in percent, mean losses in nats, over `images` images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Images evaluated.
    pub images: usize,
    /// Percent of clean images classified correctly.
    pub natural: f64,
    /// Percent of images classified correctly under every start of the attack; `natural` without an attack.
    pub adversarial: f64,
    /// Mean cross-entropy on the clean images.
    pub natural_loss: f64,
    /// Mean cross-entropy on the attacked images, over all starts; `natural_loss` without an attack.
    pub adversarial_loss: f64,
    /// Fraction of pixels whose input gradient was exactly zero, over all attack steps.
    pub zero_gradient: f64,
    /// The class predicted for every clean image, if it is the same one.
    pub constant_prediction: Option<u8>,
}

impl EvalReport {
    /// Whether a network of `classes` classes has collapsed: one class for every image, and no better than guessing.
    pub fn collapsed(&self, classes: usize) -> bool {
        self.constant_prediction.is_some() && self.natural_loss > 0.9 * (classes as f64).ln()
    }
}

/// The images to evaluate on: some of a split.
pub struct Subset<'s, 'i, B: Backend> {
    /// All images of the split.
    pub images: &'s B::Resident<'i>,
    /// All labels of the split.
    pub labels: &'s [u8],
    /// Which of them.
    pub indices: &'s [u32],
}

/// Images sent through the network at once; bounds the memory, not the result.
const BATCH: usize = 512;

/// Evaluates in [`Mode::Eval`], on clean images and, if there is an attack, on attacked ones. The random start of an
/// image is a function of `seed`, of the start's number and of the image's place in `subset`. `tick` is told how many image
/// passes were done, from any thread, and may end the evaluation with an error.
///
/// # Errors
/// Whatever `tick` returns; [`crate::error::Error::Shape`] if the images do not fit the model.
pub fn evaluate<B: Backend>(
    backend: &B,
    model: &Model<B>,
    subset: &Subset<'_, '_, B>,
    attack: Option<&PgdConfig>,
    seed: u64,
    tick: &(dyn Fn(u64) -> Result<()> + Sync),
) -> Result<EvalReport> {
    let mut total = Part::default();
    for (batch, indices) in subset.indices.chunks(BATCH).enumerate() {
        let parts = backend.map_parts(indices.len(), |range| {
            let first = (batch * BATCH + range.start) as u64;
            evaluate_part(backend, model, subset, &indices[range], attack, seed, first, tick)
        });
        for part in parts {
            total.add(part?);
        }
    }
    Ok(total.report(subset.indices.len(), attack.is_some()))
}

/// Sums over some of the images.
#[derive(Default)]
struct Part {
    clean: Counts,
    attacked: Counts,
    robust: usize,
    /// Smallest and largest class predicted for a clean image.
    predicted: Option<(u8, u8)>,
}

impl Part {
    fn add(&mut self, other: Part) {
        self.clean += other.clean;
        self.attacked += other.attacked;
        self.robust += other.robust;
        self.predicted = match (self.predicted, other.predicted) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }

    fn report(&self, images: usize, attacked: bool) -> EvalReport {
        let natural = self.clean.accuracy();
        let robust = 100.0 * self.robust as f64 / images.max(1) as f64;
        EvalReport {
            images,
            natural,
            adversarial: if attacked { robust } else { natural },
            natural_loss: self.clean.mean_loss(),
            adversarial_loss: if attacked { self.attacked.mean_loss() } else { self.clean.mean_loss() },
            zero_gradient: self.attacked.zero_gradient(),
            constant_prediction: self.predicted.and_then(|(low, high)| (low == high).then_some(low)),
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn evaluate_part<B: Backend>(
    backend: &B,
    model: &Model<B>,
    subset: &Subset<'_, '_, B>,
    indices: &[u32],
    attack: Option<&PgdConfig>,
    seed: u64,
    first: u64,
    tick: &(dyn Fn(u64) -> Result<()> + Sync),
) -> Result<Part> {
    let labels: Vec<u8> = indices.iter().map(|&i| subset.labels[i as usize]).collect();
    let clean = backend.gather(subset.images, indices, None);
    let mut part = Part::default();
    let predictions = classify(backend, model, backend.copy(&clean), &labels, &mut part.clean)?;
    part.predicted = predictions.iter().min().copied().zip(predictions.iter().max().copied());
    tick(labels.len() as u64)?;
    let Some(attack) = attack else { return Ok(part) };
    let mut robust = vec![true; labels.len()];
    for restart in 0..attack.restarts {
        let rng = Rng::new(seed, Stream::EvalAttack, restart as u32);
        let start = Start { rng: &rng, first, strength: 1.0 };
        let attacked = Pgd { backend, model, mode: Mode::Eval, config: attack }.attack(start, &clean, &labels, drop)?;
        part.attacked += attacked.counts;
        let predictions = classify(backend, model, attacked.images, &labels, &mut part.attacked)?;
        robust.iter_mut().zip(predictions.iter().zip(&labels)).for_each(|(r, (p, l))| *r &= p == l);
        tick((labels.len() * (attack.steps + 1)) as u64)?;
    }
    part.robust = robust.into_iter().filter(|&r| r).count();
    Ok(part)
}

/// Predictions for a batch of images, tallied.
fn classify<B: Backend>(
    backend: &B,
    model: &Model<B>,
    images: B::Buf,
    labels: &[u8],
    counts: &mut Counts,
) -> Result<Vec<u8>> {
    let n = labels.len();
    let d = LogitDims { n: n as u32, classes: model.architecture().classes as u32 };
    let tape = Tape::new(backend);
    let params = model.leaves(&tape);
    let input = tape.leaf(Tensor::new(images, model.input(n)));
    let logits = model.forward(&tape, &params, &input, Mode::Eval)?.logits;
    let mut tally = backend.tally();
    backend.tally_add(&d, logits.buf(), &backend.labels(labels), &mut tally);
    *counts += backend.tally_read(&tally);
    Ok(backend.predictions(&d, logits.buf()))
}
