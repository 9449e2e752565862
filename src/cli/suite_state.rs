//! How far a suite of attacks has come, on disk: it goes on after an interruption, to the same verdicts.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attack::suite::AttackConfig;
use crate::checkpoint::{Checkpoint, encode, write_atomic};
use crate::data::DataId;
use crate::data::source::hex;
use crate::error::{Error, Result};
use crate::pipeline::BackendName;
use crate::robustness::Assessment;

/// What decides the result. A state of another suite is not continued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteKey {
    /// SHA-256 of the model's file.
    model: String,
    /// Of the surrogate's, if there is one.
    surrogate: Option<String>,
    data: DataId,
    n: usize,
    seed: u64,
    backend: BackendName,
    attacks: Vec<AttackConfig>,
}

impl SuiteKey {
    /// # Errors
    /// [`Error::Io`] if one of the files cannot be read.
    pub fn new(
        (model, surrogate): (&Path, Option<&Path>),
        data: &DataId,
        n: usize,
        seed: u64,
        backend: BackendName,
        attacks: &[AttackConfig],
    ) -> Result<Self> {
        let hash = |path: &Path| Ok(hex(&Sha256::digest(fs::read(path).map_err(Error::io(path, "read"))?)));
        Ok(SuiteKey {
            model: hash(model)?,
            surrogate: surrogate.map(hash).transpose()?,
            data: data.clone(),
            n,
            seed,
            backend,
            attacks: attacks.to_vec(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    suite: SuiteKey,
    assessment: Assessment,
}

/// The state of one suite in a directory.
pub struct SuiteState {
    path: PathBuf,
    key: SuiteKey,
    shape: [usize; 3],
}

impl SuiteState {
    /// In `dir`, of a suite on images of `shape`.
    pub fn new(dir: &Path, key: SuiteKey, shape: [usize; 3]) -> Self {
        SuiteState { path: dir.join("state.safetensors"), key, shape }
    }

    /// What an interrupted run of the same suite has left, if there was one.
    ///
    /// # Errors
    /// [`Error::Input`] for a damaged file, or one of another suite.
    pub fn load(&self) -> Result<Option<Assessment>> {
        if !self.path.exists() {
            return Ok(None);
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
        Ok(Some(assessment))
    }

    /// # Errors
    /// As [`write_atomic`].
    pub fn save(&self, assessment: &Assessment) -> Result<()> {
        let [c, h, w] = self.shape;
        let attempts = ("attempts".to_string(), vec![assessment.attempts.len(), c, h, w], assessment.attempts.concat());
        let metadata = Metadata { suite: self.key.clone(), assessment: assessment.clone() };
        write_atomic(&self.path, &encode(&[attempts], &metadata)?)
    }

    /// The suite is finished, or to begin anew.
    ///
    /// # Errors
    /// [`Error::Io`] if the file is there and cannot be removed.
    pub fn discard(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&self.path, "remove")(e)),
            _ => Ok(()),
        }
    }
}
