//! A disk that is full, at the start and in the middle of a run.
#![cfg(unix)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use super::{MOMENT, assert_contains, engine, error_line, finished, run, stage_dirs, success};
use crate::skip::{Missing, skip};

/// Runs [`MOMENT`] behind the shell commands `before`, which end in `&&` or `;`.
fn run_after(before: &str, out: &Path, shell: &[&str]) -> Output {
    let mut args = shell.to_vec();
    let script = format!(r#"{before} exec "$0" "$@""#);
    args.extend(["sh", "-c", &script, env!("CARGO_BIN_EXE_engine")]);
    args.extend(MOMENT);
    Command::new(args[0]).args(&args[1..]).arg("--out").arg(out).output().unwrap()
}

fn model(out: &Path) -> Vec<u8> {
    fs::read(stage_dirs(out)[0].join("model.safetensors")).unwrap()
}

#[test]
fn a_file_that_cannot_grow_fails_the_stage_and_loses_nothing() {
    let out = tempfile::tempdir().unwrap();
    // A limit on the size of files is the full disk that everybody may have. The state is larger than it, the
    // configuration smaller. With SIGXFSZ ignored, as exec leaves it, the write fails as on a full disk.
    let output = run_after("trap '' XFSZ; ulimit -f 32;", out.path(), &[]);
    assert_contains(
        &error_line(&output, 1),
        &["state.safetensors: cannot write", "make room and run the command again"],
    );
    let stage = &stage_dirs(out.path())[0];
    let names: Vec<_> = fs::read_dir(stage).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".tmp-")), "{names:?}");
    assert!(stage.join("config.toml").exists() && !stage.join("result.json").exists(), "{names:?}");
    success(&run(MOMENT, out.path()));
    assert_eq!(model(out.path()), model(finished()));
}

#[test]
fn a_disk_that_is_full_fails_the_stage_and_loses_nothing() {
    // A file system of our own, in a mount name space that ends with the process.
    let probe = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip(Missing::System, "this process may not mount a small file system");
    }
    let out = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=96k tmpfs '{}' &&", out.path().display());
    let output = run_after(&mount, out.path(), &["unshare", "-rm"]);
    let line = error_line(&output, 1);
    assert_contains(&line, &["cannot write: No space left on device", "make room and run the command again"]);
    // A disk full from the start is told at the start.
    let mount = format!("mount -t tmpfs -o nr_inodes=1 tmpfs '{}' &&", out.path().display());
    let output = run_after(&mount, out.path(), &["unshare", "-rm"]);
    assert_contains(&error_line(&output, 2), &["cannot write there (No space left on device", "--out"]);
}

#[test]
fn a_full_standard_output_is_code_1() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return skip(Missing::System, "this system has no /dev/full");
    };
    for args in [&["run", "--list"][..], &["data", "list"], &["doctor"], &["--help"]] {
        let output = engine(args).stdout(full.try_clone().unwrap()).output().unwrap();
        assert_contains(&error_line(&output, 1), &["cannot write: No space left on device"]);
    }
}
