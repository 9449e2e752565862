//! A file of records, a line each, that grows as they come: an interrupted run goes on where it stopped.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Mutex;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Line<T> {
    /// What the record holds for.
    key: String,
    record: T,
}

/// Those of one key; the others are kept.
pub struct Records<T> {
    key: String,
    text: String,
    file: Mutex<File>,
    of: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// # Errors
    /// In one line.
    pub fn open(path: &Path, key: &str) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let text = if path.exists() { fs::read_to_string(path).map_err(failed)? } else { String::new() };
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Records { key: key.to_string(), text, file: Mutex::new(file), of: PhantomData })
    }

    /// All that were there when it was opened. A line that an interruption has cut short is none.
    pub fn all(&self) -> Vec<T> {
        self.lines().filter(|line| line.key == self.key).map(|line| line.record).collect()
    }

    /// The same of every key.
    pub fn of_any_key(&self) -> Vec<T> {
        self.lines().map(|line| line.record).collect()
    }

    fn lines(&self) -> impl Iterator<Item = Line<T>> {
        self.text.lines().filter_map(|line| serde_json::from_str(line).ok())
    }

    /// # Errors
    /// In one line, if it cannot be written.
    pub fn add(&self, record: &T) -> Result<(), String> {
        let line = serde_json::to_string(&Line { key: self.key.clone(), record }).map_err(|e| e.to_string())?;
        let mut file = self.file.lock().expect("no thread panics");
        file.write_all(format!("{line}\n").as_bytes()).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Records;

    #[test]
    fn go_on_after_an_interruption() {
        let path = std::env::temp_dir().join(format!("engine-mutation-records-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        Records::open(&path, "a").unwrap().add(&1).unwrap();
        Records::open(&path, "b").unwrap().add(&2).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "{\"key\":\"a\",\"rec").unwrap();
        Records::open(&path, "a").unwrap().add(&3).unwrap();
        let records: Records<u32> = Records::open(&path, "a").unwrap();
        assert_eq!((records.all(), records.of_any_key()), (vec![1, 3], vec![1, 2, 3]));
        std::fs::remove_file(path).unwrap();
    }
}
