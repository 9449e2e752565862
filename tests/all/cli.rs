//! The built binary, seen from outside: exit codes, messages, files.

mod attack;
mod bad_input;
mod bad_models;
mod disk;
mod export;
mod fetch;
mod gpu;
mod interruption;
pub mod models;
mod prune;
mod stores;
mod verbs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The binary, to be run where no data set of this machine's user and no GPU is found.
pub fn engine(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
    command.args(args).env_remove("ENGINE_DATA").env("XDG_DATA_HOME", "/nonexistent").env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// What the binary did with `args`, with `out` as its output directory.
fn run(args: &[&str], out: &Path) -> Output {
    engine(args).arg("--out").arg(out).output().unwrap()
}

/// stdout of a run that succeeded.
pub fn success(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The only line on stderr, after `error: `.
pub fn error_line(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let line = stderr.strip_suffix('\n').and_then(|s| s.strip_prefix("error: ")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(!line.contains('\n'), "{stderr}");
    line.to_string()
}

pub fn assert_contains(line: &str, all: &[&str]) {
    for expected in all {
        assert!(line.contains(expected), "no '{expected}' in: {line}");
    }
}

/// Names of what is in a directory, in order; none if there is no directory.
fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A training of b1 that takes a moment: a weak attack, one epoch.
const MOMENT: &[&str] = &[
    "run",
    "--table",
    "b1",
    "--profile",
    "smoke",
    "--cells",
    "xavier_normal:adam",
    "--epochs",
    "1",
    "--set",
    "attack.steps=1",
    "--set",
    "eval_attack.steps=1",
    "--quiet",
];

/// The output directory of [`MOMENT`], finished; not to be changed.
fn finished() -> &'static Path {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let run_once = || {
        let out = tempfile::tempdir().unwrap();
        success(&run(MOMENT, out.path()));
        out
    };
    RUN.get_or_init(run_once).path()
}

/// A copy of [`finished`], to be changed.
fn copy_of_finished() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(finished(), copy.path());
    copy
}

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The directories of the tables in an output directory, in the order of their names.
fn table_dirs(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let mut dirs: Vec<PathBuf> = entries.filter(|path| path.join("table.csv").exists()).collect();
    dirs.sort();
    dirs
}

/// The directory of the only table in an output directory.
fn table_dir(out: &Path) -> PathBuf {
    let [dir] = &table_dirs(out)[..] else { panic!("not one table in {}", out.display()) };
    dir.clone()
}

/// The directories of the stages in an output directory, in the order of their keys.
pub fn stage_dirs(out: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(out.join("store")) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    dirs
}
