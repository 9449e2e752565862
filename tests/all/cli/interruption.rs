//! Whatever stops a run, and however many threads it has, it ends with the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use engine::base::rng::{Rng, Stream};
use serde_json::Value;
use tempfile::TempDir;

use super::{engine, stage_dirs, success, table_dir, table_dirs};

/// Enough for a few seconds: an optimised build is several times as fast.
const EPOCHS: &str = if cfg!(debug_assertions) { "4" } else { "8" };

/// Two cells of b1 with a weak attack.
pub const SMALL: &[&str] = &[
    "run",
    "--table",
    "b1",
    "--profile",
    "smoke",
    "--cells",
    "xavier_normal:adam,uniform:sgd",
    "--epochs",
    EPOCHS,
    "--set",
    "attack.steps=2",
    "--set",
    "eval_attack.steps=1",
    "--quiet",
];

fn small(out: &Path, extra: &[&str]) -> Command {
    let mut command = engine(SMALL);
    command.args(extra).arg("--out").arg(out);
    command
}

fn spawn(out: &Path) -> Child {
    small(out, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// An uninterrupted run: what it left, and how long it took.
fn uninterrupted() -> &'static (BTreeMap<String, Vec<u8>>, Duration) {
    static RUN: OnceLock<(BTreeMap<String, Vec<u8>>, Duration)> = OnceLock::new();
    RUN.get_or_init(|| {
        let out = tempfile::tempdir().unwrap();
        let start = Instant::now();
        success(&small(out.path(), &[]).output().unwrap());
        (small_results(out.path()), start.elapsed())
    })
}

/// All that a run leaves and that another must leave too: everything but wall times, the record of the run and its page,
/// which have the time and the path, and the lock files, which name the process.
fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let table = table_dir(out);
    let mut results = BTreeMap::new();
    for dir in stage_dirs(out).iter().chain([&table, &table.join("curves")]) {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let name = path.strip_prefix(out).unwrap().to_str().unwrap().to_string();
            let bytes = fs::read(&path).unwrap();
            let comparable = match path.file_name().unwrap().to_str().unwrap() {
                "run.json" | "report.html" | "lock" => continue,
                "table.csv" | "metrics.csv" => without_seconds_column(&bytes),
                "result.json" => without_seconds_field(&bytes),
                _ => bytes,
            };
            results.insert(name, comparable);
        }
    }
    let count = |end: &str| results.keys().filter(|name| name.ends_with(end)).count();
    assert_eq!((count("table.csv"), count("state.safetensors")), (1, 0));
    results
}

fn small_results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let results = results(out);
    assert_eq!(results.len(), 2 * 5 + 3 + 2, "{:?}", results.keys());
    results
}

fn without_seconds_column(bytes: &[u8]) -> Vec<u8> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let seconds = records[0].iter().position(|name| name == "seconds").unwrap();
    let kept = |r: &csv::StringRecord| {
        r.iter().enumerate().filter(|(i, _)| *i != seconds).map(|(_, v)| v.to_string()).collect()
    };
    let lines: Vec<Vec<String>> = records.iter().map(kept).collect();
    lines.iter().map(|line| line.join(",") + "\n").collect::<String>().into_bytes()
}

fn without_seconds_field(bytes: &[u8]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    value.as_object_mut().unwrap().remove("seconds").unwrap();
    value.to_string().into_bytes()
}

fn assert_as_uninterrupted(out: &Path) {
    assert_same(&small_results(out), &uninterrupted().0);
}

fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in expected {
        assert!(found.get(name) == Some(bytes), "{name} differs from that of an uninterrupted run");
    }
    assert_eq!(found.len(), expected.len());
}

/// Kills a [`SMALL`] run as soon as one of its stages has trained an epoch.
pub fn kill_after_an_epoch(out: &Path) {
    let mut child = spawn(out);
    wait_for_an_epoch(&mut child, out);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn wait_for_an_epoch(child: &mut Child, out: &Path) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !stage_dirs(out).iter().any(|dir| dir.join("state.safetensors").exists()) {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "the run does not get to an epoch");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_run_killed_three_times_leaves_the_same_bytes() {
    let mut whole = uninterrupted().1;
    let rng = Rng::new(20, Stream::Shuffle, 0);
    let mut out = TempDir::new().unwrap();
    let (mut kills, mut moments) = (0, 0);
    while kills < 3 {
        let mut child = spawn(out.path());
        sleep(whole.mul_f32(0.3 * rng.uniform_at(moments)));
        moments += 1;
        if child.try_wait().unwrap().is_some() {
            // The machine has become faster since the time was taken. Nothing was killed: once more, sooner.
            whole /= 2;
            (out, kills) = (TempDir::new().unwrap(), 0);
            continue;
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        kills += 1;
    }
    success(&small(out.path(), &[]).output().unwrap());
    assert_as_uninterrupted(out.path());
}

/// A cell whose chain goes through ADMM, with an update of its variables after every epoch.
fn admm(out: &Path) -> Command {
    let cell = [
        "run",
        "--table",
        "t2",
        "--profile",
        "smoke",
        "--method",
        "admm",
        "--cells",
        "2:1",
        "--epochs",
        "3",
        "--jobs",
        "1",
    ];
    let weak = ["--set", "attack.steps=2", "--set", "eval_attack.steps=1", "--quiet"];
    let mut command = engine(&cell);
    command.args(weak).arg("--out").arg(out).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_run_killed_during_admm_leaves_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    assert!(admm(whole.path()).status().unwrap().success());
    let expected = results(whole.path());
    assert!(expected.keys().any(|name| name.ends_with("residuals.csv")), "{:?}", expected.keys());

    // Z and U have been updated, so that there is something to lose.
    let out = tempfile::tempdir().unwrap();
    let mut child = admm(out.path()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let updated = |dir: &PathBuf| dir.join("residuals.csv").exists() && dir.join("state.safetensors").exists();
    while !stage_dirs(out.path()).iter().any(updated) {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "the run does not get to ADMM");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(admm(out.path()).status().unwrap().success());
    assert_same(&results(out.path()), &expected);
}

#[test]
fn threads_and_jobs_do_not_change_a_byte() {
    for extra in
        [["--threads", "1", "--jobs", "1"], ["--threads", "2", "--jobs", "1"], ["--threads", "3", "--jobs", "2"]]
    {
        let out = tempfile::tempdir().unwrap();
        success(&small(out.path(), &extra).output().unwrap());
        assert_as_uninterrupted(out.path());
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_saves_and_tells_how_to_resume() {
    let out = tempfile::Builder::new().prefix("it's here ").tempdir().unwrap();
    let mut child = spawn(out.path());
    wait_for_an_epoch(&mut child, out.path());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let resume = stderr.lines().find_map(|line| line.strip_prefix("interrupted; the state is saved, resume with: "));
    let resume = resume.unwrap_or_else(|| panic!("{stderr}"));
    assert!(table_dirs(out.path()).is_empty(), "an unfinished table is not written");

    let again = Command::new("sh").args(["-c", resume]).output().unwrap();
    let first_line = success(&again).lines().next().unwrap().to_string();
    assert!(!first_line.contains("nothing left to do"), "{first_line}");
    assert_as_uninterrupted(out.path());
}

/// Two stages run at a time on two cores, however many the table has. The promise is 500 MB for all of it.
#[test]
#[cfg(target_os = "linux")]
fn a_run_fits_in_100_megabytes() {
    let out = tempfile::tempdir().unwrap();
    let args = [
        "run",
        "--table",
        "b1",
        "--profile",
        "smoke",
        "--cells",
        "uniform:*",
        "--epochs",
        "1",
        "--jobs",
        "2",
        "--threads",
        "2",
        "--quiet",
    ];
    let mut child = engine(&args).arg("--out").arg(out.path()).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kb = 0;
    let exit = loop {
        // A process that has just ended has a status without memory.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak_kb = line.map_or(peak_kb, |kb| kb.trim().trim_end_matches(" kB").parse().unwrap());
        match child.try_wait().unwrap() {
            Some(exit) => break exit,
            None => sleep(Duration::from_millis(5)),
        }
    };
    assert!(exit.success());
    // The binary alone, with its embedded images, is some megabytes: less would mean that nothing was measured.
    assert!((10_000..100_000).contains(&peak_kb), "{peak_kb} kB");
}
