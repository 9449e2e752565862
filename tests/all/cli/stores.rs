//! Output directories that are damaged, of another version, taken or not to be written to.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use engine::experiments::pipeline::{FORMAT, Store};
use predicates::prelude::*;

use super::interruption::kill_after_an_epoch;
use super::{MOMENT, assert_contains, copy_of_finished, engine, error_line, finished, run, stage_dirs, success};

#[test]
fn an_output_directory_that_cannot_be_written_to() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = file.path().join("below");
    // Not even the superuser can write to the last one.
    for out in [file.path(), &below, Path::new("/proc/engine")] {
        let line = error_line(&run(MOMENT, out), 2);
        assert_contains(&line, &[out.to_str().unwrap(), "cannot write there", "--out"]);
    }
}

#[test]
fn a_store_of_another_version() {
    let out = copy_of_finished();
    let next = format!("{}\n", FORMAT + 1);
    for version in ["0\n", &next, "", "nonsense \x1b[31m with control characters\n"] {
        fs::write(out.path().join("store/version"), version).unwrap();
        let line = error_line(&run(MOMENT, out.path()), 2);
        assert_contains(&line, &["the store has format '", &format!("this engine writes format {FORMAT}"), "--out"]);
        assert!(!line.contains('\x1b'), "{line}");
    }
    fs::write(out.path().join("store/version"), format!("{FORMAT}\n")).unwrap();
    success(&run(MOMENT, out.path()));
}

/// Replaces a file of the finished stage; the error must name it, and nothing else may change.
fn assert_told(file: &str, content: &[u8], expected: &[&str]) {
    let out = copy_of_finished();
    let stage = &stage_dirs(out.path())[0];
    fs::write(stage.join(file), content).unwrap();
    let line = error_line(&run(MOMENT, out.path()), 2);
    assert_contains(&line, &[&[file, "--fresh"], expected].concat());
    assert_eq!(fs::read(stage.join(file)).unwrap(), content);
    let model = |out: &Path| fs::read(stage_dirs(out)[0].join("model.safetensors")).unwrap();
    assert_eq!(model(out.path()), model(finished()), "the model of the damaged stage is kept");
    // The advice works.
    success(&run(&[MOMENT, &["--fresh"]].concat(), out.path()));
    assert_eq!(model(out.path()), model(finished()));
}

#[test]
fn results_that_are_damaged() {
    let stage = &stage_dirs(finished())[0];
    let result = fs::read(stage.join("result.json")).unwrap();
    assert_told("result.json", &result[..result.len() / 2], &["cut short or corrupt"]);
    assert_told("result.json", b"{}", &["no training result"]);
    assert_told("metrics.csv", b"epoch,lr\n1\n", &["no table of epochs"]);
}

#[test]
fn states_that_are_damaged() {
    let out = tempfile::tempdir().unwrap();
    kill_after_an_epoch(out.path());
    let args = super::interruption::SMALL;
    let (stage, state) = stage_dirs(out.path())
        .into_iter()
        .find_map(|dir| fs::read(dir.join("state.safetensors")).ok().map(|state| (dir, state)))
        .unwrap();
    let path = stage.join("state.safetensors");
    let model = fs::read(stage_dirs(finished())[0].join("model.safetensors")).unwrap();
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/lenet.safetensors");
    for (content, expected) in [
        (&state[..state.len() - 1], "cut short"),
        (&state[..4], "cut short"),
        (b"", "cut short"),
        (&model, "metadata is of another kind"),
        (&fs::read(oracle).unwrap(), "not written by the engine"),
    ] {
        fs::write(&path, content).unwrap();
        let line = error_line(&run(args, out.path()), 2);
        assert_contains(&line, &[path.to_str().unwrap(), expected, "--fresh"]);
        assert_eq!(fs::read(&path).unwrap(), content, "what was found is left as it was");
    }
    // The other stage, undamaged, is done by now; the damaged one can start over.
    success(&run(&[args, &["--fresh"]].concat(), out.path()));
}

#[test]
fn two_processes_on_one_stage() {
    let out = tempfile::tempdir().unwrap();
    let args = super::interruption::SMALL;
    let mut first =
        engine(args).arg("--out").arg(out.path()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !stage_dirs(out.path()).iter().any(|dir| dir.join("config.toml").exists()) {
        assert!(first.try_wait().unwrap().is_none() && Instant::now() < deadline, "the first run does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    let line = error_line(&run(args, out.path()), 1);
    let holder = format!("process {} works on this stage", first.id());
    assert!(
        predicate::str::contains(holder).and(predicate::str::contains("choose another --out")).eval(&line),
        "{line}"
    );
    success(&first.wait_with_output().unwrap());
}

#[test]
fn a_lock_outlives_nobody() {
    let out = copy_of_finished();
    let key = stage_dirs(out.path())[0].file_name().unwrap().to_str().unwrap().to_string();
    let held = Store::open(out.path()).unwrap().lock(&key).unwrap();
    let fresh = [MOMENT, &["--fresh"]].concat();
    let line = error_line(&run(&fresh, out.path()), 1);
    assert_contains(&line, &[&format!("process {} works on this stage", std::process::id())]);
    // To print what is finished needs no lock.
    success(&run(MOMENT, out.path()));
    drop(held);
    success(&run(&fresh, out.path()));
}
