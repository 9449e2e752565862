//! Flags that choose a trained network and the images to try it on, for the verbs that measure.

use std::path::PathBuf;

use clap::Args;

use super::attack_args::AttackArgs;
use super::dataset::DatasetArgs;
use super::device::{Device, DeviceArgs};
use super::passes::Passes;
use crate::attack::PgdConfig;
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::checkpoint::load_model;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::{self, EvalReport, Example, Subset, evaluate, examples};
use crate::pipeline::{Task, on_backend};
use crate::train::validate_attack;

#[derive(Args)]
pub struct SubjectArgs {
    /// The model.safetensors of a finished stage
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    #[command(flatten)]
    images: DatasetArgs,
    /// Key of the attack's random starts
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    attack: AttackArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// No progress
    #[arg(long)]
    quiet: bool,
}

/// A network, test images, what to attack them with, and what computes.
pub struct Subject {
    pub data: Dataset,
    pub attack: Option<PgdConfig>,
    device: Device,
    model: PathBuf,
    seed: u64,
    quiet: bool,
}

impl SubjectArgs {
    /// Reads model and data.
    ///
    /// # Errors
    /// [`Error::Usage`] and [`Error::Input`] for what cannot be measured: an attack out of range, damaged files, images of
    /// another size than the network's, an attack on a network that was never trained.
    pub fn load(&self) -> Result<Subject> {
        let device = self.device.resolve()?;
        let attack = self.attack.resolve(self.images.name);
        if let Some(attack) = &attack {
            validate_attack("attack", attack)?;
        }
        let data = self.images.load()?;
        let (model, info) = load_model(&Cpu::<f32>::new(1)?, &self.model)?;
        model.architecture().check_data(data.shape, data.classes)?;
        if attack.is_some() && info.epochs == 0 {
            let hint = "attacking it says nothing; train it first";
            return Err(Error::input(&self.model, "was never trained", hint));
        }
        Ok(Subject { data, attack, device, model: self.model.clone(), seed: self.seed, quiet: self.quiet })
    }
}

impl Subject {
    /// Measures on the first `n` test images, at most as many as there are, and shows the progress. With `keep` and an
    /// attack it also returns the images.
    ///
    /// # Errors
    /// As [`load_model`] and [`evaluate`]; what keeps the device from starting.
    pub fn measure(&self, n: usize, keep: bool) -> Result<(EvalReport, Vec<Example>)> {
        let Device { backend, precision, threads, .. } = self.device;
        on_backend(backend, precision, threads, Measurement { subject: self, n, keep })
    }
}

/// [`Subject::measure`], on whatever backend.
struct Measurement<'a> {
    subject: &'a Subject,
    n: usize,
    keep: bool,
}

impl Task for Measurement<'_> {
    type Output = (EvalReport, Vec<Example>);

    fn run<B: Backend>(self, backend: &B) -> Result<Self::Output> {
        let Subject { data, attack, model, seed, quiet, .. } = self.subject;
        let (model, _) = load_model(backend, model)?;
        let indices: Vec<u32> = (0..self.n.min(data.test.len()) as u32).collect();
        let images = backend.resident(data.shape, &data.test.images);
        let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
        let progress = Passes::new(eval::passes(indices.len(), attack.as_ref()), *quiet);
        let tick = |passes| {
            progress.add(passes);
            Ok(())
        };
        let measured = backend.scope(|| match attack {
            Some(attack) if self.keep => examples(backend, &model, &subset, attack, *seed, &tick),
            _ => Ok((evaluate(backend, &model, &subset, attack.as_ref(), *seed, &tick)?, Vec::new())),
        });
        progress.finish();
        measured
    }
}
