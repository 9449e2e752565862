//! Flags that choose a trained network and the images to try it on, for the verbs that measure.

use std::path::{Path, PathBuf};

use clap::Args;

use super::dataset_args::DatasetArgs;
use super::device_args::{Device, DeviceArgs};
use super::eval_progress::EvalProgress;
use crate::attack::PgdConfig;
use crate::attack::evaluation;
use crate::attack::evaluation::{EvalReport, Subset, evaluate};
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::base::error::{Error, Result};
use crate::checkpoint::{ModelInfo, load_model};
use crate::data::{Dataset, DatasetName};

#[derive(Args)]
pub struct EvalTargetArgs {
    /// The model.safetensors of a finished stage, or of `engine import`
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    #[command(flatten)]
    images: DatasetArgs,
    /// Key of the attacks' random numbers
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
    /// No progress
    #[arg(long)]
    quiet: bool,
}

/// A network, test images, and what computes.
pub struct EvalTarget {
    pub data: Dataset,
    pub device: Device,
    pub model: PathBuf,
    pub seed: u64,
    pub quiet: bool,
    /// Epochs that the network was trained.
    epochs: usize,
}

impl EvalTargetArgs {
    /// Name of the data set.
    pub fn data_set(&self) -> DatasetName {
        self.images.name
    }

    /// Reads model and data.
    ///
    /// # Errors
    /// [`Error::Usage`] and [`Error::Input`] for what cannot be measured: damaged files, images of another size than the
    /// network's.
    pub fn load(&self) -> Result<EvalTarget> {
        let device = self.device.resolve()?;
        // First, because data may have to be downloaded.
        let info = check_model(&self.model, self.images.name)?;
        let data = self.images.load()?;
        let Self { model, seed, quiet, .. } = self;
        Ok(EvalTarget { data, device, model: model.clone(), seed: *seed, quiet: *quiet, epochs: info.epochs })
    }
}

/// Checks that a file is a model for images of `data`.
///
/// # Errors
/// As [`load_model`] and [`crate::nn::models::Architecture::check_data`].
pub fn check_model(path: &Path, data: DatasetName) -> Result<ModelInfo> {
    let (model, info) = load_model(&Cpu::<f32>::new(1)?, path)?;
    model.architecture().check_data(data.info().shape, data.info().classes())?;
    Ok(info)
}

impl EvalTarget {
    /// Checks that there is something to attack.
    ///
    /// # Errors
    /// [`Error::Input`] for a network that was never trained.
    pub fn check_trained(&self) -> Result<()> {
        if self.epochs == 0 {
            let hint = "attacking it says nothing; train it first";
            return Err(Error::input(&self.model, "was never trained", hint));
        }
        Ok(())
    }

    /// Measures on the test images, and shows the progress.
    ///
    /// # Errors
    /// As [`load_model`] and [`evaluate`].
    pub fn measure<B: Backend>(&self, backend: &B, attack: Option<&PgdConfig>) -> Result<EvalReport> {
        let EvalTarget { data, model, seed, quiet, .. } = self;
        let (model, _) = load_model(backend, model)?;
        let indices: Vec<u32> = (0..data.test.len() as u32).collect();
        let images = backend.resident(data.shape, &data.test.images);
        let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
        let progress = EvalProgress::new(evaluation::image_passes(indices.len(), attack), *quiet);
        let advance = |image_passes| {
            progress.add(image_passes);
            Ok(())
        };
        let measured = backend.scope(|| evaluate(backend, &model, &subset, attack, *seed, &advance));
        progress.finish();
        measured
    }
}
