//! The sample of each data set that is embedded in the binary, so that a smoke run needs no download.
//!
//! The files are those of the published layout, each cut to the first few images of every class; `sample/README.md`
//! says how they were made, where they come from and under which licences.

use std::path::{Path, PathBuf};

use super::DatasetName;
use super::official::OfficialFile;
use super::source::Source;
use crate::base::error::{Error, Result};

/// The embedded files of one folder: uncompressed name, gzip content.
macro_rules! embedded {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!("sample/", $folder, "/", $name, ".gz")))),+]
    };
}

fn files(name: DatasetName) -> &'static [(&'static str, &'static [u8])] {
    match name {
        DatasetName::Mnist => embedded!("mnist":
            "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        DatasetName::FashionMnist => embedded!("fashion-mnist":
            "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        DatasetName::Cifar10 => embedded!("cifar-10-batches-bin":
            "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin",
            "test_batch.bin"),
    }
}

/// The embedded version of one file.
pub(super) fn source(name: DatasetName, file: &OfficialFile) -> Result<Source> {
    let path = Path::new("embedded sample").join(file.name);
    let missing = || Error::input(&path, "not in this binary", "build the engine again");
    let (_, bytes) = files(name).iter().find(|(embedded, _)| *embedded == file.name).ok_or_else(missing)?;
    Source::from_bytes(&path, bytes)
}

/// Writes the sample as files of the published layout, uncompressed, into the set's folder below `root`; returns
/// that folder. [`super::Dataset::load`] reads them back as `custom` data.
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be written, [`Error::Input`] if there is one already: real data are not replaced.
pub fn write(name: DatasetName, root: &Path) -> Result<PathBuf> {
    let dir = root.join(name.official().folder);
    std::fs::create_dir_all(&dir).map_err(Error::io(&dir, "create directory"))?;
    for file in name.official().files {
        let path = dir.join(file.name);
        let mut content = source(name, file)?;
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
