//! Crash-safe files; models and training states in them, and models in the formats of other programs.
//!
//! | file | format |
//! |---|---|
//! | `tensors.rs` | safetensors of our own: names, values, one metadata entry |
//! | `state_dict.rs` | whatever PyTorch saved, taken for one of our networks |
//! | `raw.rs` | a tensor as bytes of any type and order |
//! | `pytorch.rs`, `pickle.rs` | `.pt` files: the zip container, and the pickle in it, of which nothing is ever executed |
//! | `npz.rs`, `onnx.rs` | what is only written |

mod npz;
mod onnx;
mod pickle;
mod pytorch;
mod raw;
mod state_dict;
mod tensors;

pub use npz::encode_npz;
pub use onnx::encode_onnx;
pub use state_dict::{Imported, NetworkHint, import, import_bytes};
pub use tensors::{Checkpoint, Entry, IntegerEntry, encode, encode_with_integers};

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::base::error::{Error, Result};
use crate::nn::models::{Architecture, Model, Network};
use crate::prune::Target;

/// File of a trained or pruned network, in the directory of its stage.
pub const MODEL_FILE: &str = "model.safetensors";

/// File of unfinished work, from which it continues.
pub const STATE_FILE: &str = "state.safetensors";

/// Prefix of the names of files that are being written. One that has it but no writer was left by a killed process.
pub const TEMPORARY: &str = ".tmp-";

/// Writes `bytes` to `path` so that, whatever happens, the file holds either its old or its new content: temporary
/// file in the same directory, fsync, rename, fsync of the directory.
///
/// # Errors
/// [`Error::Io`] naming `path`, on a full disk for example; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    // A rename is atomic only within one file system, so the temporary file must be a neighbour of its target.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Results are ordinary files, readable as the umask allows; the crate's default is a private 0600.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let write = || -> std::io::Result<()> {
        let mut file = builder.tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        // Only now does the new name survive a power cut. Windows cannot open directories.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    };
    write().map_err(Error::io(path, "write"))
}

/// A model file's metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Architecture.
    pub network: Network,
    /// Width multiplier.
    pub width: usize,
    /// Outputs of each layer, where the network was shrunk to others than the width's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<usize>>,
    /// Number of classes.
    pub classes: usize,
    /// The target that it is pruned to: zeros of its weights are masks. `None` for a dense network, and for one that was shrunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Target>,
    /// Epochs it was trained, all stages together.
    pub epochs: usize,
}

impl ModelInfo {
    /// Of a model of `architecture`.
    pub fn new(architecture: &Architecture, pruned: Option<Target>, epochs: usize) -> Self {
        ModelInfo {
            network: architecture.network,
            width: architecture.width,
            outputs: architecture.outputs.clone(),
            classes: architecture.classes,
            pruned,
            epochs,
        }
    }

    /// The target that the model in the file at `path` is pruned to.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not pruned.
    pub fn pruning_target(&self, path: &Path) -> Result<Target> {
        let problem = "is not pruned, so there are no masks";
        self.pruned.ok_or_else(|| Error::input(path, problem, "prune it first with `engine prune`"))
    }

    /// Lays out the network.
    ///
    /// # Errors
    /// As [`Architecture::new`] and [`Architecture::shrunk`].
    pub fn architecture(&self) -> Result<Architecture> {
        match &self.outputs {
            None => Architecture::new(self.network, self.width, self.classes),
            Some(outputs) => Architecture::shrunk(self.network, self.width, outputs.clone(), self.classes),
        }
    }
}

/// The remedy for a file that is no model.
const MODEL_HINT: &str =
    "give the model.safetensors of a finished stage, or make one of PyTorch's file with `engine import`";

/// The bytes of a model's file, with all that `load_state_dict` of PyTorch asks for.
///
/// # Errors
/// As [`encode`].
pub fn encode_model(entries: &[Entry], info: &ModelInfo) -> Result<Vec<u8>> {
    encode_with_integers(entries, &batch_counters(entries), info)
}

/// Writes a model.
///
/// # Errors
/// As [`encode_model`] and [`write_atomic`].
pub fn save_model(path: &Path, entries: &[Entry], info: &ModelInfo) -> Result<()> {
    write_atomic(path, &encode_model(entries, info)?)
}

/// Name of the batch counter that PyTorch keeps beside the running statistics. Nothing here depends on it, but
/// `load_state_dict` misses it.
const COUNTER: &str = "num_batches_tracked";

/// The batch counters that belong to these entries, at zero.
pub(super) fn batch_counters(entries: &[Entry]) -> Vec<IntegerEntry> {
    let norms = entries.iter().filter_map(|(name, _, _)| name.strip_suffix("running_mean"));
    norms.map(|norm| (format!("{norm}{COUNTER}"), Vec::new(), vec![0])).collect()
}

/// Whether `name` is that of a batch counter.
fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some(COUNTER)
}

/// The fault of the values of the tensor called `name`, if they are no weights.
fn not_finite(name: &str, values: &[f32]) -> Option<String> {
    let bad = values.iter().find(|v| !v.is_finite())?;
    Some(format!("'{name}' holds {}", if bad.is_nan() { "NaN" } else { "infinity" }))
}

/// The metadata that only a training's state has.
#[derive(Deserialize)]
struct Unfinished {
    #[serde(rename = "updates")]
    _updates: u32,
}

fn model_info(file: &Checkpoint) -> Result<ModelInfo> {
    file.metadata().map_err(|error| match file.metadata::<Unfinished>() {
        Ok(_) => Error::input(
            file.path(),
            "is the state of an unfinished training",
            "finish it first, by the command that began it",
        ),
        Err(_) => error,
    })
}

/// Loads a `model.safetensors`.
///
/// # Errors
/// [`Error::Input`] if the file is missing or damaged, its tensors are not those of the network it names, or one of them
/// holds NaN or infinity.
pub fn load_model<B: Backend>(backend: &B, path: &Path) -> Result<(Model<B>, ModelInfo)> {
    model_of(backend, &Checkpoint::read(path, MODEL_HINT)?)
}

/// [`load_model`] of bytes; `path` is only what errors call them.
///
/// # Errors
/// As [`load_model`].
pub fn decode_model<B: Backend>(backend: &B, path: &Path, bytes: &[u8]) -> Result<(Model<B>, ModelInfo)> {
    model_of(backend, &Checkpoint::decode(path, bytes, MODEL_HINT)?)
}

fn model_of<B: Backend>(backend: &B, file: &Checkpoint) -> Result<(Model<B>, ModelInfo)> {
    let info = model_info(file)?;
    let architecture = info.architecture().map_err(|e| file.error(e.to_string()))?;
    let weights = |name: &str, shape: &[usize]| {
        let values = file.tensor(name, shape)?;
        not_finite(name, &values).map_or(Ok(values), |problem| Err(file.error(problem)))
    };
    // From the file, not zeros first: a file cannot ask for more memory than it is long.
    let params = architecture.params.iter().map(|p| weights(&p.name, &p.shape)).collect::<Result<Vec<_>>>()?;
    let mut model = Model::new(backend, Arc::new(architecture), &params)?;
    model.load_state(backend, weights)?;
    Ok((model, info))
}
