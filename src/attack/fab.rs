//! Fast Adaptive Boundary attack, targeted, l-infinity (Croce & Hein, "Minimally distorted adversarial examples with a
//! fast adaptive boundary attack", ICML 2020): projects onto the linearised boundary to one other class, biased towards
//! the clean image, and steps back when it is across. Looks for the nearest adversarial image, whatever the radius.

use serde::{Deserialize, Serialize};

use super::preset::{AttackPreset, NO_RESTARTS, NO_STEP_SIZE, Preset};
use super::round::{Round, targets};
use super::target_model::{TargetModel, ValueAndGradient};
use super::{Attack, objective};
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, Distance, FabStep};
use crate::base::error::Result;

/// Settings, the published ones by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FabConfig {
    /// Radius within which an adversarial image counts.
    pub eps: f32,
    /// Number of steps towards each target.
    pub steps: usize,
    /// Most weight of the step from the clean image.
    pub alpha_max: f32,
    /// How far beyond the boundary a step goes.
    pub eta: f32,
    /// Factor of the distance from the clean image when the attack steps back.
    pub beta: f32,
}

impl Attack for FabConfig {
    fn name(&self) -> &'static str {
        "fab-t"
    }

    fn eps(&self) -> f32 {
        self.eps
    }

    fn at_least_one(&self) -> Vec<(&'static str, usize)> {
        vec![("steps", self.steps)]
    }

    fn rounds(&self, classes: usize) -> usize {
        targets(classes)
    }

    fn image_passes(&self) -> u64 {
        2 * self.steps as u64 + 1
    }

    fn run<B: Backend>(&self, target_model: &TargetModel<'_, B>, round: &Round<'_, B>) -> Result<Tensor<B>> {
        let targets = round.target_classes(target_model, round.number)?;
        self.attack(target_model, round.clean, round.labels, &targets, |_| {})
    }
}

impl FabConfig {
    /// The names under which users know it.
    pub(super) const PRESETS: &[AttackPreset<Self>] = &[Preset {
        name: "fab",
        about: "Fast Adaptive Boundary attack towards each of the nine likeliest other classes",
        lacks: &[NO_STEP_SIZE, NO_RESTARTS],
        configure: |options| {
            let published = FabConfig::published(options.eps());
            FabConfig { steps: options.steps.unwrap_or(published.steps), ..published }
        },
    }];

    /// 100 steps towards each target.
    pub fn published(eps: f32) -> Self {
        FabConfig { eps, steps: 100, alpha_max: 0.1, eta: 1.05, beta: 0.9 }
    }

    /// Attacks from the clean images towards one class each, `targets`, and returns the nearest misclassified point of each, or
    /// the clean image where there was none. `on_iterate` sees every point.
    ///
    /// # Errors
    /// As [`TargetModel::forward`].
    pub fn attack<B: Backend>(
        &self,
        target_model: &TargetModel<'_, B>,
        clean: &Tensor<B>,
        labels: &[u8],
        targets: &[usize],
        mut on_iterate: impl FnMut(&Tensor<B>),
    ) -> Result<Tensor<B>> {
        let (backend, n) = (target_model.backend, labels.len());
        let step = FabStep { eta: self.eta, alpha_max: self.alpha_max };
        let lead = |i: usize, z: &[f32], dz: &mut [f32]| objective::lead(z, usize::from(labels[i]), targets[i], dz);
        let mut x = Tensor::new(backend.copy_batch(clean.buf()), clean.shape().clone());
        let (mut nearest, mut distance) = (backend.copy_batch(clean.buf()), vec![f64::INFINITY; n]);
        let ValueAndGradient { mut values, mut dx, .. } = target_model.value_and_gradient(&x, lead)?;
        for number in 1..=self.steps {
            let at: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            backend.fab_step(&step, &at, clean.buf(), dx.buf(), x.buf_mut()?);
            on_iterate(&x);
            let mut pass = target_model.forward(&x)?;
            let wrong = pass.logits.wrong(labels);
            if wrong.contains(&true) {
                // The tape shares the point, which is about to move.
                drop(pass);
                let here = backend.distances(n, Distance::LInf, x.buf(), clean.buf());
                let nearer: Vec<bool> = (0..n).map(|i| wrong[i] && here[i] < distance[i]).collect();
                backend.copy_samples(&nearer, x.buf(), &mut nearest);
                (0..n).filter(|&i| nearer[i]).for_each(|i| distance[i] = here[i]);
                let back: Vec<f32> = wrong.iter().map(|&wrong| if wrong { self.beta } else { 1.0 }).collect();
                backend.interpolate(&back, clean.buf(), x.buf_mut()?);
                if number == self.steps {
                    break;
                }
                pass = target_model.forward(&x)?;
            }
            if number < self.steps {
                ValueAndGradient { values, dx, .. } = pass.value_and_gradient(lead)?;
            }
        }
        Ok(Tensor::new(nearest, clean.shape().clone()))
    }
}
