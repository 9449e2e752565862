//! Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018).

use serde::{Deserialize, Serialize};

use super::preset::{AttackOption, AttackPreset, NO_RESTARTS, NO_STEP_SIZE, Options, Preset};
use super::round::Round;
use super::target_model::{ImagePasses, TargetModel};
use super::{Attack, OnImagePasses};
use crate::autograd::ops;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, LossKind, PgdParams};
use crate::base::error::Result;
use crate::base::named_enum::named_enum;
use crate::base::nvtx;
use crate::base::rng::{Rng, Stream};
use crate::data::DatasetName;
use crate::data::info::PaperAttack;
use crate::nn::models::{Mode, Model, Stats};

named_enum! {
    /// The loss that is maximised.
    pub enum AttackLoss: "attack loss" {
        /// Softmax cross-entropy.
        CrossEntropy = "cross-entropy",
        /// Carlini & Wagner's margin `-max(z_y - max_{j != y} z_j + 50, 0)`.
        Margin = "margin",
    }
}

impl AttackLoss {
    /// The loss behind the name.
    pub fn kind(self) -> LossKind {
        match self {
            AttackLoss::CrossEntropy => LossKind::CrossEntropy,
            AttackLoss::Margin => LossKind::Margin,
        }
    }
}

named_enum! {
    /// How batch normalisation behaves while the attack runs.
    pub enum BnMode: "batch-norm mode" {
        /// Batch statistics; running statistics stay as they are.
        Train = "train",
        /// Batch statistics, and every attack pass updates the running statistics, as in the authors' code.
        TrainMoving = "train-moving",
        /// Running statistics.
        Eval = "eval",
    }
}

/// Projected gradient descent in the l-infinity ball (Madry et al., 2018). Pixels are in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PgdConfig {
    /// Radius of the ball.
    pub eps: f32,
    /// Length of a step.
    pub step_size: f32,
    /// Number of steps.
    pub steps: usize,
    /// Start at a uniform random point of the ball instead of at the clean image.
    pub random_start: bool,
    /// Independent starts; an image counts as robust only if it withstands all of them.
    pub restarts: usize,
    /// The loss it maximises.
    pub loss: AttackLoss,
    /// Batch normalisation while training against this attack (evaluation always uses `eval`).
    pub bn: BnMode,
}

const PGD: &str = "pgd";
const CW: &str = "cw";
const FGSM: &str = "fgsm";

impl PgdConfig {
    /// The names under which users know it.
    pub(super) const PRESETS: &[AttackPreset<Self>] = &[
        Preset {
            name: PGD,
            about: "Projected gradient descent on the cross-entropy",
            lacks: &[],
            configure: |options| PgdConfig::from_options(options, AttackLoss::CrossEntropy),
        },
        Preset {
            name: CW,
            about: "The same on Carlini & Wagner's margin",
            lacks: &[],
            configure: |options| PgdConfig::from_options(options, AttackLoss::Margin),
        },
        Preset {
            name: FGSM,
            about: "One step of the ball's radius from the clean image",
            lacks: &[(AttackOption::Steps, "it takes one step"), NO_STEP_SIZE, NO_RESTARTS],
            configure: |options| PgdConfig {
                steps: 1,
                step_size: options.eps(),
                random_start: false,
                ..PgdConfig::from_options(options, AttackLoss::CrossEntropy)
            },
        },
    ];

    /// The paper's attack on a data set, for training and testing alike.
    pub fn paper(data: DatasetName) -> Self {
        let PaperAttack { eps, step_size, steps, .. } = data.info().attack;
        PgdConfig {
            eps,
            step_size,
            steps,
            random_start: true,
            restarts: 1,
            loss: AttackLoss::CrossEntropy,
            bn: BnMode::Train,
        }
    }

    /// The same attack with `strength` times the radius and the step size: 0 to 1, over the epochs of [`super::EpsSchedule`].
    pub fn scaled(&self, strength: f32) -> Self {
        PgdConfig { eps: strength * self.eps, step_size: strength * self.step_size, ..self.clone() }
    }

    /// The paper's attack with what a user has chosen instead.
    pub(super) fn from_options(options: &Options, loss: AttackLoss) -> Self {
        let paper = PgdConfig::paper(options.data);
        PgdConfig {
            eps: options.eps(),
            steps: options.steps.unwrap_or(paper.steps),
            step_size: options.step_size.unwrap_or(paper.step_size),
            restarts: options.restarts(),
            loss,
            ..paper
        }
    }

    /// A round on `model`, which need not be the one that the images are for.
    pub(super) fn attack<B: Backend>(
        &self,
        model: &Model<B>,
        target_model: &TargetModel<'_, B>,
        round: &Round<'_, B>,
    ) -> Result<Tensor<B>> {
        let backend = target_model.backend;
        let batch = Batch { images: round.clean.clone(), labels: &backend.labels(round.labels) };
        let rng = round.rng(Stream::SuiteStart);
        let start = Start { rng: &rng, first: round.first };
        let pgd = PgdAttack { backend, model, mode: Mode::Eval, config: self };
        pgd.attack_and_tell(start, &batch, &mut backend.metrics(), target_model.on_image_passes)
    }
}

impl AttackLoss {
    /// The name of PGD on this loss.
    pub fn attack(self) -> &'static str {
        match self {
            AttackLoss::CrossEntropy => PGD,
            AttackLoss::Margin => CW,
        }
    }
}

impl Attack for PgdConfig {
    fn name(&self) -> &'static str {
        match self.loss {
            _ if self.steps == 1 && !self.random_start => FGSM,
            loss => loss.attack(),
        }
    }

    fn eps(&self) -> f32 {
        self.eps
    }

    fn pgd(&self) -> Option<&PgdConfig> {
        Some(self)
    }

    fn at_least_one(&self) -> Vec<(&'static str, usize)> {
        vec![("restarts", self.restarts)]
    }

    fn rounds(&self, _: usize) -> usize {
        self.restarts
    }

    fn image_passes(&self) -> u64 {
        self.steps as u64
    }

    fn run<B: Backend>(&self, target_model: &TargetModel<'_, B>, round: &Round<'_, B>) -> Result<Tensor<B>> {
        let passes = (round.labels.len() * self.steps) as u64;
        target_model.add(ImagePasses { queries: passes, gradients: passes });
        self.attack(target_model.model, target_model, round)
    }
}

/// PGD on a model, with any mode of batch normalisation.
pub struct PgdAttack<'a, B: Backend> {
    /// The backend.
    pub backend: &'a B,
    /// The model under attack.
    pub model: &'a Model<B>,
    /// Where its batch normalisation takes statistics from.
    pub mode: Mode,
    /// Radius, steps, loss.
    pub config: &'a PgdConfig,
}

/// The random numbers of an attack on a batch.
#[derive(Clone, Copy, Debug)]
pub struct Start<'r> {
    /// Numbers of the random start.
    pub rng: &'r Rng,
    /// Position of the batch's first sample among those numbers.
    pub first: u64,
}

/// Images and their classes.
pub struct Batch<'b, B: Backend> {
    /// `[n, c, h, w]`, pixels in [0, 1].
    pub images: Tensor<B>,
    /// As many labels.
    pub labels: &'b B::Labels,
}

impl<B: Backend> Batch<'_, B> {
    /// Number of images.
    pub fn n(&self) -> usize {
        self.images.shape().dims()[0]
    }
}

impl<B: Backend> PgdAttack<'_, B> {
    /// Attacks `batch` as a whole and returns the adversarial images. `metrics` counts the gradient elements met, and how
    /// many of them were zero; `on_pass` gets the batch statistics of every forward pass, for running statistics that are
    /// to be updated.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] if the batch does not fit the model.
    pub fn attack(
        &self,
        start: Start<'_>,
        batch: &Batch<'_, B>,
        metrics: &mut B::MetricsBuf,
        mut on_pass: impl FnMut(Stats<B>),
    ) -> Result<Tensor<B>> {
        let (n, clean) = (batch.n(), &batch.images);
        if let Some(x) = self.fused(start, batch, metrics) {
            (0..self.config.steps).for_each(|_| on_pass(Stats::none()));
            return Ok(x);
        }
        let x = if self.config.random_start {
            let features = clean.shape().len() / n;
            self.backend.random_start(n, features, self.config.eps, start.rng, start.first, clean.buf())
        } else {
            self.backend.copy_batch(clean.buf())
        };
        let x = Tensor::new(x, clean.shape().clone());
        self.ascend(batch, x, metrics, on_pass)
    }

    /// The whole attack by one kernel, if the backend has one for this network.
    fn fused(&self, start: Start<'_>, batch: &Batch<'_, B>, metrics: &mut B::MetricsBuf) -> Option<Tensor<B>> {
        let (n, clean, config) = (batch.n(), &batch.images, self.config);
        let network = self.model.sequential(n).filter(|_| *clean.shape() == self.model.input(n))?;
        let params = PgdParams {
            eps: config.eps,
            step_size: config.step_size,
            steps: config.steps as u32,
            loss: config.loss.kind(),
            start: config.random_start.then_some((start.rng, start.first)),
        };
        let _range = nvtx::range(|| "attack".to_string());
        let x = self.backend.fused_pgd(&network, &params, clean.buf(), batch.labels, metrics)?;
        Some(Tensor::new(x, clean.shape().clone()))
    }

    /// As [`PgdAttack::attack`] with batch statistics left alone, as one [`crate::backend::Memory::capture`]. `on_image_passes` is
    /// told of the images of every gradient.
    ///
    /// # Errors
    /// As [`PgdAttack::attack`]; whatever `on_image_passes` returns.
    pub fn attack_and_tell(
        &self,
        start: Start<'_>,
        batch: &Batch<'_, B>,
        metrics: &mut B::MetricsBuf,
        on_image_passes: OnImagePasses<'_>,
    ) -> Result<Tensor<B>> {
        let mut told = Ok(());
        let attacked = self.backend.capture(batch.n(), || {
            self.attack(start, batch, metrics, |_| {
                if told.is_ok() {
                    told = on_image_passes(batch.n() as u64);
                }
            })
        })?;
        told.map(|()| attacked)
    }

    /// As [`PgdAttack::attack`] with batch statistics left alone, on the parts of a batch side by side where its samples do
    /// not depend on each other. The result is the same.
    ///
    /// # Errors
    /// As [`PgdAttack::attack`].
    pub fn attack_in_parts(
        &self,
        start: Start<'_>,
        batch: &Batch<'_, B>,
        metrics: &mut B::MetricsBuf,
    ) -> Result<Tensor<B>> {
        let (backend, n) = (self.backend, batch.n());
        if self.model.couples_samples(self.mode) || !backend.splits(n) {
            return self.attack(start, batch, metrics, drop);
        }
        let parts = backend.map_parts(n, |range| {
            let start = Start { first: start.first + range.start as u64, ..start };
            let labels = &backend.labels_part(range.clone(), batch.labels);
            let images = backend.part(n, range.clone(), batch.images.buf());
            let part = Batch { images: Tensor::new(images, self.model.input(range.len())), labels };
            let mut metrics = backend.metrics();
            Ok((self.attack(start, &part, &mut metrics, drop)?, metrics))
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
        let mut counts = backend.metrics_read(metrics);
        parts.iter().for_each(|(_, counted)| counts += backend.metrics_read(counted));
        *metrics = backend.metrics_from(&counts);
        let images = backend.join(&parts.iter().map(|(images, _)| images.buf()).collect::<Vec<_>>());
        Ok(Tensor::new(images, batch.images.shape().clone()))
    }

    /// The steps from the point `x`: each goes up the gradient's sign, projects to the ball around the clean images,
    /// then clamps to [0, 1].
    ///
    /// # Errors
    /// As [`PgdAttack::attack`].
    pub fn ascend(
        &self,
        batch: &Batch<'_, B>,
        mut x: Tensor<B>,
        metrics: &mut B::MetricsBuf,
        mut on_pass: impl FnMut(Stats<B>),
    ) -> Result<Tensor<B>> {
        let (backend, model) = (self.backend, self.model);
        for number in 0..self.config.steps {
            let _range = nvtx::range(|| format!("attack step {number}"));
            let tape = Tape::new(backend);
            let params = model.leaves(&tape);
            let input = tape.leaf(x.clone());
            let output = model.forward(&tape, &params, &input, self.mode)?;
            // The sum, not the mean: a sample's gradient must not underflow because its batch is large.
            let loss = ops::loss(&tape, self.config.loss.kind(), 1.0, &output.logits, batch.labels);
            let gradients = tape.backward(&loss, &[&input], &[])?;
            on_pass(output.stats);
            drop((params, input));
            backend.pgd_step(
                batch.n(),
                self.config.eps,
                self.config.step_size,
                batch.images.buf(),
                gradients.tensors[0].buf(),
                x.buf_mut()?,
                metrics,
            );
        }
        Ok(x)
    }
}
