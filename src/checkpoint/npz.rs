//! NumPy's `.npz`: a zip archive with an `.npy` file per array.
//!
//! Source: NumPy's `numpy/lib/_format_impl.py`, format 1.0.

use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::batch_counters;
use super::tensors::{Entry, le_bytes};
use crate::base::error::{Error, Result};

/// The bytes of an archive with these tensors, and the batch counters that PyTorch has beside them.
///
/// # Errors
/// [`Error::Failed`] if two tensors share a name.
pub fn encode_npz(entries: &[Entry]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("cannot encode an archive: {e}"));
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut write = |name: &str, npy: Vec<u8>| -> Result<()> {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).map_err(|e| failed(&e))?;
        zip.write_all(&npy).map_err(|e| failed(&e))
    };
    for (name, shape, values) in entries {
        write(name, npy("<f4", shape, le_bytes(values, f32::to_le_bytes)))?;
    }
    for (name, shape, values) in batch_counters(entries) {
        write(&name, npy("<i8", &shape, le_bytes(&values, i64::to_le_bytes)))?;
    }
    Ok(zip.finish().map_err(|e| failed(&e))?.into_inner())
}

/// An array: magic and version, length of the header, the header padded with spaces so that the values begin at a
/// multiple of 64 bytes, the values.
fn npy(dtype: &str, shape: &[usize], values: Vec<u8>) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((len as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = len - 1).bytes());
    bytes.extend(values);
    bytes
}
