//! Finding the files of a data set.
//!
//! The directories are searched in this order; the first that holds any file of the set decides:
//! `--data DIR` (and then nothing else), `ENGINE_DATA`, the platform's data directory, Debian's data packages.
//! In each of them the files are in the set's folder ([`super::info::DatasetInfo::folder`]) or,
//! for directories that the user names, directly in it.

use std::path::{Path, PathBuf};

use super::DatasetName;
use super::info::OfficialFile;
use crate::base::error::{Error, Result};

/// Names a data directory; `--data` goes before it.
pub const ENV: &str = "ENGINE_DATA";
/// Where Debian's `dataset-fashion-mnist` puts its folder.
const DEBIAN: &str = "/usr/share/datasets";

/// A directory to look in.
#[derive(Clone, Debug)]
pub struct Root {
    /// Holds the sets' folders.
    pub dir: PathBuf,
    /// Files may also lie in `dir` itself, without the set's folder.
    pub direct: bool,
}

/// Where to look, in order.
#[derive(Clone, Debug)]
pub struct Roots(pub Vec<Root>);

/// The directory that has the files of a data set, or some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The data set.
    pub name: DatasetName,
    /// The directory of its files.
    pub dir: PathBuf,
}

/// The directories that were searched, for a message.
impl std::fmt::Display for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dirs: Vec<String> = self.0.iter().map(|root| root.dir.display().to_string()).collect();
        write!(f, "looked in {}", dirs.join(", "))
    }
}

impl Roots {
    /// Only `data` if it is given, otherwise the user's, the platform's and the system's directories.
    pub fn new(data: Option<&Path>) -> Roots {
        let named = |dir: &Path| Root { dir: dir.to_path_buf(), direct: true };
        if let Some(dir) = data {
            return Roots(vec![named(dir)]);
        }
        let shared = |dir: PathBuf| Root { dir, direct: false };
        let mut roots = Vec::new();
        roots.extend(env_dir().as_deref().map(named));
        roots.extend(platform_dir().map(shared));
        roots.push(shared(DEBIAN.into()));
        Roots(roots)
    }

    /// The first directory that holds a file of the set. Whether it holds all of them shows in [`Found::file`].
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if no directory does, naming all that were looked in and what was expected in the first.
    pub fn find(&self, name: DatasetName) -> Result<Found> {
        let info = name.info();
        for root in &self.0 {
            let folder = root.dir.join(info.folder);
            let direct = root.direct.then(|| root.dir.clone());
            for dir in [Some(folder), direct].into_iter().flatten() {
                if info.files.iter().any(|file| existing(&dir, file).is_some()) {
                    return Ok(Found { name, dir });
                }
            }
        }
        let first = self.0.first().map_or(Path::new("."), |root| &root.dir);
        let expected = Path::new(info.folder).join(info.files[0].name);
        let mut problem = match first.is_dir() {
            true => format!("no {} there, expected {}[.gz] and the rest", info.title, expected.display()),
            false => format!("no {} found, no such directory", info.title),
        };
        let others: Vec<String> = self.0.iter().skip(1).map(|root| root.dir.display().to_string()).collect();
        if !others.is_empty() {
            problem += &format!(", nor in {}", others.join(", "));
        }
        let hint =
            format!("get it with `engine data fetch --data-set {name}` or name its directory with --data or {ENV}");
        Err(Error::input(first, problem, hint))
    }
}

impl Found {
    /// Checks that all files are there; nothing about their content.
    ///
    /// # Errors
    ///
    /// As [`Found::file`] for the first that is not.
    pub fn check_complete(&self) -> Result<()> {
        self.name.info().files.iter().try_for_each(|file| self.file(file).map(drop))
    }

    /// The path of one file, uncompressed or `.gz`, the former if there are both.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if there is neither.
    pub fn file(&self, file: &OfficialFile) -> Result<PathBuf> {
        existing(&self.dir, file).ok_or_else(|| {
            let hint = format!("get it with `engine data fetch --data-set {}`", self.name);
            Error::input(self.dir.join(file.name), "no such file, nor one with .gz", hint)
        })
    }
}

/// Where `fetch` puts data: `data`, `ENGINE_DATA` or the platform's data directory.
///
/// # Errors
///
/// [`Error::Usage`] if there is none of them, because the user has no home directory.
pub fn download_dir(data: Option<&Path>) -> Result<PathBuf> {
    data.map(Path::to_path_buf)
        .or_else(env_dir)
        .or_else(platform_dir)
        .ok_or_else(|| Error::Usage(format!("no home directory to download to; name a directory with --data or {ENV}")))
}

fn existing(dir: &Path, file: &OfficialFile) -> Option<PathBuf> {
    [dir.join(file.name), dir.join(format!("{}.gz", file.name))].into_iter().find(|path| path.exists())
}

fn env_dir() -> Option<PathBuf> {
    std::env::var_os(ENV).filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// `~/.local/share/engine` on Linux, its like elsewhere.
fn platform_dir() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "engine").map(|dirs| dirs.data_dir().to_path_buf())
}
