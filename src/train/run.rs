//! The loop itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::state::{self, Kept, Progress};
use super::{Candidate, EpochRow, Observer, Selection, TrainConfig, TrainResult};
use crate::attack::BnMode;
use crate::attack::pgd::{Start, pgd, pgd_in_parts};
use crate::backend::{Backend, Counts, CropFlip, LossKind};
use crate::data::Dataset;
use crate::dims::LogitDims;
use crate::error::{Error, Result};
use crate::eval::{self, EvalReport, Subset};
use crate::init::initial_values;
use crate::models::{Architecture, Mode, Model};
use crate::ops;
use crate::optim::Optimizer;
use crate::rng::{Rng, Stream};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Steps between looks at the loss: a look makes a GPU wait.
const CHECK_EVERY: u64 = 64;

/// Padding of the random crop.
const CROP_PAD: u32 = 4;

/// Trains as `config` says, continuing from whatever an earlier, interrupted call left in `dir`. Writes there:
/// `state.safetensors` and `metrics.csv` after every epoch, `model.safetensors` at the end. The result does not
/// depend on interruptions or on the number of threads.
///
/// # Errors
/// [`Error::Usage`] for a setting out of range, [`Error::Input`] for a damaged state, [`Error::Diverged`] if the loss
/// becomes NaN or infinite (the state of the last complete epoch stays), [`Error::Interrupted`] when `observer` asks
/// to stop and the state is saved.
pub fn train<B: Backend>(
    backend: &B,
    config: &TrainConfig,
    data: &Dataset,
    dir: &Path,
    observer: &dyn Observer,
) -> Result<TrainResult> {
    config.validate(data.train.labels.len())?;
    backend.scope(|| Run::start(backend, config, data, dir, observer)?.finish())
}

/// A training run in flight.
struct Run<'a, B: Backend> {
    backend: &'a B,
    config: &'a TrainConfig,
    data: &'a Dataset,
    dir: &'a Path,
    observer: &'a dyn Observer,
    train_images: B::Resident<'a>,
    test_images: B::Resident<'a>,
    /// Indices into the training split.
    trained_on: Vec<u32>,
    held_out: Vec<u32>,
    test: Vec<u32>,
    model: Model<B>,
    optimizer: Optimizer<B>,
    progress: Progress,
    kept: Kept,
    /// When the clock of the epoch in flight was last read.
    clock: Instant,
}

impl<'a, B: Backend> Run<'a, B> {
    fn start(
        backend: &'a B,
        config: &'a TrainConfig,
        data: &'a Dataset,
        dir: &'a Path,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let architecture = Arc::new(Architecture::new(config.network, config.width, data.classes)?);
        let values = initial_values(&architecture, config.init, config.seed);
        let mut model = Model::new(backend, architecture, &values)?;
        let mut optimizer = Optimizer::new(backend, &config.optimizer, model.params());
        let (progress, kept) = state::resume(dir, backend, config, &mut model, &mut optimizer)?
            .unwrap_or_else(|| (Progress::new(config), Vec::new()));
        let order = Rng::new(config.seed, Stream::HeldOut, 0).permutation(data.train.labels.len());
        let (held_out, trained_on) = order.split_at(config.held_out);
        let sorted = |indices: &[u32]| {
            let mut indices = indices.to_vec();
            indices.sort_unstable();
            indices
        };
        Ok(Run {
            backend,
            config,
            data,
            dir,
            observer,
            train_images: backend.resident(data.shape, &data.train.images),
            test_images: backend.resident(data.shape, &data.test.images),
            trained_on: sorted(trained_on),
            held_out: sorted(held_out),
            test: (0..data.test.labels.len() as u32).collect(),
            model,
            optimizer,
            progress,
            kept,
            clock: Instant::now(),
        })
    }

    fn finish(mut self) -> Result<TrainResult> {
        state::write_metrics(self.dir, &self.progress.rows)?;
        while self.progress.epoch < self.config.epochs {
            match self.epoch() {
                Err(Error::Interrupted) => {
                    // Between two looks at the loss: a diverged state must not replace the last good one.
                    self.check_loss()?;
                    self.save()?;
                    return Err(Error::Interrupted);
                }
                other => other?,
            }
            self.save()?;
            state::write_metrics(self.dir, &self.progress.rows)?;
        }
        let find = |select| self.progress.candidates.iter().find(|c| c.select == select);
        // Without images put aside there is no held-out candidate; the last epoch is then the honest choice.
        let selected = find(self.config.select).or_else(|| find(Selection::Last));
        let selected = selected.ok_or_else(|| Error::Failed("a run of no epochs has no result".into()))?.clone();
        let kept = self.kept.iter().find(|(select, _)| *select == selected.select);
        let weights = kept.map_or_else(|| self.model.state(self.backend), |(_, entries)| entries.clone());
        state::write_model(self.dir, &self.model, &weights)?;
        Ok(TrainResult {
            collapsed: collapsed(&selected.test, self.data.classes),
            selected,
            candidates: self.progress.candidates,
            parameters: self.model.architecture().parameters(),
            epochs: self.config.epochs,
            seconds: self.progress.rows.iter().map(|r| r.seconds).sum(),
        })
    }

    fn save(&mut self) -> Result<()> {
        self.read_clock();
        state::save(self.dir, self.backend, &mut self.progress, &self.model, &self.optimizer, &self.kept)
    }

    fn read_clock(&mut self) {
        self.progress.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
    }

    fn steps_per_epoch(&self) -> u64 {
        self.trained_on.len().div_ceil(self.config.batch) as u64
    }

    /// The rest of the epoch in flight: its training steps, then its evaluation.
    fn epoch(&mut self) -> Result<()> {
        let epoch = self.progress.epoch;
        let order = Rng::new(self.config.seed, Stream::Shuffle, epoch as u32).permutation(self.trained_on.len());
        while self.progress.step < self.steps_per_epoch() {
            let first = self.progress.step as usize * self.config.batch;
            let last = (first + self.config.batch).min(order.len());
            let indices: Vec<u32> = order[first..last].iter().map(|&i| self.trained_on[i as usize]).collect();
            let passes = self.step(&indices)?;
            self.progress.step += 1;
            if self.progress.step % CHECK_EVERY == 0 || self.progress.step == self.steps_per_epoch() {
                self.check_loss()?;
            }
            tick(self.observer, passes)?;
        }
        let test = self.evaluate(&self.test_images, &self.data.test.labels, &self.test)?;
        let held_out = if self.held_out.is_empty() {
            None
        } else {
            Some(self.evaluate(&self.train_images, &self.data.train.labels, &self.held_out)?)
        };
        self.complete(test, held_out)
    }

    fn evaluate(&self, images: &B::Resident<'_>, labels: &[u8], indices: &[u32]) -> Result<EvalReport> {
        let attack = Some(&self.config.eval_attack);
        let subset = Subset { images, labels, indices };
        eval::evaluate(self.backend, &self.model, &subset, attack, self.config.seed, &|passes| {
            tick(self.observer, passes)
        })
    }

    fn check_loss(&self) -> Result<()> {
        let loss = self.progress.counts.loss;
        if loss.is_finite() {
            return Ok(());
        }
        Err(Error::Diverged(format!(
            "the training loss became {loss} in epoch {} by step {}; the state of epoch {} is kept; lower the learning rate \
             (now {})",
            self.progress.epoch + 1,
            self.progress.step,
            self.progress.epoch,
            self.config.optimizer.lr(),
        )))
    }

    /// One step on these training images: the attack, then the weights. Returns the image passes done.
    fn step(&mut self, indices: &[u32]) -> Result<u64> {
        let (backend, config, n) = (self.backend, self.config, indices.len());
        let step = self.global_step();
        let labels: Vec<u8> = indices.iter().map(|&i| self.data.train.labels[i as usize]).collect();
        let rng = Rng::new(config.seed, Stream::Augment, step as u32);
        let augment = config.augment.then_some(CropFlip { rng, pad: CROP_PAD });
        let clean = backend.gather(&self.train_images, indices, augment.as_ref());
        let (images, attack_steps) = match &config.attack {
            None => (clean, 0),
            Some(attack) => (self.attack(&clean, &labels, step)?, attack.steps),
        };
        let tape = Tape::new(backend);
        let params = self.model.leaves(&tape);
        let input = tape.leaf(Tensor::new(images, self.model.input(n)));
        let output = self.model.forward(&tape, &params, &input, Mode::Train)?;
        let device_labels = backend.labels(&labels);
        let loss = ops::loss(&tape, LossKind::CrossEntropy, 1.0 / n as f32, &output.logits, &device_labels)?;
        let d = LogitDims { n: n as u32, classes: self.data.classes as u32 };
        let mut tally = backend.tally();
        backend.tally_add(&d, output.logits.buf(), &device_labels, &mut tally);
        self.progress.counts += backend.tally_read(&tally);
        let grads = tape.backward(&loss, &params.iter().collect::<Vec<_>>())?;
        drop((params, input, output.logits));
        let lr = self.lr(step);
        self.optimizer.step(backend, lr, &grads, self.model.params_mut())?;
        self.model.move_running(backend, output.stats)?;
        Ok((n * (attack_steps + 1)) as u64)
    }

    /// The adversarial images of one step.
    fn attack(&mut self, clean: &B::Buf, labels: &[u8], step: u64) -> Result<B::Buf> {
        let (backend, config) = (self.backend, self.config);
        let Some(attack) = &config.attack else { return Ok(backend.copy(clean)) };
        let rng = Rng::new(config.seed, Stream::TrainAttack, step as u32);
        let start = Start { rng: &rng, first: 0, strength: self.strength(step) };
        let mode = if attack.bn == BnMode::Eval { Mode::Eval } else { Mode::Train };
        let mut counts = Counts::default();
        let images = if attack.bn == BnMode::TrainMoving && self.model.couples_samples(mode) {
            let mut met = Vec::new();
            let images =
                pgd(backend, &self.model, mode, attack, start, clean, labels, &mut counts, |stats| met.push(stats))?;
            // Training mode does not read the running statistics, so they may as well move after the last pass.
            met.into_iter().try_for_each(|stats| self.model.move_running(backend, stats))?;
            images
        } else {
            pgd_in_parts(backend, &self.model, mode, attack, start, clean, labels, &mut counts)?
        };
        self.progress.counts += counts;
        Ok(images)
    }

    /// Steps since the start of the run.
    fn global_step(&self) -> u64 {
        self.progress.epoch as u64 * self.steps_per_epoch() + self.progress.step
    }

    fn lr(&self, step: u64) -> f32 {
        let factor = self.config.schedule.factor(step, self.steps_per_epoch(), self.config.epochs);
        (f64::from(self.config.optimizer.lr()) * factor) as f32
    }

    fn strength(&self, step: u64) -> f32 {
        self.config.eps_schedule.strength(step, self.steps_per_epoch()) as f32
    }

    /// Books a completed epoch: its row, and the candidates it makes.
    fn complete(&mut self, test: EvalReport, held_out: Option<EvalReport>) -> Result<()> {
        self.read_clock();
        let epoch = self.progress.epoch + 1;
        let last_step = epoch as u64 * self.steps_per_epoch() - 1;
        let eps = self.config.attack.as_ref().map_or(0.0, |a| f64::from(a.eps) * f64::from(self.strength(last_step)));
        let counts = self.progress.counts;
        let row = EpochRow {
            epoch,
            lr: f64::from(self.lr(last_step)),
            eps,
            train_loss: counts.mean_loss(),
            train_accuracy: counts.accuracy(),
            zero_gradient: counts.zero_gradient(),
            test_natural: test.natural,
            test_adversarial: test.adversarial,
            test_natural_loss: test.natural_loss,
            test_adversarial_loss: test.adversarial_loss,
            held_out_natural: held_out.as_ref().map(|r| r.natural),
            held_out_adversarial: held_out.as_ref().map(|r| r.adversarial),
            seconds: self.progress.seconds,
        };
        self.observer.epoch(&row, self.config.epochs);
        self.progress.rows.push(row);
        for &select in Selection::ALL {
            self.consider(Candidate { select, epoch, test: test.clone(), held_out: held_out.clone() });
        }
        self.progress.epoch = epoch;
        self.progress.step = 0;
        self.progress.counts = Counts::default();
        self.progress.seconds = 0.0;
        Ok(())
    }

    /// Makes `new` the candidate of its rule if it is better than the present one.
    fn consider(&mut self, new: Candidate) {
        let natural_training = self.config.attack.is_none();
        let Some(new_score) = score(&new, natural_training) else { return };
        let old = self.progress.candidates.iter().position(|c| c.select == new.select);
        let better = old.is_none_or(|i| {
            let old = score(&self.progress.candidates[i], natural_training);
            new.select == Selection::Last || old.is_none_or(|old| new_score > old)
        });
        if !better {
            return;
        }
        if new.select != Selection::Last {
            self.kept.retain(|(select, _)| *select != new.select);
            self.kept.push((new.select, self.model.state(self.backend)));
        }
        match old {
            Some(i) => self.progress.candidates[i] = new,
            None => self.progress.candidates.push(new),
        }
    }
}

/// What a rule ranks epochs by: the accuracy trained for, then the other one. `None` if the rule has no images.
fn score(candidate: &Candidate, natural_training: bool) -> Option<(f64, f64)> {
    let report = match candidate.select {
        Selection::HeldOut => candidate.held_out.as_ref()?,
        Selection::TestBest | Selection::Last => &candidate.test,
    };
    let (natural, adversarial) = (report.natural, report.adversarial);
    Some(if natural_training { (natural, adversarial) } else { (adversarial, natural) })
}

/// Whether a network has collapsed: one class for every image, and no better than guessing.
fn collapsed(report: &EvalReport, classes: usize) -> bool {
    report.constant_prediction.is_some() && report.natural_loss > 0.9 * (classes as f64).ln()
}

fn tick(observer: &dyn Observer, passes: u64) -> Result<()> {
    observer.advance(passes);
    if observer.stop_requested() { Err(Error::Interrupted) } else { Ok(()) }
}
