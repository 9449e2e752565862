//! Carlini & Wagner's l2 attack ("Towards evaluating the robustness of neural networks", 2017): minimises
//! `‖x - clean‖² + c max(z_y - max_{j != y} z_j, -kappa)` by Adam in tanh space, where every point is an image, and
//! searches for the smallest weight `c` that succeeds, image by image.

use serde::{Deserialize, Serialize};

use super::preset::{AttackPreset, NO_RESTARTS, NO_STEP_SIZE, Preset};
use super::round::Round;
use super::target_model::TargetModel;
use super::{Attack, objective};
use crate::autograd::tensor::Tensor;
use crate::backend::{AdamStep, Backend, Distance};
use crate::base::error::Result;

/// Settings, those of the published code by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CwL2Config {
    /// Euclidean radius within which an adversarial image counts.
    pub eps: f32,
    /// Steps of Adam for each weight, at most: a tenth of them without progress end it.
    pub steps: usize,
    /// Learning rate of Adam.
    pub lr: f32,
    /// Weights that are tried.
    pub searches: usize,
    /// The first of them.
    pub first_weight: f64,
    /// By how much another class must be ahead.
    pub kappa: f64,
}

/// Where the search for a weight has not found an upper end yet, the weight grows by this factor.
const GROWTH: f64 = 10.0;

/// The search for one image's weight.
#[derive(Clone)]
struct Search {
    weight: f64,
    low: f64,
    high: f64,
}

impl Search {
    /// The next weight.
    fn narrow(&mut self, succeeded: bool) {
        if succeeded {
            self.high = self.high.min(self.weight);
        } else {
            self.low = self.low.max(self.weight);
        }
        self.weight = if self.high.is_finite() { (self.low + self.high) / 2.0 } else { self.weight * GROWTH };
    }
}

/// The nearest misclassified point of each image.
pub struct Nearest<B: Backend> {
    x: B::Batch,
    distance: Vec<f64>,
}

impl<B: Backend> Nearest<B> {
    /// None yet: the clean images, infinitely far.
    pub fn none(backend: &B, clean: &Tensor<B>) -> Self {
        let n = clean.shape().dims()[0];
        Nearest { x: backend.copy_batch(clean.buf()), distance: vec![f64::INFINITY; n] }
    }
}

const NAME: &str = "cw-l2";

impl Attack for CwL2Config {
    fn name(&self) -> &'static str {
        NAME
    }

    fn eps(&self) -> f32 {
        self.eps
    }

    fn distance(&self) -> Distance {
        Distance::L2
    }

    fn at_least_one(&self) -> Vec<(&'static str, usize)> {
        vec![("steps", self.steps)]
    }

    fn rounds(&self, _: usize) -> usize {
        1
    }

    fn image_passes(&self) -> u64 {
        (self.searches * self.steps) as u64
    }

    fn run<B: Backend>(&self, target_model: &TargetModel<'_, B>, round: &Round<'_, B>) -> Result<Tensor<B>> {
        self.attack(target_model, round.clean, round.labels)
    }
}

impl CwL2Config {
    /// The names under which users know it.
    pub(super) const PRESETS: &[AttackPreset<Self>] = &[Preset {
        name: NAME,
        about: "Carlini & Wagner's l2 attack",
        lacks: &[NO_STEP_SIZE, NO_RESTARTS],
        configure: |options| {
            let published = CwL2Config::published(options.eps.unwrap_or(options.data.info().attack.eps_l2));
            CwL2Config { steps: options.steps.unwrap_or(published.steps), ..published }
        },
    }];

    /// Nine weights from 1e-3, up to 10,000 steps each.
    pub fn published(eps: f32) -> Self {
        CwL2Config { eps, steps: 10_000, lr: 0.01, searches: 9, first_weight: 1e-3, kappa: 0.0 }
    }

    /// Returns the nearest misclassified point of each image, or the clean one where there was none.
    ///
    /// # Errors
    /// As [`TargetModel::forward`].
    pub fn attack<B: Backend>(
        &self,
        target_model: &TargetModel<'_, B>,
        clean: &Tensor<B>,
        labels: &[u8],
    ) -> Result<Tensor<B>> {
        let start = Search { weight: self.first_weight, low: 0.0, high: f64::INFINITY };
        let mut searches = vec![start; labels.len()];
        let mut nearest = Nearest::none(target_model.backend, clean);
        for _ in 0..self.searches {
            let weights: Vec<f64> = searches.iter().map(|search| search.weight).collect();
            let succeeded = self.descend(target_model, clean, labels, &weights, &mut nearest, |_| {})?;
            searches.iter_mut().zip(succeeded).for_each(|(search, succeeded)| search.narrow(succeeded));
        }
        Ok(Tensor::new(nearest.x, clean.shape().clone()))
    }

    /// Adam from the clean images with these weights. Returns which images were misclassified on the way. `on_iterate`
    /// sees every point.
    ///
    /// # Errors
    /// As [`TargetModel::forward`].
    pub fn descend<B: Backend>(
        &self,
        target_model: &TargetModel<'_, B>,
        clean: &Tensor<B>,
        labels: &[u8],
        weights: &[f64],
        nearest: &mut Nearest<B>,
        mut on_iterate: impl FnMut(&Tensor<B>),
    ) -> Result<Vec<bool>> {
        let (backend, n) = (target_model.backend, labels.len());
        let mut w = backend.tanh_space(clean.buf());
        // The clean images as they come back from there, a little off for black and white pixels: the descent must begin
        // at distance zero, since Adam makes a whole step of the smallest gradient.
        let centre = backend.tanh_image(&w);
        let zeros = || backend.upload_batch(n, &vec![0.0; clean.shape().len()]);
        let (mut m, mut v) = (zeros(), zeros());
        let mut succeeded = vec![false; n];
        let mut before = f64::INFINITY;
        for step in 0..self.steps {
            let x = Tensor::new(backend.tanh_image(&w), clean.shape().clone());
            on_iterate(&x);
            let f = target_model.value_and_gradient(&x, |i, z, dz| {
                objective::carlini_wagner(z, usize::from(labels[i]), self.kappa, weights[i], dz)
            })?;
            let distance = backend.distances(n, Distance::L2, x.buf(), clean.buf());
            let ahead = |i: usize| objective::margin(f.logits.of_image(i), usize::from(labels[i])) <= -self.kappa;
            let wrong: Vec<bool> = f.logits.wrong(labels).into_iter().enumerate().map(|(i, w)| w && ahead(i)).collect();
            let nearer: Vec<bool> = (0..n).map(|i| wrong[i] && distance[i] < nearest.distance[i]).collect();
            backend.copy_samples(&nearer, x.buf(), &mut nearest.x);
            for i in 0..n {
                succeeded[i] |= wrong[i];
                nearest.distance[i] = if nearer[i] { distance[i] } else { nearest.distance[i] };
            }
            if step % (self.steps / 10).max(1) == 0 {
                let loss = f.values.iter().zip(&distance).map(|(f, d)| f + d * d).sum::<f64>();
                if loss > 0.9999 * before {
                    break;
                }
                before = loss;
            }
            let g = backend.tanh_image_bwd(&centre, x.buf(), f.dx.buf());
            let adam =
                AdamStep { lr: self.lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, t: step as u32 + 1 };
            backend.adam_step_batch(&adam, &g, &mut m, &mut v, &mut w);
        }
        Ok(succeeded)
    }
}

#[cfg(test)]
mod tests {
    use super::Search;

    /// The weights tried after 0.001, for these outcomes.
    fn weights(outcomes: &[bool]) -> Vec<f64> {
        let mut search = Search { weight: 1e-3, low: 0.0, high: f64::INFINITY };
        let next = |&succeeded: &bool| {
            search.narrow(succeeded);
            search.weight
        };
        outcomes.iter().map(next).collect()
    }

    fn assert_near(found: &[f64], wanted: &[f64]) {
        assert_eq!(found.len(), wanted.len());
        let near = found.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-12 * b);
        assert!(near, "{found:?} instead of {wanted:?}");
    }

    /// Tenfold until one succeeds, then half way between the largest that failed and the smallest that succeeded.
    #[test]
    fn weights_grow_and_are_then_halved_in() {
        assert_near(&weights(&[false; 3]), &[1e-2, 1e-1, 1.0]);
        assert_near(&weights(&[true; 3]), &[5e-4, 2.5e-4, 1.25e-4]);
        assert_near(&weights(&[false, false, true, false, true]), &[1e-2, 1e-1, 0.055, 0.0775, 0.06625]);
    }
}
