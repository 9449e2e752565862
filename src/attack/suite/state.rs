//! How far a suite of attacks has come, on disk: it goes on after an interruption, to the same verdicts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Assessment;
use crate::base::error::{Error, Result};
use crate::base::files::remove_if_present;
use crate::base::json::exact_json;
use crate::checkpoint::{Checkpoint, STATE_FILE, encode, write_atomic};

/// Time between two saves.
const SAVE_EVERY: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
struct Metadata {
    suite: Value,
    assessment: Assessment,
}

/// The state of one suite in a directory.
pub struct SuiteState {
    path: PathBuf,
    /// Everything that decides the result. A state of another suite is not continued.
    key: Value,
    shape: [usize; 3],
    saved: Instant,
}

impl SuiteState {
    /// In `dir`, of the suite that `key` describes, on images of `shape`.
    ///
    /// # Errors
    /// As [`exact_json`].
    pub fn new(dir: &Path, key: &impl Serialize, shape: [usize; 3]) -> Result<Self> {
        // As it will be read: the numbers of a file have no type.
        Ok(SuiteState { path: dir.join(STATE_FILE), key: exact_json(key)?, shape, saved: Instant::now() })
    }

    /// The assessment of an interrupted run of the same suite; empty if there was none.
    ///
    /// # Errors
    /// [`Error::Input`] for a damaged file, or one of another suite.
    pub fn load(&self) -> Result<Assessment> {
        if !self.path.exists() {
            return Ok(Assessment::default());
        }
        let file = Checkpoint::read(&self.path, "discard it with --fresh, or choose another --out")?;
        let Metadata { suite, mut assessment } = file.metadata()?;
        if suite != self.key {
            let hint = "go on with it by the command that began it, discard it with --fresh, or choose another --out";
            return Err(Error::input(&self.path, "is of an interrupted attack with other settings", hint));
        }
        let [c, h, w] = self.shape;
        let pixels = file.tensor("attempts", &[assessment.verdicts.len(), c, h, w])?;
        assessment.attempts = pixels.chunks_exact(c * h * w).map(<[f32]>::to_vec).collect();
        Ok(assessment)
    }

    /// Saves, if that was a while ago.
    ///
    /// # Errors
    /// As [`write_atomic`].
    pub fn save_at_times(&mut self, assessment: &Assessment) -> Result<()> {
        if self.saved.elapsed() < SAVE_EVERY { Ok(()) } else { self.save(assessment) }
    }

    /// # Errors
    /// As [`write_atomic`].
    pub fn save(&mut self, assessment: &Assessment) -> Result<()> {
        let [c, h, w] = self.shape;
        let attempts = ("attempts".to_string(), vec![assessment.attempts.len(), c, h, w], assessment.attempts.concat());
        let metadata = Metadata { suite: self.key.clone(), assessment: assessment.clone() };
        write_atomic(&self.path, &encode(&[attempts], &metadata)?)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Removes the file: the suite is finished, or starts anew.
    ///
    /// # Errors
    /// [`Error::Io`] if the file is there and cannot be removed.
    pub fn discard(&self) -> Result<()> {
        remove_if_present(&self.path)
    }
}
