//! Crash-safe files, and models and training states in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::models::{Architecture, Model, Network};
use crate::prune::Target;

/// Start of the names of files that are being written; what has such a name without a writer is of a killed process.
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

/// A named tensor on the host: name, shape, values.
pub type Entry = (String, Vec<usize>, Vec<f32>);

/// Key of the one metadata entry of our files. The format keeps metadata in a hash map, whose order changes from run
/// to run: with a single entry the same state has the same bytes.
const METADATA: &str = "engine";

/// The bytes of a safetensors file with these tensors and `metadata` as JSON.
///
/// # Errors
/// [`Error::Failed`] if two tensors share a name or a shape does not fit its values.
pub fn encode(entries: &[Entry], metadata: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("cannot encode a checkpoint: {e}"));
    let bytes: Vec<Vec<u8>> =
        entries.iter().map(|(_, _, v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::new();
    for ((name, shape, _), bytes) in entries.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|e| failed(&e))?;
        views.push((name.as_str(), view));
    }
    let metadata = serde_json::to_string(metadata).map_err(|e| failed(&e))?;
    safetensors::serialize(views, Some([(METADATA.to_string(), metadata)].into())).map_err(|e| failed(&e))
}

/// A safetensors file read into memory.
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: String,
    hint: &'static str,
}

impl Checkpoint {
    /// Reads `path`; `hint` is what a user can do if it is damaged.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is missing, cut short, not written by the engine, or holds anything but f32.
    pub fn read(path: &Path, hint: &'static str) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::input(path, format!("cannot read it: {e}"), hint))?;
        let damaged =
            |e: &dyn std::fmt::Display| Error::input(path, format!("cut short, or no safetensors file ({e})"), hint);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
        let metadata = header.metadata().as_ref().and_then(|m| m.get(METADATA)).cloned();
        let metadata = metadata.ok_or_else(|| Error::input(path, "not written by the engine", hint))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(&format!("'{name}' is {:?}, not F32", view.dtype())));
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(Checkpoint { path: path.to_path_buf(), tensors, metadata, hint })
    }

    /// The metadata.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not a `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.metadata).map_err(|e| self.error(format!("its metadata is of another kind ({e})")))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none, or it has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.tensors.get(name) {
            None => Err(self.error(format!("has no tensor '{name}'"))),
            Some((found, _)) if found != shape => {
                Err(self.error(format!("'{name}' has shape {found:?}, expected {shape:?}")))
            }
            Some((_, values)) => Ok(values.clone()),
        }
    }

    /// All tensors whose name begins with `prefix`, without it.
    pub fn with_prefix(&self, prefix: &str) -> Vec<Entry> {
        let named = self.tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?, t)));
        named.map(|(name, (shape, values))| (name.to_string(), shape.clone(), values.clone())).collect()
    }

    fn error(&self, problem: String) -> Error {
        Error::input(&self.path, problem, self.hint)
    }
}

/// What a model file says of its network.
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
    /// What it is pruned to: zeros of its weights are masks. `None` for a dense network, and for one that was shrunk.
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

/// What a user can do about a file that is no model.
const MODEL_HINT: &str = "give the model.safetensors of a finished stage";

/// Writes a model.
///
/// # Errors
/// As [`encode`] and [`write_atomic`].
pub fn save_model(path: &Path, entries: &[Entry], info: &ModelInfo) -> Result<()> {
    write_atomic(path, &encode(entries, info)?)
}

/// What a training's state has in its metadata, and a model has not.
#[derive(Deserialize)]
struct Unfinished {
    #[serde(rename = "updates")]
    _updates: u32,
}

fn model_info(file: &Checkpoint) -> Result<ModelInfo> {
    file.metadata().map_err(|error| match file.metadata::<Unfinished>() {
        Ok(_) => Error::input(
            &file.path,
            "is the state of an unfinished training",
            "finish it first, by the command that began it",
        ),
        Err(_) => error,
    })
}

/// Loads a `model.safetensors`.
///
/// # Errors
/// [`Error::Input`] if the file is missing or damaged, or its tensors are not those of the network it names.
pub fn load_model<B: Backend>(backend: &B, path: &Path) -> Result<(Model<B>, ModelInfo)> {
    let file = Checkpoint::read(path, MODEL_HINT)?;
    let info = model_info(&file)?;
    let architecture = info.architecture().map_err(|e| file.error(e.to_string()))?;
    // From the file, not zeros first: a file cannot ask for more memory than it is long.
    let params = architecture.params.iter().map(|p| file.tensor(&p.name, &p.shape)).collect::<Result<Vec<_>>>()?;
    let mut model = Model::new(backend, Arc::new(architecture), &params)?;
    model.load_state(backend, |name, shape| file.tensor(name, shape))?;
    Ok((model, info))
}
