//! Natural and adversarial accuracy of a model.

use serde::{Deserialize, Serialize};

use super::pgd::{Batch, PgdAttack, Start};
use super::{OnImagePasses, PgdConfig};
use crate::autograd::tape::{Tape, Var};
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, Metrics};
use crate::base::binomial;
use crate::base::dims::LogitDims;
use crate::base::error::Result;
use crate::base::rng::{Rng, Stream};
use crate::nn::models::{Mode, Model};

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

/// How rarely chance alone may make a constant answer look like a trained network.
const SIGNIFICANCE: f64 = 0.01;

impl EvalReport {
    /// Whether the network has collapsed: it is not better than the best constant answer, which is right on the share
    /// `majority` of the images, by more than chance. That is a one-sided binomial test at the level of 1 %.
    pub fn collapsed(&self, majority: f64) -> bool {
        // A NaN becomes 0.
        let right = (self.natural / 100.0 * self.images as f64).round() as usize;
        binomial::at_least(right, self.images, majority) >= SIGNIFICANCE
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
/// image is a function of `seed`, of the start's number and of the image's place in `subset`. `on_image_passes` is
/// told of every pass.
///
/// # Errors
/// Whatever `on_image_passes` returns; [`crate::base::error::Error::Shape`] if the images do not fit the model.
pub fn evaluate<B: Backend>(
    backend: &B,
    model: &Model<B>,
    subset: &Subset<'_, '_, B>,
    attack: Option<&PgdConfig>,
    seed: u64,
    on_image_passes: OnImagePasses<'_>,
) -> Result<EvalReport> {
    Evaluation { backend, model, subset, attack, seed, on_image_passes }.run()
}

/// The logits of clean images in [`Mode::Eval`], `[images, classes]`.
///
/// # Errors
/// [`crate::base::error::Error::Shape`] if the images do not fit the model; what has gone wrong on the device.
pub fn logits<B: Backend>(backend: &B, model: &Model<B>, subset: &Subset<'_, '_, B>) -> Result<Vec<f32>> {
    let mut all = Vec::with_capacity(subset.indices.len() * model.architecture().classes);
    for indices in subset.indices.chunks(BATCH) {
        let parts = backend.map_parts(indices.len(), |range| {
            let part = &indices[range];
            let images = Tensor::new(backend.gather(subset.images, part, None), model.input(part.len()));
            let logits = backend.capture(part.len(), || forward(backend, model, images))?;
            Ok(logits.tensor().values(backend))
        });
        for part in parts {
            all.extend::<Vec<f32>>(part?);
        }
    }
    backend.status()?;
    Ok(all)
}

/// Logits of a batch.
fn forward<B: Backend>(backend: &B, model: &Model<B>, images: Tensor<B>) -> Result<Var<B>> {
    let tape = Tape::new(backend);
    let params = model.leaves(&tape);
    Ok(model.forward(&tape, &params, &tape.leaf(images), Mode::Eval)?.logits)
}

/// Image passes of an evaluation.
pub fn image_passes(images: usize, attack: Option<&PgdConfig>) -> u64 {
    (images * attack.map_or(1, |attack| 1 + attack.restarts * (attack.steps + 1))) as u64
}

/// Sums over some of the images.
#[derive(Default)]
struct Part {
    clean: Metrics,
    attacked: Metrics,
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

/// The arguments of [`evaluate`].
struct Evaluation<'a, 's, 'i, B: Backend> {
    backend: &'a B,
    model: &'a Model<B>,
    subset: &'a Subset<'s, 'i, B>,
    attack: Option<&'a PgdConfig>,
    seed: u64,
    on_image_passes: OnImagePasses<'a>,
}

impl<B: Backend> Evaluation<'_, '_, '_, B> {
    fn run(&self) -> Result<EvalReport> {
        let mut total = Part::default();
        for (batch, indices) in self.subset.indices.chunks(BATCH).enumerate() {
            let parts = self.backend.map_parts(indices.len(), |range| {
                let first = (batch * BATCH + range.start) as u64;
                self.part(&indices[range], first)
            });
            for part in parts {
                total.add(part?);
            }
        }
        Ok(total.report(self.subset.indices.len(), self.attack.is_some()))
    }

    /// Evaluates the images at `indices`, the first of which is at place `first` of the subset.
    fn part(&self, indices: &[u32], first: u64) -> Result<Part> {
        let backend = self.backend;
        let labels: Vec<u8> = indices.iter().map(|&i| self.subset.labels[i as usize]).collect();
        let (n, images) = (labels.len(), labels.len() as u64);
        let clean = backend.gather(self.subset.images, indices, None);
        let on_device = backend.labels(&labels);
        let batch = Batch { images: Tensor::new(clean, self.model.input(n)), labels: &on_device };
        let mut part = Part::default();
        let predictions = self.classify(&batch, &mut part.clean)?;
        part.predicted = predictions.iter().min().copied().zip(predictions.iter().max().copied());
        (self.on_image_passes)(images)?;
        let Some(config) = self.attack else { return Ok(part) };
        let mut robust = vec![true; labels.len()];
        for restart in 0..config.restarts {
            let rng = Rng::new(self.seed, Stream::EvalAttack, restart as u32);
            let start = Start { rng: &rng, first };
            let pgd = PgdAttack { backend, model: self.model, mode: Mode::Eval, config };
            let mut metrics = backend.metrics();
            let attacked = pgd.attack_and_tell(start, &batch, &mut metrics, self.on_image_passes)?;
            part.attacked += backend.metrics_read(&metrics);
            let predictions = self.classify(&Batch { images: attacked, ..batch }, &mut part.attacked)?;
            robust.iter_mut().zip(predictions.iter().zip(&labels)).for_each(|(r, (p, l))| *r &= p == l);
            (self.on_image_passes)(images)?;
        }
        part.robust = robust.into_iter().filter(|&r| r).count();
        Ok(part)
    }

    /// Predictions for a batch of images; adds its metrics to `counts`.
    fn classify(&self, batch: &Batch<'_, B>, counts: &mut Metrics) -> Result<Vec<u8>> {
        let (backend, model, n) = (self.backend, self.model, batch.n());
        let d = LogitDims { n: n as u32, classes: model.architecture().classes as u32 };
        let mut metrics = backend.metrics();
        let logits = backend.capture(n, || {
            let logits = forward(backend, model, batch.images.clone())?;
            backend.metrics_add(&d, logits.buf(), batch.labels, &mut metrics);
            Ok(logits)
        })?;
        *counts += backend.metrics_read(&metrics);
        let predictions = backend.predictions(&d, logits.buf());
        backend.status()?;
        Ok(predictions)
    }
}
