//! `engine import`: a model of a file that another program has saved.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::console;
use super::out_file_args::OutFileArgs;
use crate::backend::cpu::Cpu;
use crate::base::error::{Error, Result};
use crate::checkpoint::{Imported, ModelInfo, NetworkHint, import, save_model};
use crate::nn::models::{Architecture, Model, Network};
use crate::nn::params::{LayerSpec, Role};
use crate::prune::{Scheme, SparsityReport, Target};

#[derive(Args)]
pub struct ImportArgs {
    /// A state dict of PyTorch: safetensors, or .pt/.pth as torch.save writes them (of which nothing is executed)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Network [default: told by the names and shapes]
    #[arg(long)]
    network: Option<Network>,
    /// Width multiplier [default: told by the shapes]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    width: Option<usize>,
    /// Epochs it was trained, which the file does not say; 0 if its weights are only initialised
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    epochs: usize,
    /// It was pruned: its zeros are masks, which later training keeps
    #[arg(long)]
    masked: bool,
    #[command(flatten)]
    out: OutFileArgs,
}

pub fn run(args: &ImportArgs) -> Result<()> {
    args.out.check()?;
    let Imported { architecture, entries, notes } =
        import(&args.file, NetworkHint { network: args.network, width: args.width })?;
    let architecture = Arc::new(architecture);
    let values: Vec<Vec<f32>> =
        entries[..architecture.params.len()].iter().map(|(_, _, values)| values.clone()).collect();
    let backend = Cpu::<f32>::new(1)?;
    let report = SparsityReport::of(&backend, &Model::new(&backend, architecture.clone(), &values)?);
    let pruned = if args.masked { Some(args.target(&architecture, &report)?) } else { None };
    save_model(&args.out.path, &entries, &ModelInfo::new(&architecture, pruned, args.epochs))?;

    console::print(&format!("network     {}", architecture.network))?;
    console::print(&match &architecture.outputs {
        None => format!("width       {}", architecture.width),
        Some(outputs) => format!("width       none, outputs {outputs:?}"),
    })?;
    console::print(&format!("classes     {}", architecture.classes))?;
    console::print(&format!("parameters  {}, of which {} are not zero", report.parameters, report.parameters_kept))?;
    for note in notes {
        console::print(&note)?;
    }
    args.out.written()
}

impl ImportArgs {
    /// The target that a network with these zeros was pruned to.
    ///
    /// # Errors
    /// [`Error::Input`] if no weight is zero.
    fn target(&self, architecture: &Architecture, report: &SparsityReport) -> Result<Target> {
        let is_linear = |layer: &LayerSpec| architecture.params[layer.weight].role == Role::LinearWeight;
        let mut layers: Vec<_> = architecture.layers.iter().map(is_linear).zip(&report.layers).collect();
        // The classifier is never pruned.
        layers.pop();
        let linear = layers.iter().any(|(linear, layer)| *linear && layer.weights_kept < layer.weights);
        let prunable = layers.iter().filter(|(is_linear, _)| linear || !is_linear);
        let (all, kept) = prunable.fold((0, 0), |(all, kept), (_, l)| (all + l.weights, kept + l.weights_kept));
        if kept == all {
            return Err(Error::input(&self.file, "has no weight that is zero, so there are no masks", "drop --masked"));
        }
        Ok(Target { scheme: Scheme::Irregular, ratio: 1.0 - kept as f64 / all as f64, linear })
    }
}
