//! The directory of an attack: its name, whose result it holds, and which files in it are the attack's.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::base::error::{Error, Result};
use crate::base::files::{remove_if_present, short_hash};
use crate::checkpoint::{MODEL_FILE, write_atomic};
use crate::experiments::report::attack_record::AttackRecord;

/// Directories that nobody has named are made here.
const PARENT: &str = "runs/attack";
/// Written last: its presence means that the other files are complete.
const RESULT: &str = "result.json";
/// The hint for a directory that is taken.
const ELSEWHERE: &str = "choose another directory with --out or --name";
/// With `--save`, the verdict on each image.
pub const VERDICTS: &str = "verdicts.csv";
/// With `--save`, the adversarial images.
pub const ADVERSARIAL: &str = "adversarial.safetensors";

#[derive(Args)]
pub struct AttackDirArgs {
    /// Directory for what comes of it; created if need be. An interrupted attack found there is resumed, the result of another
    /// attack is kept [default: runs/attack/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name of the directory in runs/attack [default: attack, model, number of images, and a hash of these and all other settings]
    #[arg(long = "name", value_name = "NAME", conflicts_with = "out", value_parser = directory_name)]
    dir_name: Option<String>,
    /// Start anew: remove the files that an earlier attack, finished or interrupted, has left in the directory
    #[arg(long)]
    pub fresh: bool,
}

/// A name that stays inside the directory it is made in.
fn directory_name(name: &str) -> Result<String> {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if name.chars().all(plain) && !name.trim_matches('.').is_empty() {
        return Ok(name.to_string());
    }
    Err(Error::Usage("expected letters, digits and '-', '_', '.'".to_string()))
}

/// The directory of the attack that `suite` describes.
pub struct AttackDir {
    pub path: PathBuf,
    /// JSON of everything that decides the verdicts.
    pub suite: Value,
}

/// Of an earlier result only this is read.
#[derive(Deserialize)]
struct Earlier {
    suite: Value,
}

impl AttackDirArgs {
    /// The directory for an attack that `suite` decides: `attack` is its name, on `n` images. Nothing is written yet.
    ///
    /// # Errors
    /// [`Error::Input`] if the directory holds another result, unless that shall be replaced.
    pub fn open(&self, suite: Value, attack: &str, model: &Path, n: usize) -> Result<AttackDir> {
        let made_up = || format!("{attack}-{}-n{n}-{}", short_name(model), short_hash(&suite.to_string()));
        let named = || Path::new(PARENT).join(self.dir_name.clone().unwrap_or_else(made_up));
        let path = self.out.clone().unwrap_or_else(named);
        let dir = AttackDir { path, suite };
        dir.check_owner(self.fresh)?;
        Ok(dir)
    }
}

/// The name of a model for people: the key of its stage, or else the name of its file.
fn short_name(model: &Path) -> String {
    let stage = model.parent().filter(|_| model.ends_with(MODEL_FILE)).and_then(Path::file_name);
    let name = stage.or(model.file_stem()).unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '-' };
    name.chars().take(32).map(plain).collect()
}

impl AttackDir {
    /// Checks that nothing of value is lost if this attack writes here.
    fn check_owner(&self, replace: bool) -> Result<()> {
        let path = self.path.join(RESULT);
        if !path.exists() {
            return Ok(());
        }
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let Ok(Earlier { suite }) = serde_json::from_slice(&bytes) else {
            return Err(Error::input(path, "is not the result of an attack", ELSEWHERE));
        };
        if replace || suite == self.suite {
            return Ok(());
        }
        let names = self.suite.as_object().into_iter().flat_map(|settings| settings.keys());
        let differing: Vec<&str> =
            names.map(String::as_str).filter(|&name| suite.get(name) != self.suite.get(name)).collect();
        let problem = format!("is the result of an attack with other {}", differing.join(", "));
        Err(Error::input(path, problem, format!("replace it with --fresh, or {ELSEWHERE}")))
    }

    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(Error::io(&self.path, "create directory"))
    }

    /// Removes the files of an earlier attack, but not the state of an interrupted one, and nothing else.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read, or a file not removed.
    pub fn clear(&self) -> Result<()> {
        remove_if_present(&self.path.join(RESULT))?;
        let unreadable = || Error::io(&self.path, "list");
        for entry in fs::read_dir(&self.path).map_err(unreadable())? {
            let name = entry.map_err(unreadable())?.file_name();
            if is_from_attack(&name.to_string_lossy()) {
                remove_if_present(&self.path.join(name))?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// As [`write_atomic`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        write_atomic(&self.path.join(name), content)
    }

    /// Writes the result, of whose other files the last is written, and returns its path.
    ///
    /// # Errors
    /// As [`write_atomic`].
    pub fn write_result(&self, record: &AttackRecord<'_>) -> Result<PathBuf> {
        let json =
            serde_json::to_string_pretty(record).map_err(|e| Error::Failed(format!("cannot write {RESULT}: {e}")))?;
        self.write(RESULT, (json + "\n").as_bytes())?;
        Ok(self.path.join(RESULT))
    }
}

/// The file of a page of pictures.
pub fn page_name(page: usize) -> String {
    format!("grid-{page:03}.png")
}

/// Whether an attack writes files of this name, beside its result.
fn is_from_attack(name: &str) -> bool {
    let page = name.strip_prefix("grid-").and_then(|rest| rest.strip_suffix(".png")).and_then(|page| page.parse().ok());
    [VERDICTS, ADVERSARIAL].contains(&name) || page.is_some_and(|page| name == page_name(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_name_of_its_stage_or_of_its_file() {
        for (path, name) in [
            ("runs/store/0123456789abcdef/model.safetensors", "0123456789abcdef"),
            ("model.safetensors", "model"),
            ("../model.safetensors", "model"),
            ("a/small.v2.safetensors", "small-v2"),
            ("a/my model.safetensors", "my-model"),
        ] {
            assert_eq!(short_name(Path::new(path)), name, "{path}");
        }
        assert_eq!(short_name(Path::new(&"x".repeat(100))).len(), 32);
    }

    #[test]
    fn a_name_stays_inside_its_directory() {
        for name in ["", ".", "..", "a/b", "/", "a b", "../a"] {
            assert!(directory_name(name).is_err(), "{name}");
        }
        for name in ["a", "fgsm-0.3", "v1_b", ".a"] {
            assert_eq!(directory_name(name).unwrap(), name);
        }
    }

    /// Whatever else is in the directory is the user's.
    #[test]
    fn only_files_of_an_attack_are_its_own() {
        for name in ["grid-000.png", "grid-012.png", "grid-1000.png", "verdicts.csv", "adversarial.safetensors"] {
            assert!(is_from_attack(name), "{name}");
        }
        for name in
            ["grid-1.png", "grid-0000.png", "grid-a.png", "grid-.png", "grid-+01.png", "my.csv", "model.safetensors"]
        {
            assert!(!is_from_attack(name), "{name}");
        }
    }
}
