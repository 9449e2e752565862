//! Where stages leave their results: `<out>/store/<key>/`.
//!
//! | file | written | holds |
//! |---|---|---|
//! | `lock` | first | process id of whoever works on the stage; locked while it does |
//! | `config.toml` | before the work | the resolved stage |
//! | `metrics.csv` | after each epoch | one row an epoch |
//! | `residuals.csv` | after each epoch | with ADMM: one row a parameter and update |
//! | `state.safetensors` | while running | everything needed to go on bit-identically |
//! | `model.safetensors` | at the end | the selected model |
//! | `result.json` | last | the result; the stage is finished if and only if it exists |
//! | `examples.safetensors` | behind it, by whoever shows them | images under attack |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::result::StageResult;
use super::stage::{FORMAT, Stage, StageConfig};
use crate::base::error::{Error, Result};
use crate::base::files::remove_if_present;
use crate::checkpoint::{STATE_FILE, TEMPORARY, write_atomic};
use crate::train::{EpochRow, METRICS_FILE, RESIDUALS_FILE, ResidualRow};

pub(super) const CONFIG: &str = "config.toml";
const LOCK: &str = "lock";
const RESULT: &str = "result.json";

/// The stages of one output directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store of the output directory `out`, creating it where needed.
    ///
    /// # Errors
    /// [`Error::Input`] if the directory cannot be written to, or the store is of another format.
    pub fn open(out: &Path) -> Result<Self> {
        let root = out.join("store");
        let unwritable = |e: std::io::Error| {
            Error::input(out, format!("cannot write there ({e})"), "choose another directory with --out")
        };
        fs::create_dir_all(&root).map_err(unwritable)?;
        // An existing directory may still be read-only: better to hear it now than after the first epoch.
        drop(tempfile::tempfile_in(&root).map_err(unwritable)?);
        let store = Store { root };
        store.check_version()?;
        Ok(store)
    }

    fn check_version(&self) -> Result<()> {
        let path = self.root.join("version");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == FORMAT.to_string() => Ok(()),
            Ok(text) => {
                let found: String = text.trim().chars().filter(|c| c.is_ascii_graphic()).take(20).collect();
                Err(Error::input(
                    &self.root,
                    format!("the store has format '{found}', this engine writes format {FORMAT}"),
                    "choose another directory with --out, or delete the store to start over",
                ))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => write_atomic(&path, format!("{FORMAT}\n").as_bytes()),
            Err(e) => Err(Error::io(&path, "read")(e)),
        }
    }

    /// Directory of the stage with this key, whether it exists or not.
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// The result of the finished stage with this key and `config`; `None` if it is not finished.
    ///
    /// # Errors
    /// [`Error::Input`] if `result.json` is corrupt, or of another kind of stage.
    pub fn result(&self, key: &str, config: &StageConfig) -> Result<Option<StageResult>> {
        read_result(&self.path(key), config)
    }

    /// The epochs that a stage has recorded so far, in order; none if it has not started.
    ///
    /// # Errors
    /// [`Error::Input`] if `metrics.csv` is corrupt.
    pub fn metrics(&self, key: &str) -> Result<Vec<EpochRow>> {
        read_rows(&self.path(key).join(METRICS_FILE), "epochs")
    }

    /// The residuals that a stage with ADMM has recorded so far, in order; none for any other.
    ///
    /// # Errors
    /// [`Error::Input`] if `residuals.csv` is corrupt.
    pub fn residuals(&self, key: &str) -> Result<Vec<ResidualRow>> {
        read_rows(&self.path(key).join(RESIDUALS_FILE), "residuals")
    }

    /// Takes the stage's directory for this process alone, until the returned value is dropped or the process ends,
    /// and removes the half-written files that a killed one may have left.
    ///
    /// # Errors
    /// [`Error::Locked`] at once if another process has it.
    pub fn lock(&self, key: &str) -> Result<StageDir> {
        let path = self.path(key);
        fs::create_dir_all(&path).map_err(Error::io(&path, "create directory"))?;
        let lock = path.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock)
            .map_err(Error::io(&lock, "open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(&path, &mut file)),
            Err(TryLockError::Error(e)) => return Err(Error::io(&lock, "lock")(e)),
        }
        // The process id only informs; the lock itself goes with the process, however it ends.
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(Error::io(&lock, "write"))?;
        let dir = StageDir { path, _lock: file };
        dir.remove(|name| name.starts_with(TEMPORARY))?;
        Ok(dir)
    }
}

/// A stage's directory, held by this process.
#[derive(Debug)]
pub struct StageDir {
    path: PathBuf,
    _lock: File,
}

impl StageDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directory of another stage of the same store.
    pub fn other(&self, key: &str) -> PathBuf {
        self.path.with_file_name(key)
    }

    /// As [`Store::result`].
    pub fn result(&self, config: &StageConfig) -> Result<Option<StageResult>> {
        read_result(&self.path, config)
    }

    /// Removes everything that earlier runs left, so that the stage starts over.
    pub fn clear(&self) -> Result<()> {
        // The result goes first: a stage must never look finished while its other files are gone.
        remove_if_present(&self.path.join(RESULT))?;
        self.remove(|name| name != LOCK)
    }

    /// Removes the files with such a name.
    fn remove(&self, such: impl Fn(&str) -> bool) -> Result<()> {
        for entry in fs::read_dir(&self.path).map_err(Error::io(&self.path, "list"))? {
            let entry = entry.map_err(Error::io(&self.path, "list"))?;
            if such(&entry.file_name().to_string_lossy()) {
                remove_if_present(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes the resolved stage to `config.toml`.
    pub fn write_config(&self, stage: &Stage) -> Result<()> {
        let text = toml::to_string(stage).map_err(|e| Error::Failed(format!("cannot serialise a stage: {e}")))?;
        write_atomic(&self.path.join(CONFIG), text.as_bytes())
    }

    /// Declares the stage finished: writes `result.json`, then removes the state that only a resumption needs.
    ///
    /// # Errors
    /// [`Error::Failed`] for a result that could not be read again, like a loss that is not a number.
    pub fn finish(&self, config: &StageConfig, result: &StageResult) -> Result<()> {
        let failed = |e: serde_json::Error| Error::Failed(format!("cannot serialise a result: {e}"));
        let json = serde_json::to_value(result).map_err(failed)?;
        let text = format!("{json:#}\n");
        StageResult::from_json(config, json)?;
        write_atomic(&self.path.join(RESULT), text.as_bytes())?;
        remove_if_present(&self.path.join(STATE_FILE))
    }
}

/// The result in the directory of a stage of this `config`; `None` if it is not finished.
///
/// # Errors
/// [`Error::Input`] if `result.json` is corrupt, or of another kind of stage.
pub(super) fn read_result(dir: &Path, config: &StageConfig) -> Result<Option<StageResult>> {
    let path = dir.join(RESULT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(&path, "read")(e)),
    };
    let json =
        serde_json::from_slice(&bytes).map_err(|e| corrupt(&path, &format!("it is cut short or corrupt ({e})")))?;
    StageResult::from_json(config, json).map(Some).map_err(|e| corrupt(&path, &e.to_string()))
}

/// The rows of a CSV file, a table of `what`; none if there is no file.
fn read_rows<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path, "read")(e)),
    };
    csv::Reader::from_reader(bytes.as_slice())
        .deserialize()
        .collect::<csv::Result<_>>()
        .map_err(|e| corrupt(path, &format!("it is no table of {what} ({e})")))
}

fn corrupt(path: &Path, problem: &str) -> Error {
    Error::input(path, problem, "restore the file, or discard this stage's results with --fresh")
}

fn locked(dir: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    let who = match file.read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => format!("process {}", holder.trim()),
        _ => "another process".to_string(),
    };
    Error::Locked(format!(
        "{}: {who} works on this stage; wait for it, stop it, or choose another --out",
        dir.display()
    ))
}
