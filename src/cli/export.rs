//! `engine export`: a trained network as a file of its own.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output;
use crate::backend::cpu::Cpu;
use crate::checkpoint::{ModelInfo, load_model, save_model};
use crate::error::{Error, Result};
use crate::models::Architecture;
use crate::prune::shrink;

#[derive(Args)]
pub struct ExportArgs {
    /// The model.safetensors of a finished stage
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// File to write: safetensors, under PyTorch's names
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Remove the channels that pruning has emptied; the logits stay the same but for rounding
    #[arg(long)]
    shrink: bool,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

pub fn run(args: &ExportArgs) -> Result<()> {
    args.check_out()?;
    let backend = Cpu::<f32>::new(1)?;
    let (model, info) = load_model(&backend, &args.model)?;
    if !args.shrink {
        save_model(&args.out, &model.state(&backend), &info)?;
        return output::print(&format!("written to {}", args.out.display()));
    }
    // Before writing: with --force it may be the same file.
    let bytes_before = bytes(&args.model)?;
    let before = model.architecture();
    let shrunk = shrink(&backend, &model)?;
    let after = shrunk.model.architecture();
    // Only a network that now has a width has none of the zeros left that were its masks.
    let exact = after.outputs.is_none() && after.width < before.width;
    let info = ModelInfo::new(after, info.pruned.filter(|_| !exact), info.epochs);
    save_model(&args.out, &shrunk.model.state(&backend), &info)?;
    output::print(&sizes(before, after))?;
    output::print(&format!("bytes       {bytes_before} -> {}", bytes(&args.out)?))?;
    for line in &shrunk.stays {
        output::print(&format!("stays       {line}"))?;
    }
    if after.parameters() == before.parameters() {
        output::print("nothing could be removed: no channel is without a weight that writes it")?;
    }
    output::print(&format!("written to {}", args.out.display()))
}

impl ExportArgs {
    /// # Errors
    /// [`Error::Input`] if the file must not or cannot be written.
    fn check_out(&self) -> Result<()> {
        let input = |path: &Path, problem: &str, hint: &str| Err(Error::input(path, problem, hint));
        let parent = self.out.parent().filter(|dir| !dir.as_os_str().is_empty());
        match parent {
            Some(dir) if !dir.is_dir() => input(dir, "no such directory", "create it, or choose another --out"),
            _ if self.out.is_dir() => input(&self.out, "is a directory", "give the name of a file in it with --out"),
            _ if self.out.exists() && !self.force => {
                input(&self.out, "exists already", "add --force to replace it, or choose another --out")
            }
            _ => Ok(()),
        }
    }
}

/// Width, channels and parameters, before and after.
fn sizes(before: &Architecture, after: &Architecture) -> String {
    let width = |a: &Architecture| if a.outputs.is_none() { a.width.to_string() } else { "none".to_string() };
    format!(
        "network     {}\nwidth       {} -> {}\nchannels    {} -> {}\nparameters  {} -> {}",
        before.network,
        width(before),
        width(after),
        channels(before),
        channels(after),
        before.parameters(),
        after.parameters()
    )
}

/// Outputs of all layers but the classifier.
fn channels(architecture: &Architecture) -> usize {
    let outputs = architecture.layers.iter().map(|layer| architecture.params[layer.weight].shape[0]);
    outputs.sum::<usize>() - architecture.classes
}

fn bytes(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(Error::io(path, "read"))?.len())
}
