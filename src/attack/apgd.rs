//! Auto-PGD in the l-infinity ball (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
//! diverse parameter-free attacks", ICML 2020): gradient ascent with momentum, whose step halves, image by image, at
//! checkpoints where it makes no progress, and goes on from the best point then.

use serde::{Deserialize, Serialize};

use super::objective;
use super::probe::{Climb, Probe};
use crate::backend::{ApgdMove, ApgdPoints, Backend};
use crate::choice::choice;
use crate::error::Result;
use crate::tensor::Tensor;

choice! {
    /// What APGD maximises.
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
    /// What it maximises.
    pub loss: ApgdLoss,
    /// Of the steps between two checkpoints, this fraction must have raised the loss, or the step halves.
    pub rho: f64,
}

impl ApgdConfig {
    /// 100 steps, one start.
    pub fn published(eps: f32, loss: ApgdLoss) -> Self {
        ApgdConfig { eps, steps: 100, restarts: 1, loss, rho: 0.75 }
    }

    /// Attacks from the points `start` and returns for each image the first misclassified point, or else the last one.
    /// The targeted loss makes image `i` go for class `targets[i]`; the others need no targets. `on_iterate` sees every point.
    ///
    /// # Errors
    /// As [`Probe::pass`].
    pub fn attack<B: Backend>(
        &self,
        probe: &Probe<'_, B>,
        clean: &Tensor<B>,
        labels: &[u8],
        targets: &[usize],
        start: Tensor<B>,
        mut on_iterate: impl FnMut(&Tensor<B>),
    ) -> Result<Tensor<B>> {
        let backend = probe.backend;
        let objective = |i: usize, z: &[f32], dz: &mut [f32]| {
            let y = usize::from(labels[i]);
            match self.loss {
                ApgdLoss::CrossEntropy => objective::cross_entropy(z, y, dz),
                ApgdLoss::Dlr => objective::dlr(z, y, dz),
                ApgdLoss::TargetedDlr => objective::targeted_dlr(z, y, targets[i], dz),
            }
        };
        let mut x = start;
        let Climb { logits, values, mut dx } = probe.gradient(&x, objective)?;
        let mut found = logits.wrong(labels);
        let mut schedule = Schedule::new(self, &values);
        let copy = |x: &Tensor<B>| backend.copy(x.buf());
        let (mut previous, mut best, mut best_dx, mut adversarial) = (copy(&x), copy(&x), copy(&dx), copy(&x));
        for step in 0..self.steps {
            if found.iter().all(|&found| found) {
                break;
            }
            let momentum = if step == 0 { 1.0 } else { 0.75 };
            let points =
                ApgdPoints { x: x.buf_mut()?, previous: &mut previous, best: &mut best, best_dx: &mut best_dx };
            backend.apgd_step(self.eps, momentum, &schedule.moves, clean.buf(), dx.buf(), points);
            on_iterate(&x);
            let pass = probe.pass(&x)?;
            let wrong = pass.logits.wrong(labels);
            let fresh: Vec<bool> = wrong.iter().zip(&found).map(|(wrong, found)| *wrong && !found).collect();
            if step + 1 < self.steps {
                let climb = pass.gradient(objective)?;
                dx = climb.dx;
                schedule.advance(&climb.values);
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

/// When steps halve, and what is known of each image's ascent.
struct Schedule {
    rho: f64,
    /// Steps between the last checkpoint and the next one, and of those how many were taken.
    interval: usize,
    taken: usize,
    /// The interval shrinks by `shorter` at every checkpoint, down to `shortest`.
    shorter: usize,
    shortest: usize,
    ascents: Vec<Ascent>,
    /// The next moves.
    moves: Vec<ApgdMove>,
}

/// The losses of one image.
struct Ascent {
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
        let ascent = |&loss: &f64| Ascent {
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
            ascents: losses.iter().map(ascent).collect(),
            moves: vec![ApgdMove { step: 2.0 * config.eps, improved: 0, restart: 0 }; losses.len()],
        }
    }

    /// Takes note of the losses after a step, and decides on the next moves.
    fn advance(&mut self, losses: &[f64]) {
        self.taken += 1;
        let checkpoint = self.taken == self.interval;
        for ((ascent, next), &loss) in self.ascents.iter_mut().zip(&mut self.moves).zip(losses) {
            let improved = loss > ascent.best;
            ascent.best = if improved { loss } else { ascent.best };
            ascent.rises += usize::from(loss > ascent.last);
            ascent.last = loss;
            let mut halve = false;
            if checkpoint {
                let oscillates = ascent.rises as f64 <= self.rho * self.interval as f64;
                let stands_still = !ascent.halved && ascent.best_at_checkpoint >= ascent.best;
                halve = oscillates || stands_still;
                (ascent.halved, ascent.best_at_checkpoint, ascent.rises) = (halve, ascent.best, 0);
            }
            let step = if halve { next.step / 2.0 } else { next.step };
            *next = ApgdMove { step, improved: improved.into(), restart: halve.into() };
        }
        if checkpoint {
            self.taken = 0;
            self.interval = self.interval.saturating_sub(self.shorter).max(self.shortest);
        }
    }
}
