//! `engine export`: a trained network as a file of its own.

use std::path::PathBuf;

use clap::Args;

use super::console;
use super::out_file_args::OutFileArgs;
use crate::backend::cpu::Cpu;
use crate::base::error::Result;
use crate::base::files::length;
use crate::base::named_enum::named_enum;
use crate::checkpoint::{ModelInfo, encode_npz, encode_onnx, load_model, save_model, write_atomic};
use crate::nn::models::{Architecture, Model};
use crate::prune::shrink;

named_enum! {
    /// Kinds of files.
    pub enum Format: "format" {
        /// The format of this program's models, which PyTorch loads too.
        Safetensors = "safetensors",
        /// The network itself, for batches of any size.
        Onnx = "onnx",
        /// An .npz archive of arrays.
        Numpy = "numpy",
    }
}

#[derive(Args)]
pub struct ExportArgs {
    /// The model.safetensors of a finished stage, or of `engine import`
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Format of the file; names are PyTorch's in all of them
    #[arg(long, default_value_t = Format::Safetensors)]
    format: Format,
    #[command(flatten)]
    out: OutFileArgs,
    /// Remove the channels that pruning has emptied; the logits stay the same but for rounding
    #[arg(long)]
    shrink: bool,
}

pub fn run(args: &ExportArgs) -> Result<()> {
    args.out.check()?;
    let backend = Cpu::<f32>::new(1)?;
    let (model, info) = load_model(&backend, &args.model)?;
    if !args.shrink {
        args.write(&backend, &model, &info)?;
        return args.out.written();
    }
    // Before writing: with --force it may be the same file.
    let bytes_before = length(&args.model)?;
    let before = model.architecture();
    let shrunk = shrink(&backend, &model)?;
    let after = shrunk.model.architecture();
    let info = ModelInfo::new(after, shrunk.target(info.pruned), info.epochs);
    args.write(&backend, &shrunk.model, &info)?;
    console::print(&sizes(before, after))?;
    console::print(&format!("bytes       {bytes_before} -> {}", length(&args.out.path)?))?;
    for line in &shrunk.stays {
        console::print(&format!("stays       {line}"))?;
    }
    if after.parameters() == before.parameters() {
        console::print("nothing could be removed: no channel is without a weight that writes it")?;
    }
    args.out.written()
}

impl ExportArgs {
    fn write(&self, backend: &Cpu<f32>, model: &Model<Cpu<f32>>, info: &ModelInfo) -> Result<()> {
        let (path, entries) = (&self.out.path, model.state(backend));
        match self.format {
            Format::Safetensors => save_model(path, &entries, info),
            Format::Onnx => write_atomic(path, &encode_onnx(model.architecture(), &entries)),
            Format::Numpy => write_atomic(path, &encode_npz(&entries)?),
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
