//! Auto-PGD in the l-infinity ball (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
//! diverse parameter-free attacks", ICML 2020): gradient ascent with momentum, whose step halves, image by image, at
//! checkpoints where it makes no progress, and goes on from the best point then.

use serde::{Deserialize, Serialize};

use super::preset::{AttackPreset, NO_STEP_SIZE, Options, Preset};
use super::round::{Round, targets};
use super::target_model::{TargetModel, ValueAndGradient};
use super::{Attack, objective};
use crate::autograd::tensor::Tensor;
use crate::backend::{ApgdPoints, ApgdStep, Backend};
use crate::base::error::Result;
use crate::base::named_enum::named_enum;

named_enum! {
    /// The loss that APGD maximises.
    pub enum ApgdLoss: "APGD loss" {
        /// Softmax cross-entropy.
        CrossEntropy = "cross-entropy",
        /// Difference of logits ratio.
        Dlr = "dlr",
        /// The same towards one other class after the other.
        TargetedDlr = "targeted-dlr",
    }
}

/// Settings, the published ones by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApgdConfig {
    /// Radius of the ball.
    pub eps: f32,
    /// Number of steps.
    pub steps: usize,
    /// Random starts, for every target if there are targets.
    pub restarts: usize,
    /// The loss that is maximised.
    pub loss: ApgdLoss,
    /// More than this fraction of the steps between two checkpoints must have raised the loss, or the step halves.
    pub rho: f64,
}

const APGD_CE: &str = "apgd-ce";
const APGD_DLR: &str = "apgd-dlr";
const APGD_T: &str = "apgd-t";

impl Attack for ApgdConfig {
    fn name(&self) -> &'static str {
        match self.loss {
            ApgdLoss::CrossEntropy => APGD_CE,
            ApgdLoss::Dlr => APGD_DLR,
            ApgdLoss::TargetedDlr => APGD_T,
        }
    }

    fn eps(&self) -> f32 {
        self.eps
    }

    fn fewest_classes(&self) -> usize {
        match self.loss {
            ApgdLoss::CrossEntropy => 2,
            ApgdLoss::Dlr => 3,
            ApgdLoss::TargetedDlr => 4,
        }
    }

    fn at_least_one(&self) -> Vec<(&'static str, usize)> {
        vec![("restarts", self.restarts), ("steps", self.steps)]
    }

    fn rounds(&self, classes: usize) -> usize {
        self.restarts * if self.is_targeted() { targets(classes) } else { 1 }
    }

    fn image_passes(&self) -> u64 {
        // A pass at the start, and one that tells which classes are likeliest.
        self.steps as u64 + 1 + u64::from(self.is_targeted())
    }

    fn run<B: Backend>(&self, target_model: &TargetModel<'_, B>, round: &Round<'_, B>) -> Result<Tensor<B>> {
        let targets = match self.is_targeted() {
            true => round.target_classes(target_model, round.number / self.restarts)?,
            false => Vec::new(),
        };
        let start = round.random_start(target_model.backend, self.eps);
        self.attack(target_model, round.clean, round.labels, &targets, start, |_| {})
    }
}

impl ApgdConfig {
    /// The names under which users know it.
    pub(super) const PRESETS: &[AttackPreset<Self>] = &[
        Preset {
            name: APGD_CE,
            about: "Auto-PGD on the cross-entropy",
            lacks: &[NO_STEP_SIZE],
            configure: |options| ApgdConfig::from_options(options, ApgdLoss::CrossEntropy),
        },
        Preset {
            name: APGD_DLR,
            about: "Auto-PGD on the difference of logits ratio",
            lacks: &[NO_STEP_SIZE],
            configure: |options| ApgdConfig::from_options(options, ApgdLoss::Dlr),
        },
        Preset {
            name: APGD_T,
            about: "The same towards each of the nine likeliest other classes",
            lacks: &[NO_STEP_SIZE],
            configure: |options| ApgdConfig::from_options(options, ApgdLoss::TargetedDlr),
        },
    ];

    /// 100 steps, one start.
    pub fn published(eps: f32, loss: ApgdLoss) -> Self {
        ApgdConfig { eps, steps: 100, restarts: 1, loss, rho: 0.75 }
    }

    fn from_options(options: &Options, loss: ApgdLoss) -> Self {
        let published = ApgdConfig::published(options.eps(), loss);
        let steps = options.steps.unwrap_or(published.steps);
        ApgdConfig { steps, restarts: options.restarts(), ..published }
    }

    fn is_targeted(&self) -> bool {
        self.loss == ApgdLoss::TargetedDlr
    }

    /// Attacks from the points `start` and returns for each image the first misclassified point, or else the last one.
    /// The targeted loss makes image `i` go for class `targets[i]`; the others need no targets. `on_iterate` sees every point.
    ///
    /// # Errors
    /// As [`TargetModel::forward`].
    pub fn attack<B: Backend>(
        &self,
        target_model: &TargetModel<'_, B>,
        clean: &Tensor<B>,
        labels: &[u8],
        targets: &[usize],
        start: Tensor<B>,
        mut on_iterate: impl FnMut(&Tensor<B>),
    ) -> Result<Tensor<B>> {
        let backend = target_model.backend;
        let objective = |i: usize, z: &[f32], dz: &mut [f32]| {
            let y = usize::from(labels[i]);
            match self.loss {
                ApgdLoss::CrossEntropy => objective::cross_entropy(z, y, dz),
                ApgdLoss::Dlr => objective::dlr(z, y, dz),
                ApgdLoss::TargetedDlr => objective::targeted_dlr(z, y, targets[i], dz),
            }
        };
        let mut x = start;
        let ValueAndGradient { logits, values, mut dx } = target_model.value_and_gradient(&x, objective)?;
        let mut found = logits.wrong(labels);
        let mut schedule = Schedule::new(self, &values);
        let copy = |x: &Tensor<B>| backend.copy_batch(x.buf());
        let (mut previous, mut best, mut best_dx, mut adversarial) = (copy(&x), copy(&x), copy(&dx), copy(&x));
        for step in 0..self.steps {
            if found.iter().all(|&found| found) {
                break;
            }
            let momentum = if step == 0 { 1.0 } else { 0.75 };
            let points =
                ApgdPoints { x: x.buf_mut()?, previous: &mut previous, best: &mut best, best_dx: &mut best_dx };
            backend.apgd_step(self.eps, momentum, &schedule.steps, clean.buf(), dx.buf(), points);
            on_iterate(&x);
            let pass = target_model.forward(&x)?;
            let wrong = pass.logits.wrong(labels);
            let fresh: Vec<bool> = wrong.iter().zip(&found).map(|(wrong, found)| *wrong && !found).collect();
            if step + 1 < self.steps {
                let next = pass.value_and_gradient(objective)?;
                dx = next.dx;
                schedule.advance(&next.values);
            }
            if fresh.contains(&true) {
                backend.copy_samples(&fresh, x.buf(), &mut adversarial);
                found.iter_mut().zip(&wrong).for_each(|(found, wrong)| *found |= wrong);
            }
        }
        let last: Vec<bool> = found.iter().map(|found| !found).collect();
        backend.copy_samples(&last, x.buf(), &mut adversarial);
        Ok(Tensor::new(adversarial, x.shape().clone()))
    }
}

/// When steps halve, and what is known of each image's losses.
struct Schedule {
    rho: f64,
    /// Steps between the last checkpoint and the next one, and of those how many were taken.
    interval: usize,
    taken: usize,
    /// The interval shrinks by `shorter` at every checkpoint, down to `shortest`.
    shorter: usize,
    shortest: usize,
    losses: Vec<LossHistory>,
    /// The next step of each image.
    steps: Vec<ApgdStep>,
}

/// The losses of one image.
struct LossHistory {
    best: f64,
    best_at_checkpoint: f64,
    /// The loss at the last point.
    last: f64,
    /// Steps since the checkpoint that raised it.
    rises: usize,
    halved: bool,
}

impl Schedule {
    /// From the losses at the start.
    fn new(config: &ApgdConfig, losses: &[f64]) -> Self {
        let part = |fraction: f64| ((fraction * config.steps as f64) as usize).max(1);
        let history = |&loss: &f64| LossHistory {
            best: loss,
            best_at_checkpoint: loss,
            // The first rise is counted from zero, not from the loss at the start, as in the published code.
            last: 0.0,
            rises: 0,
            halved: true,
        };
        Schedule {
            rho: config.rho,
            interval: part(0.22),
            taken: 0,
            shorter: part(0.03),
            shortest: part(0.06),
            losses: losses.iter().map(history).collect(),
            steps: vec![ApgdStep { step_size: 2.0 * config.eps, improved: 0, restart: 0 }; losses.len()],
        }
    }

    /// Takes note of the losses after a step, and decides on the next steps.
    fn advance(&mut self, losses: &[f64]) {
        self.taken += 1;
        let checkpoint = self.taken == self.interval;
        for ((history, next), &loss) in self.losses.iter_mut().zip(&mut self.steps).zip(losses) {
            let improved = loss > history.best;
            history.best = if improved { loss } else { history.best };
            history.rises += usize::from(loss > history.last);
            history.last = loss;
            let mut halve = false;
            if checkpoint {
                let oscillates = history.rises as f64 <= self.rho * self.interval as f64;
                let stands_still = !history.halved && history.best_at_checkpoint >= history.best;
                halve = oscillates || stands_still;
                (history.halved, history.best_at_checkpoint, history.rises) = (halve, history.best, 0);
            }
            let step = if halve { next.step_size / 2.0 } else { next.step_size };
            *next = ApgdStep { step_size: step, improved: improved.into(), restart: halve.into() };
        }
        if checkpoint {
            self.taken = 0;
            self.interval = self.interval.saturating_sub(self.shorter).max(self.shortest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schedule of `steps` steps for images whose losses at the start are `start`.
    fn schedule(steps: usize, rho: f64, start: &[f64]) -> Schedule {
        let config = ApgdConfig { steps, rho, ..ApgdConfig::published(0.3, ApgdLoss::CrossEntropy) };
        Schedule::new(&config, start)
    }

    /// The steps, counted from 1, after which the only image goes back to its best point.
    fn restarts(mut schedule: Schedule, losses: impl Iterator<Item = f64>) -> Vec<usize> {
        let mut step = 0.6;
        let mut found = Vec::new();
        for (number, loss) in losses.enumerate() {
            schedule.advance(&[loss]);
            let next = schedule.steps[0];
            if next.restart == 1 {
                found.push(number + 1);
                step /= 2.0;
            }
            assert_eq!(next.step_size, step, "the step halves there, and only there: after step {}", number + 1);
        }
        found
    }

    /// From the paper: `p_1 = 0.22`, `p_{j + 1} = p_j + max(p_j - p_{j - 1} - 0.03, 0.06)`, of the steps.
    #[test]
    fn checkpoints_are_the_published_ones() {
        let fall = |steps: usize| restarts(schedule(steps, 0.75, &[0.0]), (0..steps).map(|i| -1.0 - i as f64));
        assert_eq!(fall(100), [22, 41, 57, 70, 80, 87, 93, 99]);
        // Parts of 37 steps, cut off: 8, then one less each time down to 2.
        assert_eq!(fall(37), [8, 15, 21, 26, 30, 33, 35, 37]);
        // Of 12: 2, then 1, since no part is empty.
        assert_eq!(fall(12), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    /// The step halves unless more than `rho` of the steps have raised the loss: at 22 steps and 0.75 that is 16.5.
    #[test]
    fn too_few_rises_halve_the_step() {
        let after = |rho: f64, rises: usize| {
            // Up that many times, then down: the best is new, so that only the rises count.
            let losses = (0..22).map(|i| if i < rises { 1.0 + i as f64 } else { -(i as f64) });
            restarts(schedule(100, rho, &[0.5]), losses)
        };
        assert_eq!((after(0.75, 16), after(0.75, 17)), (vec![22], vec![]));
        assert_eq!((after(0.5, 11), after(0.5, 12)), (vec![22], vec![]), "just the share is too little");
    }

    /// A loss that rises at every step, but never above that of the start, halves the step at every second checkpoint:
    /// not where it was halved at the one before, and at the start it counts as halved.
    #[test]
    fn a_step_that_was_just_halved_is_given_an_interval() {
        assert_eq!(restarts(schedule(100, 0.75, &[1000.0]), (1..=100).map(f64::from)), [41, 70, 87, 99]);
    }

    /// The best since the last checkpoint counts, not the best since the start.
    #[test]
    fn the_best_of_an_interval_must_be_above_that_of_the_ones_before() {
        let losses = (1..=22).chain(-50..-31).map(f64::from);
        assert_eq!(restarts(schedule(100, 0.75, &[0.5]), losses), [41]);
        let losses = (1..=22).chain(5..24).map(f64::from);
        assert_eq!(restarts(schedule(100, 0.75, &[0.5]), losses), [0; 0], "23 is above 22");
    }

    /// The published code compares the first loss with zero, not with the one at the start.
    #[test]
    fn the_first_rise_is_from_zero() {
        let two = |start: f64, losses: [f64; 2]| restarts(schedule(12, 0.75, &[start]), losses.into_iter());
        assert_eq!(two(-5.0, [-4.0, -3.0]), [2], "one rise of two");
        assert_eq!(two(5.0, [4.0, 6.0]), [0; 0], "two rises of two");
    }

    #[test]
    fn every_image_has_a_schedule_of_its_own() {
        let mut schedule = schedule(12, 0.75, &[0.0, 0.0, 3.0]);
        assert!(schedule.steps.iter().all(|step| *step == ApgdStep { step_size: 0.6, improved: 0, restart: 0 }));
        schedule.advance(&[1.0, -1.0, 3.0]);
        let improved: Vec<u32> = schedule.steps.iter().map(|step| step.improved).collect();
        assert_eq!(improved, [1, 0, 0], "as good as the best is no better");
        schedule.advance(&[2.0, -2.0, 4.0]);
        let step_of = |step: f32, improved: u32, restart: u32| ApgdStep { step_size: step, improved, restart };
        assert_eq!(schedule.steps, [step_of(0.6, 1, 0), step_of(0.3, 0, 1), step_of(0.6, 1, 0)]);
    }
}
