//! Output directories that are damaged, of another version, taken or not to be written to.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use engine::experiments::pipeline::{FORMAT, Store};
use predicates::prelude::*;

use super::interruption::kill_after_an_epoch;
use super::{
    MOMENT, assert_contains, copy_of_finished, engine, error_line, finished, run, stage_dirs, success, table_dir,
    table_dirs,
};

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

/// Other cells, other settings and other seeds are other questions; the same question is answered in its place.
#[test]
fn runs_do_not_overwrite_each_other() {
    let out = copy_of_finished();
    let cell_of = |dir: &Path| {
        let mut rows = csv::Reader::from_path(dir.join("table.csv")).unwrap();
        let row: Vec<String> = rows.records().next().unwrap().unwrap().iter().map(str::to_string).collect();
        row[4..6].join(":")
    };
    let mine = table_dir(out.path());
    let before = fs::read(mine.join("table.csv")).unwrap();
    fs::write(mine.join("curves/scratch-xavier_normal-adam-0.svg"), "of an earlier run").unwrap();
    success(&run(MOMENT, out.path()));
    assert_eq!((table_dirs(out.path()).len(), fs::read(mine.join("table.csv")).unwrap()), (1, before.clone()));
    assert_ne!(fs::read_to_string(mine.join("curves/scratch-xavier_normal-adam-0.svg")).unwrap(), "of an earlier run");

    let other: Vec<&str> =
        MOMENT.iter().map(|arg| if *arg == "xavier_normal:adam" { "normal:sgd" } else { arg }).collect();
    let set = [MOMENT, &["--set", "batch=100"]].concat();
    for args in [&other, &set] {
        let text = success(&run(args, out.path()));
        let written =
            text.lines().find_map(|line| line.strip_prefix("Written to ")).unwrap().split(": ").next().unwrap();
        assert!(Path::new(written).join("run.json").exists(), "{text}");
    }
    let tables = table_dirs(out.path());
    assert_eq!(tables.len(), 3, "{tables:?}");
    assert_eq!(fs::read(mine.join("table.csv")).unwrap(), before);
    let mut cells: Vec<String> = tables.iter().map(|dir| cell_of(dir)).collect();
    cells.sort();
    assert_eq!(cells, ["normal:sgd", "xavier_normal:adam", "xavier_normal:adam"]);

    // A name that the user chooses is not taken from another run, unless that is asked for.
    let named = |args: &[&str]| run(&[args, &["--name", "mine"]].concat(), out.path());
    success(&named(MOMENT));
    let line = error_line(&named(&other), 2);
    assert_contains(&line, &["mine: holds another run; its run.json says which", "--name", "--fresh"]);
    assert_eq!(cell_of(&out.path().join("mine")), "xavier_normal:adam");
    success(&named(&[&other[..], &["--fresh"]].concat()));
    assert_eq!(cell_of(&out.path().join("mine")), "normal:sgd");
    let curves: Vec<_> =
        fs::read_dir(out.path().join("mine/curves")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(curves, ["scratch-normal-sgd-0.svg"], "nothing of the run that was replaced is left");
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
