//! `engine eval`: accuracy of a trained network on clean and on attacked images; its logits, and what it costs.

use std::path::{Path, PathBuf};

use clap::Args;

use super::attack_args::AttackArgs;
use super::console;
use super::cost::print_costs;
use super::eval_target::{EvalTarget, EvalTargetArgs};
use super::out_file_args::check_place;
use crate::attack::PgdConfig;
use crate::attack::evaluation::{EvalReport, Subset, logits};
use crate::backend::Backend;
use crate::base::error::Result;
use crate::checkpoint::{encode_with_integers, load_model, write_atomic};
use crate::experiments::pipeline::on_backend;
use crate::train::validate_attack;

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    target: EvalTargetArgs,
    #[command(flatten)]
    attack: AttackArgs,
    /// Also write the test images' `logits` and `labels`, in the data set's order, as safetensors; replaces the file
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Also print parameters, multiply-adds, bytes, latency and throughput, as it is stored and shrunk
    #[arg(long)]
    report: bool,
}

pub fn run(args: &EvalArgs) -> Result<()> {
    let attack = args.attack.resolve(args.target.data_set());
    if let Some(attack) = &attack {
        validate_attack("attack", attack)?;
    }
    if let Some(path) = &args.logits {
        check_place(path, "--logits")?;
    }
    let target = args.target.load()?;
    if attack.is_some() {
        target.check_trained()?;
    }
    on_backend!(&target.device.start()?, |backend| args.measure(backend, &target, attack.as_ref()))
}

impl EvalArgs {
    /// Measures, prints and writes what was asked for.
    fn measure<B: Backend>(&self, backend: &B, target: &EvalTarget, attack: Option<&PgdConfig>) -> Result<()> {
        let report = target.measure(backend, attack)?;
        print_report(&report, &target.data.origin, attack.is_some())?;
        if let Some(path) = &self.logits {
            write_logits(backend, target, path)?;
            console::print(&format!("logits        {}", path.display()))?;
        }
        if self.report { print_costs(backend, target) } else { Ok(()) }
    }
}

/// Writes logits and labels of the clean test images.
fn write_logits<B: Backend>(backend: &B, target: &EvalTarget, path: &Path) -> Result<()> {
    let (model, _) = load_model(backend, &target.model)?;
    let data = &target.data;
    let indices: Vec<u32> = (0..data.test.len() as u32).collect();
    let images = backend.resident(data.shape, &data.test.images);
    let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
    let logits = backend.scope(|| logits(backend, &model, &subset))?;
    let labels: Vec<i64> = data.test.labels.iter().map(|&label| label.into()).collect();
    let logits = ("logits".to_string(), vec![labels.len(), logits.len() / labels.len().max(1)], logits);
    let labels = ("labels".to_string(), vec![labels.len()], labels);
    write_atomic(path, &encode_with_integers(&[logits], &[labels], &data.id)?)
}

/// Prints what was measured on images from `origin`.
fn print_report(report: &EvalReport, origin: &str, attacked: bool) -> Result<()> {
    console::print(&format!("images        {} from {origin}", report.images))?;
    console::print(&format!("natural       {:.2}", report.natural))?;
    if attacked {
        console::print(&format!("adversarial   {:.2}", report.adversarial))?;
        console::print(&format!("zero gradient {:.2} % of the pixels", 100.0 * report.zero_gradient))?;
    }
    match report.constant_prediction {
        Some(class) => console::print(&format!("collapsed: class {class} for every image")),
        None => Ok(()),
    }
}
