//! Exit codes and messages of the built binary.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use engine::data::{Dataset, DatasetName};
use engine::pipeline::{BackendName, Precision, Stage, Store};
use engine::tables::{self, Profile, Settings, Table};

fn engine(args: &[&str], out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_engine"));
    command.args(args).arg("--out").arg(out).env_remove("ENGINE_DATA").output().unwrap()
}

/// The only line on stderr, after `error: `.
fn error_line(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let line = stderr.trim_end().strip_prefix("error: ").unwrap_or_else(|| panic!("{stderr}"));
    assert!(!line.contains('\n'), "{stderr}");
    line.to_string()
}

#[test]
fn wrong_usage_is_one_line_and_code_2() {
    let out = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (&["--table", "zz"][..], "unknown table 'zz'; known: b1"),
        (&["--table", "b1", "--cells", "kaiming_normol:adam"], "did you mean 'kaiming_normal'?"),
        (&["--table", "b1", "--method", "admm"], "unknown method 'admm'"),
        (&["--table", "b1", "--set", "atack.eps=0.1"], "did you mean 'attack.eps'?"),
        (&["--table", "b1", "--set", "attack.eps=-1"], "attack.eps: must be at least 0"),
        (&["--table", "b1", "--epochs", "0"], "epochs: must be 1 to 100000"),
        (&["--table", "b1", "--backend", "cuda"], "no CUDA backend"),
        (&["--table", "b1", "--precision", "bf16"], "drop the flag"),
        (&["--table", "b1", "--data", "."], "smoke profile uses the embedded sample"),
        (&["--table", "b1", "--profile", "quick", "--data", "/no/such/directory"], "/no/such/directory"),
    ] {
        let output = engine(&[&["run"], args].concat(), out.path());
        let line = error_line(&output, 2);
        assert!(line.contains(expected), "{args:?}: {line}");
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "nothing may be written before all is checked");
}

#[test]
fn flags_that_do_not_parse_are_code_2() {
    let out = tempfile::tempdir().unwrap();
    for args in [
        &["run"][..],
        &["run", "--table", "b1", "--seeds", "0"],
        &["run", "--table", "b1", "--seeds", "-1"],
        &["run", "--table", "b1", "--jobs", "0"],
        &["run", "--table", "b1", "--profile", "smoky"],
        &["run", "--table", "b1", "--set", "eps"],
        &["train", "--network", "lenat"],
        &["nonsense"],
    ] {
        let output = engine(args, out.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() < 8, "{args:?}: {stderr}");
    }
}

#[test]
fn list_shows_every_table() {
    let output = Command::new(env!("CARGO_BIN_EXE_engine")).args(["run", "--list"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.starts_with("b1 ") && text.contains("(21 cells)") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_engine"))
        .args(["run", "--list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn an_output_directory_that_is_a_file_is_code_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = error_line(&engine(&["run", "--table", "b1"], file.path()), 2);
    assert!(line.contains("--out"), "{line}");
}

#[test]
fn a_store_of_another_format_is_code_2() {
    let out = tempfile::tempdir().unwrap();
    std::fs::create_dir(out.path().join("store")).unwrap();
    std::fs::write(out.path().join("store/version"), "0\n").unwrap();
    let line = error_line(&engine(&["run", "--table", "b1"], out.path()), 2);
    assert!(line.contains("format '0'"), "{line}");
}

#[test]
fn a_stage_of_another_process_is_code_1() {
    let out = tempfile::tempdir().unwrap();
    let data = Dataset::sample(DatasetName::Mnist).unwrap();
    let settings = Settings {
        profile: Profile::Smoke,
        data: data.id.clone(),
        train_images: data.train.labels.len(),
        test_images: data.test.labels.len(),
        methods: vec!["scratch".into()],
        cells: vec!["uniform:adam".into()],
        seeds: vec![0],
        epochs: None,
        overrides: vec![],
    };
    let cells = tables::cells(Table::find("b1").unwrap(), &settings).unwrap();
    let stage = Stage::new(BackendName::Cpu, Precision::F32, vec![], cells[0].chain[0].clone());
    let store = Store::open(out.path()).unwrap();
    let _held = store.lock(&stage.key().unwrap()).unwrap();

    let output = engine(&["run", "--table", "b1", "--cells", "uniform:adam"], out.path());
    let line = error_line(&output, 1);
    assert!(line.contains(&format!("process {} works on this stage", std::process::id())), "{line}");
}
