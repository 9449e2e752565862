//! Crash-safe files.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `bytes` to `path` so that, whatever happens, the file holds either its old or its new content: temporary
/// file in the same directory, fsync, rename, fsync of the directory.
///
/// # Errors
/// [`Error::Io`] naming `path`, on a full disk for example; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    // A rename is atomic only within one file system, so the temporary file must be a neighbour of its target.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
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
