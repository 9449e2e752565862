//! `run.json`: what produced a table, complete enough to run it again.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::DataId;

/// Its name in the directory of a run.
pub const RUN_FILE: &str = "run.json";

/// Everything about a run that is not in its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The command line, program name first.
    pub command: Vec<String>,
    /// Version of the engine: `CARGO_PKG_VERSION`.
    pub version: String,
    /// The commit it was built from, where the build knew it.
    pub commit: Option<String>,
    /// Table id: `b1`.
    pub table: String,
    /// The profile's name.
    pub profile: String,
    /// First 16 hex digits of the SHA-256 over the cells and the keys of their stages: what was asked, and of what.
    pub fingerprint: String,
    /// Every seed of the run.
    pub seeds: Vec<u64>,
    /// The data sets read.
    pub data: Vec<DataRecord>,
    /// Where it ran.
    pub machine: Machine,
    /// Every setting after profile, flags and `--set` were applied.
    pub config: serde_json::Value,
    /// Seconds from start to finish of this run; stages found finished cost nothing.
    pub wall_seconds: f64,
}

/// A data set and where it was read from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Name, subset and fingerprint.
    pub id: DataId,
    /// [`crate::data::Dataset::origin`].
    pub origin: String,
}

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `linux`, as in `std::env::consts::OS`.
    pub os: String,
    /// `x86_64`, as in `std::env::consts::ARCH`.
    pub arch: String,
    /// The processor's name, where the system tells it.
    pub cpu: Option<String>,
    /// Threads the engine computed with.
    pub threads: usize,
    /// The backend's name.
    pub backend: String,
    /// The GPU's name, if it computed.
    #[serde(default)]
    pub gpu: Option<String>,
}

impl RunRecord {
    /// The fingerprint of the run whose files are in `dir`, empty if its record has none; `None` if there is no record.
    pub fn fingerprint_in(dir: &Path) -> Option<String> {
        let bytes = std::fs::read(dir.join(RUN_FILE)).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Some(record["fingerprint"].as_str().unwrap_or_default().to_string())
    }

    /// Writes the record as indented JSON ending in a newline.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut writer: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut writer, self)?;
        writer.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    #[test]
    fn reads_back_what_it_wrote() {
        let record = sample::record();
        let mut bytes = Vec::new();
        record.write(&mut bytes).unwrap();
        assert!(bytes.ends_with(b"}\n"));
        assert_eq!(serde_json::from_slice::<RunRecord>(&bytes).unwrap(), record);
    }
}
