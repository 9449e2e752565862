//! `engine eval`: accuracy of a trained network on clean and on attacked images.

use std::path::PathBuf;

use clap::Args;

use super::attack_args::AttackArgs;
use super::device::DeviceArgs;
use super::output;
use crate::backend::cpu::Cpu;
use crate::backend::{Images, Memory};
use crate::data::{Dataset, DatasetName};
use crate::error::Result;
use crate::eval::Subset;
use crate::train::validate_attack;
use crate::{checkpoint, eval};

#[derive(Args)]
pub struct EvalArgs {
    /// The model.safetensors of a finished stage
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// mnist, fashion-mnist or cifar10
    #[arg(long, value_name = "NAME", default_value_t = DatasetName::Mnist)]
    data_set: DatasetName,
    /// Directory with the data sets
    #[arg(long, value_name = "DIR", conflicts_with = "sample")]
    data: Option<PathBuf>,
    /// Measure on the embedded sample
    #[arg(long)]
    sample: bool,
    /// Key of the attack's random starts
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    attack: AttackArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &EvalArgs) -> Result<()> {
    let device = args.device.resolve()?;
    let attack = args.attack.resolve(args.data_set);
    if let Some(attack) = &attack {
        validate_attack("attack", attack)?;
    }
    let data =
        if args.sample { Dataset::sample(args.data_set) } else { Dataset::load(args.data_set, args.data.as_deref()) }?;
    let backend = Cpu::<f32>::new(device.threads)?;
    let (model, _) = checkpoint::load_model(&backend, &args.model)?;
    model.architecture().check_data(data.shape, data.classes)?;
    let indices: Vec<u32> = (0..data.test.len() as u32).collect();
    let images = backend.resident(data.shape, &data.test.images);
    let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
    let report =
        backend.scope(|| eval::evaluate(&backend, &model, &subset, attack.as_ref(), args.seed, &|_| Ok(())))?;
    output::print(&format!("images        {} from {}", report.images, data.origin))?;
    output::print(&format!("natural       {:.2}", report.natural))?;
    if attack.is_some() {
        output::print(&format!("adversarial   {:.2}", report.adversarial))?;
        output::print(&format!("zero gradient {:.2} % of the pixels", 100.0 * report.zero_gradient))?;
    }
    match report.constant_prediction {
        Some(class) => output::print(&format!("collapsed: class {class} for every image")),
        None => Ok(()),
    }
}
