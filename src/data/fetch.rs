//! Downloading the published files of a data set.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use super::DatasetName;
use super::download::{Download, Event, Hashed, Listener, Retries, agent, download, write_atomically};
use super::info::{Archive, OfficialFile};
use super::source::Source;
use crate::base::error::{Error, Result};

/// A download: files, source and destination.
#[derive(Debug)]
pub struct FetchPlan {
    /// Ends in a slash.
    pub base_url: String,
    /// The set's folder in a data directory.
    pub dir: PathBuf,
    /// Each is downloaded as `<name>.gz`, or taken from the archive.
    pub files: Vec<FileSpec>,
    /// Holds all of `files`, if they do not come one by one.
    pub archive: Option<Archive>,
    /// How patient to be.
    pub retries: Retries,
}

/// A file that shall be there in the end.
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// Without `.gz`.
    pub name: String,
    /// Length of the uncompressed content.
    pub bytes: u64,
    /// SHA-256 of the uncompressed content.
    pub sha256: String,
}

impl From<&OfficialFile> for FileSpec {
    fn from(file: &OfficialFile) -> Self {
        FileSpec { name: file.name.into(), bytes: file.bytes(), sha256: file.sha256.into() }
    }
}

impl FetchPlan {
    /// The published files, from `mirror` in place of the usual server if it is given, into the set's folder in
    /// `root`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if `mirror` is no HTTP URL.
    pub fn new(name: DatasetName, root: &Path, mirror: Option<&str>) -> Result<FetchPlan> {
        let info = name.info();
        let base = mirror.unwrap_or(info.base_url);
        if !["http://", "https://"].iter().any(|scheme| base.starts_with(scheme)) {
            return Err(Error::Usage(format!("mirror '{base}': expected a URL that starts with http:// or https://")));
        }
        Ok(FetchPlan {
            base_url: format!("{}/", base.trim_end_matches('/')),
            dir: root.join(info.folder),
            files: info.files.iter().map(FileSpec::from).collect(),
            archive: info.archive,
            retries: Retries::default(),
        })
    }

    /// Downloads what is not there yet. Files that are there are checked and never replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if a file of that name is there with other content, [`Error::Failed`] if the download
    /// fails, [`Error::Io`] if the disk does.
    pub fn run(&self, listen: Listener<'_>) -> Result<()> {
        std::fs::create_dir_all(&self.dir).map_err(Error::io(&self.dir, "create directory"))?;
        let mut missing = Vec::new();
        for file in &self.files {
            match self.present(file)? {
                Some(path) => listen(Event::Present { file: &path }),
                None => missing.push(file),
            }
        }
        match &self.archive {
            _ if missing.is_empty() => Ok(()),
            Some(archive) => self.run_archive(archive, &missing, listen),
            None => missing.into_iter().try_for_each(|file| self.run_file(file, listen)),
        }
    }

    /// The file's path, if it is there; an error if it is there and not what it should be.
    fn present(&self, file: &FileSpec) -> Result<Option<PathBuf>> {
        let paths = [self.dir.join(&file.name), self.dir.join(format!("{}.gz", file.name))];
        let Some(path) = paths.into_iter().find(|path| path.exists()) else { return Ok(None) };
        let hint = "move it away or choose another directory with --data";
        match Source::open(&path)?.sha256(file.bytes) {
            Ok(found) if found == file.sha256 => Ok(Some(path)),
            Ok(_) => Err(Error::input(path, "is there, but not the published content", hint)),
            Err(Error::Input { problem, .. }) => Err(Error::input(path, format!("is there, but {problem}"), hint)),
            Err(error) => Err(error),
        }
    }

    fn run_file(&self, file: &FileSpec, listen: Listener<'_>) -> Result<()> {
        let name = format!("{}.gz", file.name);
        let what = Download {
            url: format!("{}{name}", self.base_url),
            target: self.dir.join(name),
            sha256: &file.sha256,
            hashed: Hashed::Content(file.bytes),
            // Deflate and gzip add little to what cannot be compressed.
            max_bytes: file.bytes + file.bytes / 100 + 1024,
        };
        download(&agent(), &what, self.retries, listen)
    }

    fn run_archive(&self, archive: &Archive, missing: &[&FileSpec], listen: Listener<'_>) -> Result<()> {
        let target = self.dir.join(archive.name);
        if !target.exists() {
            let what = Download {
                url: format!("{}{}", self.base_url, archive.name),
                target: target.clone(),
                sha256: archive.sha256,
                hashed: Hashed::File,
                max_bytes: archive.bytes,
            };
            download(&agent(), &what, self.retries, listen)?;
        }
        unpack(&target, missing, &self.dir)?;
        std::fs::remove_file(&target).map_err(Error::io(&target, "remove"))
    }
}

/// Writes the regular files `wanted` of a `.tar.gz` into `dir`, whatever folder of the archive they are in. Nothing
/// else of the archive touches the disk: no other names, no links, no paths of its own.
///
/// # Errors
///
/// [`Error::Input`] if the archive is damaged or lacks one of the files in the expected length, [`Error::Io`] if a
/// file cannot be written.
pub fn unpack(archive: &Path, wanted: &[&FileSpec], dir: &Path) -> Result<()> {
    let damaged = |problem: String| Error::input(archive, problem, "delete it and run the same command again");
    let unreadable = |e: std::io::Error| damaged(format!("cannot be unpacked ({e})"));
    let file = File::open(archive).map_err(unreadable)?;
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut missing: BTreeSet<&str> = wanted.iter().map(|file| file.name.as_str()).collect();
    for entry in tar.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let is = |file: &&&FileSpec| path.file_name().is_some_and(|name| name == file.name.as_str());
        let Some(file) = wanted.iter().find(is).filter(|_| entry.header().entry_type().is_file()) else { continue };
        let bytes = entry.size();
        if bytes != file.bytes {
            return Err(damaged(format!("{}: expected {} bytes, found {bytes}", file.name, file.bytes)));
        }
        write_atomically(&dir.join(&file.name), &mut entry, bytes)?;
        missing.remove(file.name.as_str());
    }
    match missing.first() {
        Some(name) => Err(damaged(format!("holds no {name}"))),
        None => Ok(()),
    }
}
