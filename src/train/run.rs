//! The loop itself.

use std::path::Path;
use std::time::Instant;

use super::config::{Selection, TrainConfig};
use super::initial_model::{InitialModel, initial_model};
use super::sparse::Sparsifier;
use super::state::{self, Kept, Progress};
use super::step::Trainer;
use super::{Candidate, EpochRow, Observer, ResidualRow, TrainResult};
use crate::attack::evaluation;
use crate::attack::evaluation::{EvalReport, Subset};
use crate::attack::pgd::{Batch, Start};
use crate::autograd::tensor::Tensor;
use crate::backend::{Backend, CropFlip, Metrics};
use crate::base::error::{Error, Result};
use crate::base::nvtx;
use crate::base::rng::{Rng, Stream};
use crate::checkpoint::{self, MODEL_FILE, ModelInfo};
use crate::data::Dataset;
use crate::prune::Admm;

/// Steps between two checks of the loss: reading it makes a GPU wait.
const CHECK_EVERY: u64 = 64;

/// Padding of the random crop.
const CROP_PAD: u32 = 4;

/// Trains as `config` says, continuing from whatever an earlier, interrupted call left in `dir`. `parent` is the model
/// file to start from, where `config.origin` asks for one. Writes to `dir`: `state.safetensors` and `metrics.csv` after
/// every epoch, `residuals.csv` with ADMM, `model.safetensors` at the end. The result does not depend on interruptions
/// or on the number of threads.
///
/// # Errors
/// [`Error::Usage`] for a setting out of range, [`Error::Input`] for a damaged state or a parent that does not fit,
/// [`Error::Diverged`] if the loss becomes NaN or infinite (the state of the last complete epoch stays),
/// [`Error::Interrupted`] when `observer` asks to stop and the state is saved.
pub fn train<B: Backend>(
    backend: &B,
    config: &TrainConfig,
    data: &Dataset,
    parent: Option<&Path>,
    dir: &Path,
    observer: &dyn Observer,
) -> Result<TrainResult> {
    config.validate(data.train.labels.len())?;
    backend.scope(|| Run::start(backend, config, data, parent, dir, observer)?.finish())
}

/// A training run in flight.
struct Run<'a, B: Backend> {
    backend: &'a B,
    config: &'a TrainConfig,
    data: &'a Dataset,
    dir: &'a Path,
    observer: &'a dyn Observer,
    /// Metadata of the finished model.
    info: ModelInfo,
    train_images: B::Resident<'a>,
    test_images: B::Resident<'a>,
    /// Indices into the training split.
    trained_on: Vec<u32>,
    held_out: Vec<u32>,
    test: Vec<u32>,
    trainer: Trainer<B>,
    progress: Progress,
    /// The counts of the epoch in flight, on the device; `progress` has them as they were last read.
    metrics: B::MetricsBuf,
    kept: Kept,
    /// When the clock of the epoch in flight was last read.
    clock: Instant,
}

impl<'a, B: Backend> Run<'a, B> {
    fn start(
        backend: &'a B,
        config: &'a TrainConfig,
        data: &'a Dataset,
        parent: Option<&Path>,
        dir: &'a Path,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let InitialModel { model, epochs, pruned } = initial_model(backend, config, data.classes, parent)?;
        let sparsifier = Sparsifier::start(backend, &config.sparsity, &model)?;
        let mut trainer = Trainer::of(backend, model, &config.optimizer, sparsifier);
        let info = ModelInfo::new(trainer.model.architecture(), pruned, epochs + config.epochs);
        let (progress, kept) =
            state::resume(dir, backend, config, &mut trainer)?.unwrap_or_else(|| (Progress::new(config), Vec::new()));
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
            info,
            train_images: backend.resident(data.shape, &data.train.images),
            test_images: backend.resident(data.shape, &data.test.images),
            trained_on: sorted(trained_on),
            held_out: sorted(held_out),
            test: (0..data.test.labels.len() as u32).collect(),
            trainer,
            metrics: backend.metrics_from(&progress.counts),
            progress,
            kept,
            clock: Instant::now(),
        })
    }

    fn finish(mut self) -> Result<TrainResult> {
        state::write_metrics(self.dir, &self.progress)?;
        while self.progress.epoch < self.config.epochs {
            match self.epoch() {
                Err(Error::Interrupted) => {
                    self.read_metrics()?;
                    self.save()?;
                    return Err(Error::Interrupted);
                }
                other => other?,
            }
            self.save()?;
            state::write_metrics(self.dir, &self.progress)?;
        }
        let find = |select| self.progress.candidates.iter().find(|c| c.select == select);
        // Without images put aside there is no held-out candidate; the last epoch is then the honest choice.
        let selected = find(self.config.select).or_else(|| find(Selection::Last));
        let selected = selected.ok_or_else(|| Error::Failed("a run of no epochs has no result".into()))?.clone();
        let kept = self.kept.iter().find(|(select, _)| *select == selected.select);
        let weights = kept.map_or_else(|| self.trainer.model.state(self.backend), |(_, entries)| entries.clone());
        self.backend.status()?;
        checkpoint::save_model(&self.dir.join(MODEL_FILE), &weights, &self.info)?;
        Ok(TrainResult {
            collapsed: selected.test.collapsed(self.data.test.majority()),
            selected,
            candidates: self.progress.candidates,
            parameters: self.trainer.model.architecture().parameters(),
            epochs: self.config.epochs,
            seconds: self.progress.rows.iter().map(|r| r.seconds).sum(),
        })
    }

    fn save(&mut self) -> Result<()> {
        self.read_clock();
        state::save(self.dir, self.backend, &mut self.progress, &self.trainer, &self.kept)
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
        let _range = nvtx::range(|| format!("epoch {epoch}"));
        let order = Rng::new(self.config.seed, Stream::Shuffle, epoch as u32).permutation(self.trained_on.len());
        while self.progress.step < self.steps_per_epoch() {
            let first = self.progress.step as usize * self.config.batch;
            let last = (first + self.config.batch).min(order.len());
            let indices: Vec<u32> = order[first..last].iter().map(|&i| self.trained_on[i as usize]).collect();
            let image_passes = self.step(&indices)?;
            self.progress.step += 1;
            if self.progress.step.is_multiple_of(CHECK_EVERY) || self.progress.step == self.steps_per_epoch() {
                self.read_metrics()?;
            }
            self.observer.advance_unless_stopped(image_passes)?;
        }
        self.trainer.sparsifier.after_last_step(self.backend, &mut self.trainer.model)?;
        let measured = (epoch + 1).is_multiple_of(self.config.eval_every) || epoch + 1 == self.config.epochs;
        let measured = if measured { Some(self.measure()?) } else { None };
        self.complete(measured)
    }

    /// Reports of the test set and of the images put aside.
    fn measure(&self) -> Result<Measured> {
        let test = self.evaluate(&self.test_images, &self.data.test.labels, &self.test)?;
        let held_out = if self.held_out.is_empty() {
            None
        } else {
            Some(self.evaluate(&self.train_images, &self.data.train.labels, &self.held_out)?)
        };
        for report in [Some(&test), held_out.as_ref()].into_iter().flatten() {
            self.check("evaluation", report.natural_loss)?;
            self.check("attacked evaluation", report.adversarial_loss)?;
        }
        Ok(Measured { test, held_out })
    }

    fn evaluate(&self, images: &B::Resident<'_>, labels: &[u8], indices: &[u32]) -> Result<EvalReport> {
        let attack = Some(&self.config.eval_attack);
        let subset = Subset { images, labels, indices };
        evaluation::evaluate(self.backend, &self.trainer.model, &subset, attack, self.config.seed, &|image_passes| {
            self.observer.advance_unless_stopped(image_passes)
        })
    }

    /// Reads the counts, and stops a run that they or the device say has failed.
    fn read_metrics(&mut self) -> Result<()> {
        self.progress.counts = self.backend.metrics_read(&self.metrics);
        self.backend.status()?;
        self.check("training", self.progress.counts.loss)
    }

    /// Stops a run whose loss is NaN or infinite, before its state replaces the last good one.
    fn check(&self, what: &str, loss: f64) -> Result<()> {
        if loss.is_finite() {
            return Ok(());
        }
        let Progress { epoch, step, .. } = self.progress;
        Err(Error::Diverged(format!(
            "the {what} loss became {loss} in epoch {} by step {step}; the state of epoch {epoch} is kept; lower the \
             learning rate (now {})",
            epoch + 1,
            self.config.optimizer.lr(),
        )))
    }

    /// One step on these training images. Returns the image passes done.
    fn step(&mut self, indices: &[u32]) -> Result<u64> {
        let (backend, config, step) = (self.backend, self.config, self.global_step());
        let _range = nvtx::range(|| format!("step {step}"));
        match nvtx::before_step() {
            nvtx::Recording::Unchanged => {}
            recording => backend.profile(recording == nvtx::Recording::Start),
        }
        let labels: Vec<u8> = indices.iter().map(|&i| self.data.train.labels[i as usize]).collect();
        let labels = backend.labels(&labels);
        let rng = Rng::new(config.seed, Stream::Augment, step as u32);
        let augment = config.augment.then_some(CropFlip { rng, pad: CROP_PAD });
        let clean = backend.gather(&self.train_images, indices, augment.as_ref());
        let rng = Rng::new(config.seed, Stream::TrainAttack, step as u32);
        let start = Start { rng: &rng, first: 0 };
        let attack = config.attack.as_ref().map(|attack| attack.scaled(self.strength(step)));
        let attack = attack.as_ref().map(|attack| (attack, start));
        let lr = self.lr(step);
        let images = Tensor::new(clean, self.trainer.model.input(indices.len()));
        let batch = Batch { images, labels: &labels };
        self.trainer.step(backend, &batch, attack, lr, &mut self.metrics)?;
        let attack_steps = config.attack.as_ref().map_or(0, |attack| attack.steps);
        Ok((indices.len() * (attack_steps + 1)) as u64)
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

    /// Books a completed epoch: ADMM's update, the epoch's row, and the candidates it makes.
    fn complete(&mut self, measured: Option<Measured>) -> Result<()> {
        let epoch = self.progress.epoch + 1;
        let Trainer { model, sparsifier, .. } = &mut self.trainer;
        // The penalty that the epoch was trained with; the update makes it grow.
        let rho = sparsifier.admm().map_or(0.0, Admm::rho);
        for (param, residuals) in sparsifier.after_epoch(self.backend, model, epoch)? {
            self.progress.residuals.push(ResidualRow::new(epoch, param, rho, &residuals));
        }
        self.read_clock();
        let last_step = epoch as u64 * self.steps_per_epoch() - 1;
        let eps = self.config.attack.as_ref().map_or(0.0, |a| f64::from(a.eps) * f64::from(self.strength(last_step)));
        let counts = self.progress.counts;
        let test = measured.as_ref().map(|m| &m.test);
        let held_out = measured.as_ref().and_then(|m| m.held_out.as_ref());
        let row = EpochRow {
            epoch,
            lr: f64::from(self.lr(last_step)),
            eps,
            train_loss: counts.mean_loss(),
            train_accuracy: counts.accuracy(),
            zero_gradient: counts.zero_gradient(),
            test_natural: test.map(|r| r.natural),
            test_adversarial: test.map(|r| r.adversarial),
            test_natural_loss: test.map(|r| r.natural_loss),
            test_adversarial_loss: test.map(|r| r.adversarial_loss),
            held_out_natural: held_out.map(|r| r.natural),
            held_out_adversarial: held_out.map(|r| r.adversarial),
            seconds: self.progress.seconds,
        };
        self.observer.epoch(&row, self.config.epochs);
        self.progress.rows.push(row);
        if let Some(Measured { test, held_out }) = measured {
            for &select in Selection::ALL {
                self.consider(Candidate { select, epoch, test: test.clone(), held_out: held_out.clone() });
            }
        }
        self.progress.epoch = epoch;
        self.progress.step = 0;
        self.progress.counts = Metrics::default();
        self.metrics = self.backend.metrics();
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
            self.kept.push((new.select, self.trainer.model.state(self.backend)));
        }
        match old {
            Some(i) => self.progress.candidates[i] = new,
            None => self.progress.candidates.push(new),
        }
    }
}

/// Reports of the test set and of the images put aside.
struct Measured {
    test: EvalReport,
    held_out: Option<EvalReport>,
}

/// The rank of an epoch under a rule: the accuracy trained for, then the other one. `None` if the rule has no images.
fn score(candidate: &Candidate, natural_training: bool) -> Option<(f64, f64)> {
    let report = match candidate.select {
        Selection::HeldOut => candidate.held_out.as_ref()?,
        Selection::TestBest | Selection::Last => &candidate.test,
    };
    let (natural, adversarial) = (report.natural, report.adversarial);
    Some(if natural_training { (natural, adversarial) } else { (adversarial, natural) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If epochs are as good in what was trained for, the other accuracy decides.
    #[test]
    fn epochs_are_ranked_by_what_was_trained_for_and_then_by_the_other_accuracy() {
        let report = |natural, adversarial| EvalReport {
            images: 10,
            natural,
            adversarial,
            natural_loss: 1.0,
            adversarial_loss: 2.0,
            zero_gradient: 0.0,
            constant_prediction: None,
        };
        let candidate = |select, held_out| Candidate { select, epoch: 1, test: report(90.0, 60.0), held_out };
        let test = candidate(Selection::TestBest, None);
        assert_eq!([false, true].map(|natural| score(&test, natural)), [Some((60.0, 90.0)), Some((90.0, 60.0))]);
        let held_out = candidate(Selection::HeldOut, Some(report(80.0, 50.0)));
        assert_eq!([false, true].map(|natural| score(&held_out, natural)), [Some((50.0, 80.0)), Some((80.0, 50.0))]);
        assert_eq!(score(&candidate(Selection::HeldOut, None), false), None);
    }
}
