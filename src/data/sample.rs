//! The sample of each data set that is embedded in the binary, so that a smoke run needs no download.
//!
//! The files are those of the published layout, each cut to the first few images of every class; `sample/README.md`
//! says how they were made, where they come from and under which licences.

use std::path::{Path, PathBuf};

use super::DatasetName;
use super::info::OfficialFile;
use super::source::Source;
use crate::base::error::{Error, Result};

/// The embedded version of one file.
pub(super) fn source(file: &OfficialFile) -> Result<Source> {
    Source::from_bytes(&Path::new("embedded sample").join(file.name), file.sample_gz)
}

/// Writes the sample as files of the published layout, uncompressed, into the set's folder below `root`; returns
/// that folder. [`super::Dataset::load`] reads them back as `custom` data.
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be written, [`Error::Input`] if there is one already: real data are not replaced.
pub fn write(name: DatasetName, root: &Path) -> Result<PathBuf> {
    let dir = root.join(name.info().folder);
    std::fs::create_dir_all(&dir).map_err(Error::io(&dir, "create directory"))?;
    for file in name.info().files {
        let path = dir.join(file.name);
        let mut content = source(file)?;
        let bytes = content.read_rest(file.bytes())?;
        let mut out = std::fs::File::create_new(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::input(&path, "exists already", "choose an empty directory with --out")
            }
            _ => Error::io(&path, "create")(e),
        })?;
        std::io::Write::write_all(&mut out, &bytes).map_err(Error::io(&path, "write"))?;
    }
    Ok(dir)
}
