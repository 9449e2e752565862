//! Robust accuracy: attacks in order, each on the images that still stand, and the signs that the result cannot be
//! believed.

pub mod checks;
pub mod state;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::attack::OnImagePasses;
use crate::attack::config::AttackConfig;
use crate::attack::evaluation::Subset;
use crate::attack::round::Round;
use crate::attack::target_model::{ImagePasses, TargetModel};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::Result;
use crate::nn::models::Model;

/// Images attacked at once, at most; a backend cuts them up further. Bounds the memory, and what an interruption loses.
const BATCH: usize = 512;

/// The most that rounding changes a sum of a pixel and a radius by, in [0, 1].
const ROUNDING: f64 = f32::EPSILON as f64;

/// Where an adversarial image was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// Which of the attacks.
    pub attack: usize,
    /// Which of its rounds.
    pub round: usize,
    /// The class predicted for it.
    pub class: u8,
    /// Its distance from the clean image, as the attack measures it.
    pub distance: f64,
}

/// The results for an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Class it belongs to.
    pub label: u8,
    /// Class predicted for the clean image.
    pub natural: u8,
    /// The first attack that changed a right prediction.
    pub broken: Option<Broken>,
    /// The last attack and round that were tried on it.
    pub tried: Option<(usize, usize)>,
}

impl Verdict {
    /// Whether the clean image is classified correctly.
    pub fn right(&self) -> bool {
        self.natural == self.label
    }

    /// Whether this attack and round, or later ones, were tried on it.
    fn has_been_through(&self, here: (usize, usize)) -> bool {
        self.tried.is_some_and(|tried| tried >= here)
    }

    /// Whether it is classified correctly under everything that was tried.
    pub fn stands(&self) -> bool {
        self.right() && self.broken.is_none()
    }
}

/// The cost of an attack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// Passes through the network, over all images.
    #[serde(rename = "cost")]
    pub passes: ImagePasses,
}

/// How far a suite of attacks has come; complete when [`Suite::run`] has returned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// Of each image.
    pub verdicts: Vec<Verdict>,
    /// Of each attack.
    #[serde(rename = "spent")]
    pub costs: Vec<Cost>,
    /// The adversarial image of each image that was broken; of another the last attempt that stayed in the ball, or the
    /// clean image. `c × h × w` pixels each. Kept apart from the rest in files.
    #[serde(skip)]
    pub attempts: Vec<Vec<f32>>,
}

impl Assessment {
    /// Percent of the images classified correctly after the first `attacks` attacks; without any, clean.
    pub fn accuracy(&self, attacks: usize) -> f64 {
        let standing = |v: &&Verdict| v.right() && v.broken.as_ref().is_none_or(|broken| broken.attack >= attacks);
        100.0 * self.verdicts.iter().filter(standing).count() as f64 / self.verdicts.len().max(1) as f64
    }

    /// Images that the attack broke.
    pub fn broken_by(&self, attack: usize) -> usize {
        self.verdicts.iter().filter(|v| v.broken.as_ref().is_some_and(|broken| broken.attack == attack)).count()
    }
}

/// A network, its attacks, and the backend.
pub struct Suite<'a, 's, 'i, B: Backend> {
    /// The backend.
    pub backend: &'a B,
    /// The network under attack.
    pub model: &'a Model<B>,
    /// The network for attacks that [need one](crate::attack::Attack::needs_surrogate) to attack instead.
    pub surrogate: Option<&'a Model<B>>,
    /// The images.
    pub subset: &'a Subset<'s, 'i, B>,
    /// The attacks, in order.
    pub attacks: &'a [AttackConfig],
    /// Key of all random numbers.
    pub seed: u64,
    /// Told of every pass.
    pub on_image_passes: OnImagePasses<'a>,
}

/// The outcome for the images of a part.
struct Part {
    classes: Vec<u8>,
    distances: Vec<f64>,
    attempts: Vec<Vec<f32>>,
    passes: ImagePasses,
}

impl<B: Backend> Suite<'_, '_, '_, B> {
    /// Runs the attacks in order, each on the images that still stand, and goes on from what `assessment` has. Between
    /// batches `report` gets the assessment so far and the most image passes that are left. After an error, an interruption for
    /// example, `assessment` has all that was finished.
    ///
    /// # Errors
    /// Whatever `on_image_passes` and `report` return; as [`crate::attack::Attack::run`].
    pub fn run(
        &self,
        assessment: &mut Assessment,
        report: &mut dyn FnMut(&Assessment, u64) -> Result<()>,
    ) -> Result<()> {
        if assessment.verdicts.is_empty() {
            self.classify(assessment)?;
        }
        assessment.costs.resize(self.attacks.len(), Cost::default());
        report(assessment, self.image_passes_left(assessment, 0, 0))?;
        for (attack, config) in self.attacks.iter().enumerate() {
            for round in 0..config.rounds(self.model.architecture().classes) {
                let here = (attack, round);
                let takes_part = |v: &Verdict| {
                    v.stands() || v.broken.as_ref().is_some_and(|broken| (broken.attack, broken.round) == here)
                };
                // Those that the rounds before left, broken in this one or not: a resumed round has the same images.
                let standing: Vec<usize> =
                    (0..assessment.verdicts.len()).filter(|&i| takes_part(&assessment.verdicts[i])).collect();
                for (number, images) in standing.chunks(BATCH).enumerate() {
                    if images.iter().all(|&i| assessment.verdicts[i].has_been_through(here)) {
                        continue;
                    }
                    let begun = Instant::now();
                    let outcome = self.batch(here, images, (number * BATCH) as u64, assessment);
                    assessment.costs[attack].seconds += begun.elapsed().as_secs_f64();
                    outcome?;
                    report(assessment, self.image_passes_left(assessment, attack, round))?;
                }
            }
        }
        Ok(())
    }

    /// Predictions for the clean images.
    fn classify(&self, assessment: &mut Assessment) -> Result<()> {
        let mut verdicts = Vec::new();
        let mut attempts = Vec::new();
        for images in self.subset.indices.chunks(BATCH) {
            let parts = self.backend.map_parts(images.len(), |range| {
                let clean = self.clean(&images[range]);
                let target_model = TargetModel::new(self.backend, self.model, self.on_image_passes);
                Ok((target_model.logits(&clean)?.predictions(), clean.values(self.backend)))
            });
            for part in parts {
                let (predictions, pixels) = part?;
                attempts.extend(pixels.chunks_exact(pixels.len() / predictions.len()).map(<[f32]>::to_vec));
                for natural in predictions {
                    let label = self.subset.labels[self.subset.indices[verdicts.len()] as usize];
                    verdicts.push(Verdict { label, natural, broken: None, tried: None });
                }
            }
        }
        self.backend.status()?;
        (assessment.verdicts, assessment.attempts) = (verdicts, attempts);
        Ok(())
    }

    /// Attacks some of the images, the first of which is at place `first` of the round.
    fn batch(&self, here: (usize, usize), images: &[usize], first: u64, assessment: &mut Assessment) -> Result<()> {
        let shared = Mutex::new(assessment);
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = self.backend.map_parts(images.len(), |range| {
            let place = first + range.start as u64;
            let images = &images[range];
            if images.iter().all(|&i| lock().verdicts[i].has_been_through(here)) {
                return Ok(());
            }
            let part = self.part(here, images, place)?;
            enter(&mut lock(), here, self.attacks[here.0].eps(), images, part);
            Ok(())
        });
        parts.into_iter().collect::<Result<()>>()?;
        self.backend.status()
    }

    /// Attacks these images and judges what comes of it, with a pass of its own.
    fn part(&self, (attack, round): (usize, usize), images: &[usize], first: u64) -> Result<Part> {
        let (backend, config) = (self.backend, &self.attacks[attack]);
        let indices: Vec<u32> = images.iter().map(|&i| self.subset.indices[i]).collect();
        let labels: Vec<u8> = indices.iter().map(|&i| self.subset.labels[i as usize]).collect();
        let clean = self.clean(&indices);
        let target_model = TargetModel::new(backend, self.model, self.on_image_passes);
        let (seed, surrogate) = (self.seed, self.surrogate);
        let round = Round { number: round, clean: &clean, labels: &labels, seed, attack, first, surrogate };
        let x = config.run(&target_model, &round)?;
        let passes = target_model.image_passes();
        let classes = target_model.logits(&x)?.predictions();
        let distances = backend.distances(labels.len(), config.distance(), x.buf(), clean.buf());
        let pixels = x.values(backend);
        let attempts = pixels.chunks_exact(pixels.len() / labels.len()).map(<[f32]>::to_vec).collect();
        Ok(Part { classes, distances, attempts, passes })
    }

    fn clean(&self, indices: &[u32]) -> Tensor<B> {
        let images = self.backend.gather(self.subset.images, indices, None);
        Tensor::new(images, self.model.input(indices.len()))
    }

    /// Most image passes that are left from this attack and round on.
    fn image_passes_left(&self, assessment: &Assessment, attack: usize, round: usize) -> u64 {
        let standing = assessment.verdicts.iter().filter(|v| v.stands());
        let here = standing.clone().filter(|v| !v.has_been_through((attack, round))).count() as u64;
        let classes = self.model.architecture().classes;
        let rounds = self.attacks.iter().enumerate().skip(attack).map(|(number, config)| {
            let done = if number == attack { round + 1 } else { 0 };
            config.rounds(classes).saturating_sub(done) as u64 * config.image_passes()
        });
        let later = rounds.sum::<u64>() * standing.count() as u64;
        later + here * self.attacks.get(attack).map_or(0, |config| config.image_passes())
    }
}

/// Enters the outcome for a part's images.
fn enter(assessment: &mut Assessment, here: (usize, usize), eps: f32, images: &[usize], part: Part) {
    let passes = &mut assessment.costs[here.0].passes;
    *passes = *passes + part.passes;
    for (slot, ((&i, attempt), distance)) in images.iter().zip(part.attempts).zip(part.distances).enumerate() {
        let verdict = &mut assessment.verdicts[i];
        verdict.tried = Some(here);
        // A NaN is neither within the radius nor an image.
        let valid = distance <= f64::from(eps) + ROUNDING && attempt.iter().all(|v| (0.0..=1.0).contains(v));
        if !valid {
            continue;
        }
        let class = part.classes[slot];
        if class != verdict.label {
            verdict.broken = Some(Broken { attack: here.0, round: here.1, class, distance });
        }
        if distance > 0.0 {
            assessment.attempts[i] = attempt;
        }
    }
}
