//! Every attack under one name, as a sequence of rounds: a restart, a target class, or both.

use serde::{Deserialize, Serialize};

use super::apgd::{ApgdConfig, ApgdLoss};
use super::cw_l2::CwL2Config;
use super::fab::FabConfig;
use super::pgd::{Batch, PgdAttack, Start};
use super::probe::{Cost, Probe};
use super::square::SquareConfig;
use super::{AttackLoss, PgdConfig};
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, Distance};
use crate::base::error::{Error, Result};
use crate::base::rng::{Rng, Stream};
use crate::nn::models::{Mode, Model};

/// Other classes that the targeted attacks go for, at most: the likeliest ones.
const MOST_TARGETS: usize = 9;

/// An attack with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "attack", rename_all = "kebab-case")]
pub enum AttackConfig {
    /// Projected gradient descent; of one step from the clean image, FGSM.
    Pgd(PgdConfig),
    /// The same on another network, the surrogate; what comes of it is tried on the one under attack.
    Transfer(PgdConfig),
    /// Auto-PGD.
    Apgd(ApgdConfig),
    /// Fast Adaptive Boundary attack.
    Fab(FabConfig),
    /// Square attack.
    Square(SquareConfig),
    /// Carlini & Wagner's l2 attack.
    CwL2(CwL2Config),
}

/// What is attacked in a round, and by which random numbers.
pub struct Round<'r, B: Backend> {
    /// Number of the round, counted from 0.
    pub number: usize,
    /// `[n, c, h, w]`, pixels in [0, 1].
    pub clean: &'r Tensor<B>,
    /// As many classes.
    pub labels: &'r [u8],
    /// Key of all random numbers.
    pub seed: u64,
    /// Place of the attack in its suite: it has random numbers of its own.
    pub attack: usize,
    /// Place of the first image among those of the round.
    pub first: u64,
}

impl<B: Backend> Round<'_, B> {
    fn rng(&self, stream: Stream) -> Rng {
        Rng::new(self.seed, stream, (self.attack << 16 | self.number) as u32)
    }

    /// A uniform random point of the ball.
    fn random_start(&self, backend: &B, eps: f32) -> Tensor<B> {
        let shape = self.clean.shape();
        let features = shape.len() / self.labels.len();
        let rng = self.rng(Stream::SuiteStart);
        let x = backend.random_start(self.labels.len(), features, eps, &rng, self.first, self.clean.buf());
        Tensor::new(x, shape.clone())
    }
}

/// The `standard` AutoAttack ensemble in the l-infinity ball (Croce & Hein, 2020): APGD on the cross-entropy, targeted
/// APGD, targeted FAB, Square.
pub fn standard(eps: f32) -> Vec<AttackConfig> {
    vec![
        AttackConfig::Apgd(ApgdConfig::published(eps, ApgdLoss::CrossEntropy)),
        AttackConfig::Apgd(ApgdConfig::published(eps, ApgdLoss::TargetedDlr)),
        AttackConfig::Fab(FabConfig::published(eps)),
        AttackConfig::Square(SquareConfig::published(eps)),
    ]
}

impl AttackConfig {
    /// Its usual name.
    pub fn name(&self) -> &'static str {
        match self {
            AttackConfig::Pgd(config) if config.steps == 1 && !config.random_start => "fgsm",
            AttackConfig::Pgd(PgdConfig { loss: AttackLoss::CrossEntropy, .. }) => "pgd",
            AttackConfig::Pgd(PgdConfig { loss: AttackLoss::Margin, .. }) => "cw",
            AttackConfig::Transfer(_) => "transfer",
            AttackConfig::Apgd(config) => match config.loss {
                ApgdLoss::CrossEntropy => "apgd-ce",
                ApgdLoss::Dlr => "apgd-dlr",
                ApgdLoss::TargetedDlr => "apgd-t",
            },
            AttackConfig::Fab(_) => "fab-t",
            AttackConfig::Square(_) => "square",
            AttackConfig::CwL2(_) => "cw-l2",
        }
    }

    /// Radius within which an adversarial image counts.
    pub fn eps(&self) -> f32 {
        match self {
            AttackConfig::Pgd(config) | AttackConfig::Transfer(config) => config.eps,
            AttackConfig::Apgd(config) => config.eps,
            AttackConfig::Fab(config) => config.eps,
            AttackConfig::Square(config) => config.eps,
            AttackConfig::CwL2(config) => config.eps,
        }
    }

    /// How the radius is measured.
    pub fn distance(&self) -> Distance {
        match self {
            AttackConfig::CwL2(_) => Distance::L2,
            _ => Distance::LInf,
        }
    }

    /// Whether it uses gradients of the network under attack.
    pub fn is_white_box(&self) -> bool {
        !matches!(self, AttackConfig::Transfer(_) | AttackConfig::Square(_))
    }

    /// Rounds on a network of `classes` classes.
    pub fn rounds(&self, classes: usize) -> usize {
        let targets = MOST_TARGETS.min(classes.saturating_sub(1));
        match self {
            AttackConfig::Pgd(config) | AttackConfig::Transfer(config) => config.restarts,
            AttackConfig::Apgd(config) => config.restarts * if self.is_targeted() { targets } else { 1 },
            AttackConfig::Fab(_) => targets,
            AttackConfig::Square(_) | AttackConfig::CwL2(_) => 1,
        }
    }

    /// Most image passes of a round over one image, as its watcher counts them.
    pub fn passes(&self) -> u64 {
        let passes = match self {
            AttackConfig::Pgd(config) | AttackConfig::Transfer(config) => config.steps,
            // One more to see which classes are likeliest.
            AttackConfig::Apgd(config) => config.steps + 1 + usize::from(self.is_targeted()),
            AttackConfig::Fab(config) => 2 * config.steps + 1,
            AttackConfig::Square(config) => config.queries + 1,
            AttackConfig::CwL2(config) => config.searches * config.steps,
        };
        passes as u64
    }

    fn is_targeted(&self) -> bool {
        matches!(self, AttackConfig::Fab(_) | AttackConfig::Apgd(ApgdConfig { loss: ApgdLoss::TargetedDlr, .. }))
    }

    /// Checks that the settings make sense for a network of `classes` classes.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the setting, or the number of classes that the attack needs.
    pub fn validate(&self, classes: usize) -> Result<()> {
        let needs = match self {
            AttackConfig::Apgd(ApgdConfig { loss: ApgdLoss::Dlr, .. }) => 3,
            AttackConfig::Apgd(ApgdConfig { loss: ApgdLoss::TargetedDlr, .. }) => 4,
            _ => 2,
        };
        if classes < needs {
            return Err(Error::Usage(format!(
                "--attack {}: needs {needs} classes or more, the network has {classes}; use apgd-ce or pgd",
                self.name()
            )));
        }
        let least = |what: &str, value: usize| match value {
            0 => Err(Error::Usage(format!("--attack {}: {what} must be at least 1, got 0", self.name()))),
            _ => Ok(()),
        };
        if !(self.eps().is_finite() && self.eps() >= 0.0) {
            return Err(Error::Usage(format!("--eps: must be at least 0, got {}", self.eps())));
        }
        match self {
            AttackConfig::Pgd(config) | AttackConfig::Transfer(config) => least("restarts", config.restarts),
            AttackConfig::Apgd(config) => least("restarts", config.restarts).and(least("steps", config.steps)),
            AttackConfig::Fab(config) => least("steps", config.steps),
            AttackConfig::Square(config) => least("queries", config.queries),
            AttackConfig::CwL2(config) => least("steps", config.steps),
        }
    }

    /// Runs a round and returns, for each image, the best attempt at an adversarial one. Whether it is one is for the
    /// caller to judge. `surrogate` is what [`AttackConfig::Transfer`] attacks instead.
    ///
    /// # Errors
    /// As [`Probe::pass`]; [`Error::Usage`] for a transfer without surrogate.
    pub fn attack<B: Backend>(
        &self,
        probe: &Probe<'_, B>,
        surrogate: Option<&Model<B>>,
        round: &Round<'_, B>,
    ) -> Result<Tensor<B>> {
        let Round { number, clean, labels, .. } = *round;
        let backend = probe.backend;
        let targets = |round: usize| Ok(probe.logits(clean)?.ranked(2 + round));
        match self {
            AttackConfig::Pgd(config) => {
                let cost = (labels.len() * config.steps) as u64;
                probe.add(Cost { queries: cost, gradients: cost });
                pgd(config, probe, probe.model, round)
            }
            AttackConfig::Transfer(config) => {
                let surrogate = surrogate.ok_or_else(|| Error::Usage("transfer: needs a surrogate".to_string()))?;
                pgd(config, probe, surrogate, round)
            }
            AttackConfig::Apgd(config) => {
                let targets = if self.is_targeted() { targets(number / config.restarts)? } else { Vec::new() };
                let start = round.random_start(backend, config.eps);
                config.attack(probe, clean, labels, &targets, start, |_| {})
            }
            AttackConfig::Fab(config) => config.attack(probe, clean, labels, &targets(number)?, |_| {}),
            AttackConfig::Square(config) => {
                let [_, c, h, w] = clean.batch_dims("square")?;
                let start = config.stripes(backend, clean, &round.rng(Stream::SuiteStart), round.first)?;
                let rng = round.rng(Stream::Square);
                let propose = |query: usize, i: usize| config.proposal([c, h, w], query, &rng, round.first + i as u64);
                config.attack(probe, clean, labels, start, propose)
            }
            AttackConfig::CwL2(config) => config.attack(probe, clean, labels),
        }
    }
}

/// A round of PGD on `model`.
fn pgd<B: Backend>(
    config: &PgdConfig,
    probe: &Probe<'_, B>,
    model: &Model<B>,
    round: &Round<'_, B>,
) -> Result<Tensor<B>> {
    let backend = probe.backend;
    let batch = Batch { images: round.clean.clone(), labels: &backend.labels(round.labels) };
    let rng = round.rng(Stream::SuiteStart);
    let start = Start { rng: &rng, first: round.first, strength: 1.0 };
    let pgd = PgdAttack { backend, model, mode: Mode::Eval, config };
    pgd.attack_watched(start, &batch, &mut backend.tally(), probe.watch)
}
