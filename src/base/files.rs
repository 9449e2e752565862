//! Small things about files and their hashes.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 8 hex digits of the SHA-256 of a text: enough to keep a few names apart.
pub fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text)[..4])
}

/// SHA-256 of a whole file, in hex.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    Ok(hex(&Sha256::digest(fs::read(path).map_err(Error::io(path, "read"))?)))
}

/// Length of a file in bytes.
///
/// # Errors
/// [`Error::Io`] if there is none.
pub fn length(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(Error::io(path, "read"))?.len())
}

/// Removes a file, unless it is not there.
///
/// # Errors
/// [`Error::Io`] if it is there and cannot be removed.
pub fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path, "remove")(e)),
        _ => Ok(()),
    }
}
