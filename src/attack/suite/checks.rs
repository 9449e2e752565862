//! Signs that a network only hides its gradients, and that robust accuracy measured with them cannot be believed (Athalye et
//! al., "Obfuscated gradients give a false sense of security", 2018; Carlini et al., "On evaluating adversarial
//! robustness", 2019).

use serde::Serialize;

use super::{Assessment, Suite};
use crate::attack::apgd::{ApgdConfig, ApgdLoss};
use crate::attack::config::AttackConfig;
use crate::attack::evaluation;
use crate::attack::objective;
use crate::attack::square::SquareConfig;
use crate::attack::target_model::TargetModel;
use crate::attack::transfer::TransferConfig;
use crate::attack::{AttackLoss, BnMode, PgdConfig};
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, Distance};
use crate::base::error::Result;
use crate::base::rng::{Rng, Stream};

/// A check and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, in a word or two.
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

/// A gradient vanishes if its largest element is below this.
const VANISHING: f64 = 1e-10;

/// Percent of the images whose gradient may vanish.
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
    pub fn check_image_passes(&self) -> u64 {
        // Two for the logits, one for the gradients, and those of each attack.
        let steps = 2 + 1 + STEPS.iter().sum::<usize>() + STEPS[0] + 2 * STEPS[2] + 2 * STEPS[2] + QUERIES;
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
        let logits = || evaluation::logits(self.backend, self.model, self.subset);
        Ok(repeated(&logits()?, &logits()?))
    }

    /// In a ball of radius 0 there is nothing but the clean image.
    fn nothing_at_zero(&self) -> Result<Check> {
        let assessment = self.under(&[AttackConfig::Pgd(pgd(0.0, STEPS[0]))])?;
        Ok(unmoved(assessment.accuracy(0), assessment.accuracy(1)))
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
            let loss = TargetModel::new(backend, self.model, self.on_image_passes)
                .value_and_gradient(&Tensor::new(start, clean.shape().clone()), |i, z, dz| {
                    objective::cross_entropy(z, label(i), dz)
                })?;
            let zero = backend.upload_batch(n, &vec![0.0; n * features]);
            Ok(backend.distances(n, Distance::LInf, loss.dx.buf(), &zero))
        });
        Ok(not_vanishing(&parts.into_iter().collect::<Result<Vec<_>>>()?.concat()))
    }

    /// A longer attack does not leave more images standing.
    fn more_steps(&self, eps: f32) -> Result<Check> {
        let accuracies = STEPS.iter().map(|&steps| self.accuracy(pgd(eps, steps))).collect::<Result<Vec<_>>>()?;
        Ok(not_rising(&accuracies))
    }

    /// In a ball of all images nothing stands.
    fn larger_balls(&self, eps: f32) -> Result<Check> {
        let between = (1.0 + eps.min(1.0)) / 2.0;
        let under = |eps| self.accuracy(pgd(eps, STEPS[2]));
        Ok(nothing_left([(between, under(between)?), (1.0, under(1.0)?)]))
    }

    /// Attacks that do not see the network's gradient break nothing that attacks which do have left.
    fn black_box(&self, eps: f32) -> Result<Check> {
        let mut attacks = vec![
            AttackConfig::Pgd(pgd(eps, STEPS[2])),
            AttackConfig::Apgd(ApgdConfig::published(eps, ApgdLoss::Dlr)),
            AttackConfig::Square(SquareConfig { queries: QUERIES, ..SquareConfig::published(eps) }),
        ];
        if self.surrogate.is_some() {
            attacks.push(AttackConfig::Transfer(TransferConfig(pgd(eps, STEPS[1]))));
        }
        attacks.retain(|attack| attack.validate(self.model.architecture().classes).is_ok());
        let assessment = self.under(&attacks)?;
        let blind = attacks.iter().enumerate().filter(|(_, attack)| !attack.is_white_box());
        let broken: Vec<(&str, usize)> = blind.map(|(i, attack)| (attack.name(), assessment.broken_by(i))).collect();
        let standing = assessment.verdicts.iter().filter(|verdict| verdict.stands()).count();
        Ok(unbroken(&broken, standing, assessment.verdicts.len()))
    }
}

fn repeated(once: &[f32], again: &[f32]) -> Check {
    let differ = once.iter().zip(again).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let numbers = once.iter().filter(|logit| logit.is_finite()).count();
    let finding =
        format!("{differ} of {} logits differ in a second pass, {} not finite", once.len(), once.len() - numbers);
    Check { name: "repeatable", passed: differ == 0 && numbers == once.len(), finding }
}

fn unmoved(clean: f64, attacked: f64) -> Check {
    let finding = format!("accuracy {clean:.2} clean, {attacked:.2} under PGD with eps 0");
    Check { name: "eps 0", passed: clean == attacked, finding }
}

/// From the largest element of each image's gradient.
fn not_vanishing(largest: &[f64]) -> Check {
    let zero = largest.iter().filter(|&&g| g == 0.0).count();
    // A NaN is no gradient either.
    let vanishing = largest.iter().filter(|g| **g < VANISHING || g.is_nan()).count();
    let percent = 100.0 * vanishing as f64 / largest.len() as f64;
    let finding = format!(
        "of {} images {zero} have a gradient of exactly zero, {} one below {VANISHING:.0e}",
        largest.len(),
        vanishing - zero
    );
    Check { name: "gradients", passed: percent <= MOST_VANISHING, finding }
}

/// From the accuracy at each of [`STEPS`].
fn not_rising(accuracies: &[f64]) -> Check {
    let passed = accuracies.windows(2).all(|pair| pair[1] <= pair[0] + TOLERANCE);
    let finding = format!("accuracy {} under PGD with {} steps", list(accuracies), list_of(&STEPS));
    Check { name: "more steps", passed, finding }
}

/// From radii with the accuracy at each; the last ball has all images.
fn nothing_left(balls: [(f32, f64); 2]) -> Check {
    let [(between, _), (all, left)] = balls;
    let accuracies = list(&balls.map(|(_, accuracy)| accuracy));
    let finding = format!("accuracy {accuracies} with eps {between:.3}, {all} ({} steps)", STEPS[2]);
    Check { name: "large eps", passed: left <= TOLERANCE, finding }
}

/// From how many each attack without gradients has broken, how many still stand, and how many images there are.
fn unbroken(broken: &[(&str, usize)], standing: usize, images: usize) -> Check {
    let total: usize = broken.iter().map(|(_, broken)| broken).sum();
    let found = broken.iter().map(|(name, broken)| format!("{name} breaks {broken}")).collect::<Vec<_>>().join(", ");
    let finding = format!("of {} images that PGD and APGD leave, {found}", standing + total);
    Check { name: "black box", passed: 100.0 * total as f64 / images as f64 <= TOLERANCE, finding }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_must_come_again_to_the_bit_and_be_numbers() {
        assert!(repeated(&[1.0, -0.0], &[1.0, -0.0]).passed);
        assert!(!repeated(&[1.0, 0.0], &[1.0, -0.0]).passed);
        assert!(!repeated(&[1.0, 2.0], &[1.0 + f32::EPSILON, 2.0]).passed);
        let check = repeated(&[1.0, f32::INFINITY, f32::NAN], &[1.0, f32::INFINITY, f32::NAN]);
        assert!(!check.passed);
        assert_eq!(check.finding, "0 of 3 logits differ in a second pass, 2 not finite");
    }

    #[test]
    fn the_smallest_loss_at_radius_zero_is_too_much() {
        assert!(unmoved(97.5, 97.5).passed);
        assert!(!unmoved(97.5, 97.25).passed);
    }

    #[test]
    fn one_image_in_twenty_may_have_no_gradient() {
        let largest = |without: usize, gradient: f64| [vec![gradient; without], vec![1e-10; 40 - without]].concat();
        for gradient in [0.0, 9e-11, f64::NAN] {
            assert!(not_vanishing(&largest(2, gradient)).passed, "{gradient}");
            assert!(!not_vanishing(&largest(3, gradient)).passed, "{gradient}");
        }
        let finding = not_vanishing(&[0.0, 0.0, 9e-11, 1.0]).finding;
        assert_eq!(finding, "of 4 images 2 have a gradient of exactly zero, 1 one below 1e-10");
    }

    #[test]
    fn accuracy_may_rise_by_one_percent_from_one_number_of_steps_to_the_next() {
        for accuracies in [[50.0, 40.0, 30.0], [50.0, 51.0, 52.0], [0.0, 0.0, 1.0]] {
            assert!(not_rising(&accuracies).passed, "{accuracies:?}");
        }
        for accuracies in [[50.0, 51.5, 40.0], [50.0, 40.0, 41.5]] {
            assert!(!not_rising(&accuracies).passed, "{accuracies:?}");
        }
        assert_eq!(
            not_rising(&[50.0, 40.0, 30.25]).finding,
            "accuracy 50.00, 40.00, 30.25 under PGD with 10, 40, 100 steps"
        );
    }

    #[test]
    fn in_the_ball_of_all_images_one_percent_may_be_left() {
        assert!(nothing_left([(0.65, 100.0), (1.0, 1.0)]).passed);
        let check = nothing_left([(0.65, 0.0), (1.0, 1.5)]);
        assert!(!check.passed);
        assert_eq!(check.finding, "accuracy 0.00, 1.50 with eps 0.650, 1 (100 steps)");
    }

    #[test]
    fn all_attacks_without_gradients_together_may_break_one_percent() {
        assert!(unbroken(&[("square", 1), ("transfer", 1)], 0, 200).passed);
        let check = unbroken(&[("square", 1), ("transfer", 1)], 100, 199);
        assert!(!check.passed);
        assert_eq!(check.finding, "of 102 images that PGD and APGD leave, square breaks 1, transfer breaks 1");
    }

    #[test]
    fn the_steps_of_an_attack_could_cross_the_ball() {
        let PgdConfig { eps, step_size, steps, random_start, restarts, loss, bn } = pgd(0.25, 10);
        assert_eq!((eps, step_size, steps), (0.25, 0.0625, 10));
        assert_eq!((random_start, restarts, loss, bn), (true, 1, AttackLoss::CrossEntropy, BnMode::Eval));
    }
}
