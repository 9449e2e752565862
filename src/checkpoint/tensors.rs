//! Safetensors files of our own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::is_counter;
use crate::base::error::{Error, Result};

/// A named tensor on the host: name, shape, values.
pub type Entry = (String, Vec<usize>, Vec<f32>);

/// Key of the one metadata entry of our files. The format keeps metadata in a hash map, whose order changes from run
/// to run: with a single entry the same state has the same bytes.
const METADATA: &str = "engine";

/// Our metadata, if the file is ours.
pub(super) fn written_by_us(header: &Metadata) -> Option<String> {
    header.metadata().as_ref()?.get(METADATA).cloned()
}

/// The same of integers.
pub type IntegerEntry = (String, Vec<usize>, Vec<i64>);

/// The bytes of a safetensors file with these tensors and `metadata` as JSON.
///
/// # Errors
/// [`Error::Failed`] if two tensors share a name or a shape does not fit its values.
pub fn encode(entries: &[Entry], metadata: &impl Serialize) -> Result<Vec<u8>> {
    encode_with_integers(entries, &[], metadata)
}

/// [`encode`], with tensors of integers too.
///
/// # Errors
/// As [`encode`].
pub fn encode_with_integers(
    entries: &[Entry],
    integers: &[IntegerEntry],
    metadata: &impl Serialize,
) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("cannot encode a checkpoint: {e}"));
    let floats = entries.iter().map(|(name, shape, v)| (name, shape, Dtype::F32, le_bytes(v, f32::to_le_bytes)));
    let integers = integers.iter().map(|(name, shape, v)| (name, shape, Dtype::I64, le_bytes(v, i64::to_le_bytes)));
    let tensors: Vec<_> = floats.chain(integers).collect();
    let mut views = Vec::new();
    for (name, shape, dtype, bytes) in &tensors {
        let view = TensorView::new(*dtype, shape.to_vec(), bytes).map_err(|e| failed(&e))?;
        views.push((name.as_str(), view));
    }
    let metadata = serde_json::to_string(metadata).map_err(|e| failed(&e))?;
    safetensors::serialize(views, Some([(METADATA.to_string(), metadata)].into())).map_err(|e| failed(&e))
}

/// Values one after the other.
pub(super) fn le_bytes<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| bytes(v)).collect()
}

/// A safetensors file of ours, read into memory.
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
    /// [`Error::Input`] if the file is missing, cut short, not written by the engine, or holds anything but f32 and
    /// batch counters, which are left out.
    pub fn read(path: &Path, hint: &'static str) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::input(path, format!("cannot read it: {e}"), hint))?;
        Checkpoint::decode(path, &bytes, hint)
    }

    /// [`Checkpoint::read`] of bytes; `path` is only what errors call them.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn decode(path: &Path, bytes: &[u8], hint: &'static str) -> Result<Self> {
        let damaged =
            |e: &dyn std::fmt::Display| Error::input(path, format!("cut short, or no safetensors file ({e})"), hint);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
        let metadata = written_by_us(&header).ok_or_else(|| Error::input(path, "not written by the engine", hint))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?.tensors() {
            match view.dtype() {
                Dtype::F32 => {}
                Dtype::I64 if is_counter(&name) => continue,
                other => return Err(damaged(&format!("'{name}' is {other:?}, not F32"))),
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(Checkpoint { path: path.to_path_buf(), tensors, metadata, hint })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// An error about the file.
    pub(super) fn error(&self, problem: String) -> Error {
        Error::input(&self.path, problem, self.hint)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// PyTorch counts the batches of a normalisation in whole numbers, which nothing here needs.
    #[test]
    fn whole_numbers_are_counters_and_no_weights() {
        let decoded = |name: &str| {
            let count = TensorView::new(Dtype::I64, vec![1], &[7, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            let metadata = HashMap::from([(METADATA.to_string(), "{}".to_string())]);
            let bytes = safetensors::serialize([(name, count)], Some(metadata)).unwrap();
            Checkpoint::decode(Path::new("file"), &bytes, "hint").map_err(|error| error.to_string())
        };
        assert!(decoded("bn1.num_batches_tracked").is_ok_and(|file| file.tensors.is_empty()));
        let error = decoded("bn1.weight").err().unwrap();
        assert!(error.contains("'bn1.weight' is I64, not F32"), "{error}");
    }
}
