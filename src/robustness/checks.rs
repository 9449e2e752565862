//! Signs that a network only hides its gradients, and that robust accuracy measured with them cannot be believed (Athalye et
//! al., "Obfuscated gradients give a false sense of security", 2018; Carlini et al., "On evaluating adversarial
//! robustness", 2019).

use serde::Serialize;

use super::{Assessment, Suite};
use crate::attack::apgd::{ApgdConfig, ApgdLoss};
use crate::attack::objective;
use crate::attack::probe::Probe;
use crate::attack::square::SquareConfig;
use crate::attack::suite::AttackConfig;
use crate::attack::{AttackLoss, BnMode, PgdConfig};
use crate::backend::{Backend, Distance};
use crate::error::Result;
use crate::eval;
use crate::rng::{Rng, Stream};
use crate::tensor::Tensor;

/// What was looked at, and whether it is as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// Nothing in it speaks against the network.
    pub passed: bool,
    /// The numbers.
    pub finding: String,
}

/// Steps of PGD, from few to many; the last is also the strength at which nothing may stand in the largest ball.
const STEPS: [usize; 3] = [10, 40, 100];

/// Queries that Square gets.
const QUERIES: usize = 1000;

/// Percent of the images that may contradict, by chance or because attacks are not perfect.
const TOLERANCE: f64 = 1.0;

/// A gradient none of whose elements is as large is taken for none.
const VANISHING: f64 = 1e-10;

/// Percent of the images that may have no gradient to speak of.
const MOST_VANISHING: f64 = 5.0;

impl<B: Backend> Suite<'_, '_, '_, B> {
    /// All checks, in the l-infinity ball of radius `eps`, on the images of the suite. Which attacks it has does not matter.
    ///
    /// # Errors
    /// As [`Suite::run`].
    pub fn checks(&self, eps: f32) -> Result<Vec<Check>> {
        Ok(vec![
            self.repeatable()?,
            self.nothing_at_zero()?,
            self.gradients(eps)?,
            self.more_steps(eps)?,
            self.larger_balls(eps)?,
            self.black_box(eps)?,
        ])
    }

    /// Most image passes of [`Suite::checks`].
    pub fn check_passes(&self) -> u64 {
        let steps = STEPS.iter().sum::<usize>() + STEPS[0] + 2 * STEPS[2] + 2 * STEPS[2] + QUERIES + 4;
        let transfer = if self.surrogate.is_some() { STEPS[1] } else { 0 };
        ((steps + transfer) * self.subset.indices.len()) as u64
    }

    /// The suite's network under other attacks.
    fn under(&self, attacks: &[AttackConfig]) -> Result<Assessment> {
        let mut assessment = Assessment::default();
        Suite { attacks, ..*self }.run(&mut assessment, &mut |_, _| Ok(()))?;
        Ok(assessment)
    }

    fn accuracy(&self, attack: PgdConfig) -> Result<f64> {
        Ok(self.under(&[AttackConfig::Pgd(attack)])?.accuracy(1))
    }

    /// Network and device give the same logits twice.
    fn repeatable(&self) -> Result<Check> {
        let logits = || eval::logits(self.backend, self.model, self.subset);
        let (once, again) = (logits()?, logits()?);
        let differ = once.iter().zip(&again).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let numbers = once.iter().filter(|logit| logit.is_finite()).count();
        let finding =
            format!("{differ} of {} logits differ in a second pass, {} not finite", once.len(), once.len() - numbers);
        Ok(Check { name: "repeatable", passed: differ == 0 && numbers == once.len(), finding })
    }

    /// In a ball of radius 0 there is nothing but the clean image.
    fn nothing_at_zero(&self) -> Result<Check> {
        let assessment = self.under(&[AttackConfig::Pgd(pgd(0.0, STEPS[0]))])?;
        let (clean, attacked) = (assessment.accuracy(0), assessment.accuracy(1));
        let finding = format!("accuracy {clean:.2} clean, {attacked:.2} under PGD with eps 0");
        Ok(Check { name: "eps 0", passed: clean == attacked, finding })
    }

    /// The cross-entropy has a gradient at random points of the ball.
    fn gradients(&self, eps: f32) -> Result<Check> {
        let parts = self.backend.map_parts(self.subset.indices.len(), |range| {
            let (backend, first, indices) = (self.backend, range.start as u64, &self.subset.indices[range]);
            let clean = self.clean(indices);
            let (n, features) = (indices.len(), clean.shape().len() / indices.len());
            let rng = Rng::new(self.seed, Stream::SuiteStart, u32::MAX);
            let start = backend.random_start(n, features, eps, &rng, first, clean.buf());
            let label = |i: usize| usize::from(self.subset.labels[indices[i] as usize]);
            let climb = Probe::new(backend, self.model, self.watch)
                .gradient(&Tensor::new(start, clean.shape().clone()), |i, z, dz| {
                    objective::cross_entropy(z, label(i), dz)
                })?;
            let zero = backend.upload_batch(n, &vec![0.0; n * features]);
            Ok(backend.distances(n, Distance::LInf, climb.dx.buf(), &zero))
        });
        let largest = parts.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let zero = largest.iter().filter(|&&g| g == 0.0).count();
        // A NaN is no gradient either.
        let vanishing = largest.iter().filter(|g| **g < VANISHING || g.is_nan()).count();
        let percent = 100.0 * vanishing as f64 / largest.len() as f64;
        let finding = format!(
            "of {} images {zero} have a gradient of exactly zero, {} one below {VANISHING:.0e}",
            largest.len(),
            vanishing - zero
        );
        Ok(Check { name: "gradients", passed: percent <= MOST_VANISHING, finding })
    }

    /// A longer attack does not leave more images standing.
    fn more_steps(&self, eps: f32) -> Result<Check> {
        let accuracies = STEPS.iter().map(|&steps| self.accuracy(pgd(eps, steps))).collect::<Result<Vec<_>>>()?;
        let passed = accuracies.windows(2).all(|pair| pair[1] <= pair[0] + TOLERANCE);
        let finding = format!("accuracy {} under PGD with {} steps", list(&accuracies), list_of(&STEPS));
        Ok(Check { name: "more steps", passed, finding })
    }

    /// In a ball of all images nothing stands.
    fn larger_balls(&self, eps: f32) -> Result<Check> {
        let between = (1.0 + eps.min(1.0)) / 2.0;
        let under = |eps| self.accuracy(pgd(eps, STEPS[2]));
        let accuracies = [under(between)?, under(1.0)?];
        let passed = accuracies[1] <= TOLERANCE;
        let finding = format!("accuracy {} with eps {between:.3}, 1 ({} steps)", list(&accuracies), STEPS[2]);
        Ok(Check { name: "large eps", passed, finding })
    }

    /// Attacks that do not see the network's gradient break nothing that attacks which do have left.
    fn black_box(&self, eps: f32) -> Result<Check> {
        let mut attacks = vec![
            AttackConfig::Pgd(pgd(eps, STEPS[2])),
            AttackConfig::Apgd(ApgdConfig::published(eps, ApgdLoss::Dlr)),
            AttackConfig::Square(SquareConfig { queries: QUERIES, ..SquareConfig::published(eps) }),
        ];
        if self.surrogate.is_some() {
            attacks.push(AttackConfig::Transfer(pgd(eps, STEPS[1])));
        }
        attacks.retain(|attack| attack.validate(self.model.architecture().classes).is_ok());
        let assessment = self.under(&attacks)?;
        let blind = attacks.iter().enumerate().filter(|(_, attack)| !attack.is_white_box());
        let broken: Vec<(&str, usize)> = blind.map(|(i, attack)| (attack.name(), assessment.broken_by(i))).collect();
        let white = attacks.iter().filter(|attack| attack.is_white_box()).count();
        let left = (assessment.accuracy(white) * assessment.verdicts.len() as f64 / 100.0).round();
        let images = assessment.verdicts.len();
        let total: usize = broken.iter().map(|(_, broken)| broken).sum();
        let passed = 100.0 * total as f64 / images as f64 <= TOLERANCE;
        let found =
            broken.iter().map(|(name, broken)| format!("{name} breaks {broken}")).collect::<Vec<_>>().join(", ");
        let finding = format!("of {left} images that PGD and APGD leave, {found}");
        Ok(Check { name: "black box", passed, finding })
    }
}

/// PGD whose steps could cross the ball, however many there are.
fn pgd(eps: f32, steps: usize) -> PgdConfig {
    PgdConfig {
        eps,
        step_size: 2.5 * eps / steps as f32,
        steps,
        random_start: true,
        restarts: 1,
        loss: AttackLoss::CrossEntropy,
        bn: BnMode::Eval,
    }
}

fn list(accuracies: &[f64]) -> String {
    accuracies.iter().map(|accuracy| format!("{accuracy:.2}")).collect::<Vec<_>>().join(", ")
}

fn list_of(steps: &[usize]) -> String {
    steps.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
