//! Models from PyTorch and to PyTorch, ONNX and NumPy. `tests/oracle/exchange.py` compares the logits.

mod files;
mod hostile_pickles;
mod hostile_safetensors;
mod hostile_zips;
mod import;
mod numpy;
mod onnx;
mod pytorch;
mod raw_output;

use std::path::Path;
use std::process::{Command, Output};

use crate::cli::{assert_contains, engine, error_line};

/// `engine import` of bytes, in a process that may take about 300 MB, most of which it begins with.
fn import(bytes: &[u8], flags: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("file.pt"), dir.path().join("model.safetensors"));
    std::fs::write(&file, bytes).unwrap();
    let args = ["import", file.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = limited(engine(&[&args[..], flags].concat()));
    assert_eq!(out.exists(), output.status.success(), "a model is written if and only if the file is good");
    output
}

/// Runs a command with a limit on its memory, where there is such a thing.
fn limited(command: Command) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 300000 2>/dev/null; exec \"$0\" \"$@\""]);
    shell.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    shell.output().unwrap()
}

/// That `engine import` refuses bytes with one line, which says all of `expected`.
#[track_caller]
fn refused(bytes: &[u8], expected: &[&str]) {
    let line = error_line(&import(bytes, &[]), 2);
    assert!(line.len() < 600, "{line}");
    assert_contains(&line, &[&["file.pt: "], expected].concat());
}

/// The path of a recorded file.
fn recorded(name: &str) -> std::path::PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("tests/oracle").join(name)
}
