//! Flags that choose a trained network and the images to try it on, for the verbs that measure.

use std::path::PathBuf;

use clap::Args;

use super::attack_args::AttackArgs;
use super::dataset::DatasetArgs;
use super::device::DeviceArgs;
use super::passes::Passes;
use crate::attack::PgdConfig;
use crate::backend::cpu::Cpu;
use crate::backend::{Images, Memory};
use crate::checkpoint::load_model;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::{self, Subset};
use crate::models::Model;
use crate::train::validate_attack;

#[derive(Args)]
pub struct SubjectArgs {
    /// The model.safetensors of a finished stage
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    #[command(flatten)]
    data: DatasetArgs,
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

/// A network, test images, and how to attack it on them.
pub struct Subject {
    pub data: Dataset,
    pub attack: Option<PgdConfig>,
    backend: Cpu<f32>,
    model: Model<Cpu<f32>>,
    seed: u64,
    quiet: bool,
}

/// Told of image passes.
type Tick<'a> = &'a (dyn Fn(u64) -> Result<()> + Sync);

impl SubjectArgs {
    /// Reads model and data.
    ///
    /// # Errors
    /// [`Error::Usage`] and [`Error::Input`] for what cannot be measured: an attack out of range, damaged files, images of
    /// another size than the network's, an attack on a network that was never trained.
    pub fn load(&self) -> Result<Subject> {
        let device = self.device.resolve()?;
        let attack = self.attack.resolve(self.data.name);
        if let Some(attack) = &attack {
            validate_attack("attack", attack)?;
        }
        let data = self.data.load()?;
        let backend = Cpu::<f32>::new(device.threads)?;
        let (model, info) = load_model(&backend, &self.model)?;
        model.architecture().check_data(data.shape, data.classes)?;
        if attack.is_some() && info.epochs == 0 {
            let hint = "attacking it says nothing; train it first";
            return Err(Error::input(&self.model, "was never trained", hint));
        }
        Ok(Subject { data, attack, backend, model, seed: self.seed, quiet: self.quiet })
    }
}

impl Subject {
    /// Runs `measure` on the first `n` test images, at most as many as there are, and shows the progress of the
    /// evaluation it does.
    ///
    /// # Errors
    /// Those of `measure`.
    pub fn on_first<T: Send>(
        &self,
        n: usize,
        measure: impl FnOnce(&Cpu<f32>, &Model<Cpu<f32>>, &Subset<'_, '_, Cpu<f32>>, u64, Tick<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        let test = &self.data.test;
        let indices: Vec<u32> = (0..n.min(test.len()) as u32).collect();
        let images = self.backend.resident(self.data.shape, &test.images);
        let subset = Subset { images: &images, labels: &test.labels, indices: &indices };
        let progress = Passes::new(eval::passes(indices.len(), self.attack.as_ref()), self.quiet);
        let tick = |passes| {
            progress.add(passes);
            Ok(())
        };
        let measured = self.backend.scope(|| measure(&self.backend, &self.model, &subset, self.seed, &tick));
        progress.finish();
        measured
    }
}
