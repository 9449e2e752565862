//! Square attack in the l-infinity ball (Andriushchenko et al., "Square attack: a query-efficient black-box adversarial
//! attack via random search", ECCV 2020): proposes squares at the ball's corners and keeps what lowers the margin.
//! Asks for logits only.

use serde::{Deserialize, Serialize};

use super::preset::{AttackPreset, NO_RESTARTS, NO_STEP_SIZE, Preset};
use super::round::Round;
use super::target_model::{Logits, TargetModel};
use super::{Attack, objective};
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, SquareUpdate};
use crate::base::error::Result;
use crate::base::rng::{Rng, Stream};

/// Settings, the published ones by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SquareConfig {
    /// Radius of the ball.
    pub eps: f32,
    /// Proposals, at most.
    pub queries: usize,
    /// Fraction of the pixels that the first squares cover.
    pub p_init: f64,
}

const NAME: &str = "square";

impl Attack for SquareConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn eps(&self) -> f32 {
        self.eps
    }

    fn is_white_box(&self) -> bool {
        false
    }

    fn at_least_one(&self) -> Vec<(&'static str, usize)> {
        vec![("queries", self.queries)]
    }

    fn rounds(&self, _: usize) -> usize {
        1
    }

    fn image_passes(&self) -> u64 {
        self.queries as u64 + 1
    }

    fn run<B: Backend>(&self, target_model: &TargetModel<'_, B>, round: &Round<'_, B>) -> Result<Tensor<B>> {
        let [_, c, h, w] = round.clean.shape().dims();
        let start = self.stripes(target_model.backend, round.clean, &round.rng(Stream::SuiteStart), round.first)?;
        let rng = round.rng(Stream::Square);
        let propose = |query: usize, i: usize| self.proposal([c, h, w], query, &rng, round.first + i as u64);
        self.attack(target_model, round.clean, round.labels, start, propose)
    }
}

impl SquareConfig {
    /// The names under which users know it.
    pub(super) const PRESETS: &[AttackPreset<Self>] = &[Preset {
        name: NAME,
        about: "Square attack",
        lacks: &[NO_STEP_SIZE, NO_RESTARTS],
        configure: |options| {
            let published = SquareConfig::published(options.eps());
            SquareConfig { queries: options.steps.unwrap_or(published.queries), ..published }
        },
    }];

    /// 5000 proposals, the first of 80 % of the pixels.
    pub fn published(eps: f32) -> Self {
        SquareConfig { eps, queries: 5000, p_init: 0.8 }
    }

    /// Vertical stripes of `± eps` on the clean images, clamped to [0, 1], by the random numbers of images `first`, ….
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] if `clean` is not a batch.
    pub fn stripes<B: Backend>(&self, backend: &B, clean: &Tensor<B>, rng: &Rng, first: u64) -> Result<Tensor<B>> {
        let [n, c, h, w] = clean.shape().dims();
        let mut x = clean.values(backend);
        for (i, value) in x.iter_mut().enumerate() {
            let (sample, channel, column) = (i / (c * h * w), i / (h * w) % c, i % w);
            let element = ((first + sample as u64) * c as u64 + channel as u64) * w as u64 + column as u64;
            let delta = if rng.u32_at(element) >> 31 == 1 { self.eps } else { -self.eps };
            *value = (*value + delta).clamp(0.0, 1.0);
        }
        Ok(Tensor::upload(backend, [n, c, h, w], &x))
    }

    /// The update that is proposed at `query`, counted from 0, to image `place` of those that `rng` is for.
    pub fn proposal(&self, [_, h, w]: [usize; 3], query: usize, rng: &Rng, place: u64) -> SquareUpdate {
        let side = self.side(h, w, query);
        let bits = rng.block(place * self.queries as u64 + query as u64);
        // The bias of the multiply-shift is below size / 2^32.
        let below = |bits: u32, n: usize| ((u64::from(bits) * n as u64) >> 32) as u32;
        SquareUpdate {
            top: below(bits[0], h - side + 1),
            left: below(bits[1], w - side + 1),
            side: side as u32,
            up: bits[2],
        }
    }

    /// Side of the squares at `query`: the fraction of the pixels halves along the published schedule, stretched to the
    /// number of queries.
    pub fn side(&self, h: usize, w: usize, query: usize) -> usize {
        let at = query * 10_000 / self.queries;
        let halvings = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000].iter().filter(|&&end| at > end).count();
        let p = self.p_init / f64::from(1u32 << halvings);
        ((p * (h * w) as f64).sqrt().round_ties_even() as usize).clamp(1, h.min(w))
    }

    /// Attacks from the points `start` and returns the best point of each image. `propose` names the update of each image
    /// at each query.
    ///
    /// # Errors
    /// As [`TargetModel::forward`].
    pub fn attack<B: Backend>(
        &self,
        target_model: &TargetModel<'_, B>,
        clean: &Tensor<B>,
        labels: &[u8],
        start: Tensor<B>,
        propose: impl Fn(usize, usize) -> SquareUpdate,
    ) -> Result<Tensor<B>> {
        let backend = target_model.backend;
        let [n, c, h, w] = clean.shape().dims();
        let margins = |logits: &Logits| -> Vec<f64> {
            labels.iter().enumerate().map(|(i, &y)| objective::margin(logits.of_image(i), usize::from(y))).collect()
        };
        let mut x = start;
        let mut lowest = margins(&target_model.logits(&x)?);
        for query in 0..self.queries {
            let standing: Vec<bool> = lowest.iter().map(|&margin| margin > 0.0 || margin.is_nan()).collect();
            if !standing.contains(&true) {
                break;
            }
            let none = SquareUpdate { top: 0, left: 0, side: 0, up: 0 };
            let update = |i: usize| if standing[i] { propose(query, i) } else { none };
            let updates: Vec<SquareUpdate> = (0..n).map(update).collect();
            let proposed = backend.square_update([c, h, w], self.eps, &updates, clean.buf(), x.buf());
            let proposed = Tensor::new(proposed, x.shape().clone());
            let margins = margins(&target_model.logits(&proposed)?);
            let better: Vec<bool> = (0..n).map(|i| standing[i] && margins[i] < lowest[i]).collect();
            backend.copy_samples(&better, proposed.buf(), x.buf_mut()?);
            (0..n).filter(|&i| better[i]).for_each(|i| lowest[i] = margins[i]);
        }
        Ok(x)
    }
}
