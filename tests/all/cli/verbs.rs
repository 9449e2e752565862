//! What each verb prints and writes when all is well.

use std::process::Stdio;

use engine::backend::cuda::runtime::modules;

use super::{MOMENT, engine, finished, run, stage_dirs, success, table_dir};

fn stdout(args: &[&str]) -> String {
    success(&engine(args).output().unwrap())
}

#[test]
fn list_shows_every_table() {
    let text = stdout(&["run", "--list"]);
    let ids: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(ids, ["a1", "b1", "c1", "fashion", "t2", "t3", "t4"]);
    assert!(text.contains("(21 cells)"), "{text}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    for args in [&["run", "--list"][..], &["data", "list"], &["doctor"], &["run", "--help"]] {
        let mut child = engine(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
}

#[test]
fn every_verb_has_help() {
    let all = stdout(&["--help"]);
    for verb in ["run", "train", "prune", "attack", "eval", "export", "data", "doctor", "bench"] {
        assert!(all.lines().any(|line| line.trim_start().starts_with(verb)), "{all}");
        assert!(stdout(&[verb, "--help"]).contains(&format!("Usage: engine {verb}")));
    }
    let nothing = engine(&[]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("Usage: engine <COMMAND>"));
}

#[test]
fn a_run_writes_its_files_and_a_finished_one_costs_nothing() {
    let table = table_dir(finished());
    for file in ["table.csv", "table.md", "table.svg", "run.json", "curves/scratch-xavier_normal-adam-0.svg"] {
        assert!(table.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let out = super::copy_of_finished();
    let text = success(&run(MOMENT, out.path()));
    let first = text.lines().next().unwrap();
    for expected in ["b1 smoke", "cpu f32", "embedded sample", "1 finished", "nothing left to do", "results in"] {
        assert!(first.contains(expected), "{first}");
    }
    assert!(text.contains("NOT comparable with the published numbers: "), "{text}");
}

/// The numbers of the stage, in the columns of their names, and the record of the run.
#[test]
fn a_table_says_what_its_stage_has_found() {
    let (table, stage) = (table_dir(finished()), &stage_dirs(finished())[0]);
    let json = |path: std::path::PathBuf| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let (result, record) = (json(stage.join("result.json")), json(table.join("run.json")));
    let key = stage.file_name().unwrap().to_str().unwrap();
    let mut reader = csv::Reader::from_path(table.join("table.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, column: &str| &rows[row][header.iter().position(|name| name == column).unwrap()];
    assert_eq!([cell(0, "seed"), cell(1, "seed")], ["0", "mean"]);
    for column in ["natural", "adversarial"] {
        let found = result["selected"]["test"][column].as_f64().unwrap();
        let found = ((found * 100.0).round() / 100.0).to_string();
        assert_eq!([cell(0, column), cell(1, column)], [&*found, &*found], "{column}");
        assert_eq!(cell(0, &format!("paper_{column}")), "11.35");
    }
    assert_eq!((cell(0, "stage"), cell(0, "collapsed")), (key, &*result["collapsed"].to_string()));
    assert_eq!((cell(0, "profile"), cell(0, "epochs"), cell(0, "attack")), ("smoke", "1", "pgd-1"));

    let [machine, data] = [&record["machine"], &record["data"][0]];
    assert_eq!(
        (&record["table"], &record["profile"], &record["seeds"]),
        (&"b1".into(), &"smoke".into(), &vec![0].into())
    );
    assert_eq!((&machine["backend"], &data["origin"]), (&"cpu".into(), &"embedded sample".into()));
    assert_eq!((&data["id"]["name"], &data["id"]["subset"]), (&"mnist".into(), &"sample".into()));
    assert_eq!(record["config"][0]["cell"], "scratch xavier_normal:adam seed 0");
    assert_eq!(record["config"][0]["stage"], key);
    let config = &record["config"][0]["chain"][0];
    assert_eq!((&config["init"], &config["attack"]["steps"]), (&"xavier_normal".into(), &1.into()));
    let command: Vec<&str> = record["command"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert_eq!(command[1..=MOMENT.len()], *MOMENT);
    let wall = record["wall_seconds"].as_f64().unwrap();
    assert!(wall >= result["seconds"].as_f64().unwrap() && wall < 600.0, "{wall}");
    let curves = std::fs::read_to_string(table.join("curves/scratch-xavier_normal-adam-0.svg")).unwrap();
    assert!(curves.contains("scratch xavier_normal:adam seed 0"));
}

#[test]
fn a_run_that_is_not_quiet_tells_what_is_done() {
    let out = tempfile::tempdir().unwrap();
    let args: Vec<&str> = MOMENT.iter().copied().filter(|arg| *arg != "--quiet").collect();
    let output = run(&args, out.path());
    success(&output);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("done  scratch xavier_normal:adam seed 0: "), "{stderr}");
    assert!(!stderr.contains('\x1b'), "no terminal, no control characters: {stderr:?}");
}

#[test]
fn eval_agrees_with_the_training_that_made_the_model() {
    let stage = &stage_dirs(finished())[0];
    let result: serde_json::Value = serde_json::from_slice(&std::fs::read(stage.join("result.json")).unwrap()).unwrap();
    let model = stage.join("model.safetensors");
    // The attack of `MOMENT`: that of the smoke profile with one step.
    let attack = ["--eps", "0.3", "--step-size", "0.04", "--attack-steps", "1"];
    let text = stdout(&[&["eval", "--sample", "--model", model.to_str().unwrap()], &attack[..]].concat());
    for name in ["natural", "adversarial"] {
        let expected = format!("{:.2}", result["selected"]["test"][name].as_f64().unwrap());
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line.split_whitespace().last(), Some(&*expected), "{text}");
    }
}

#[test]
fn train_leaves_a_model_and_resumes_for_nothing() {
    let out = tempfile::tempdir().unwrap();
    let args = ["train", "--sample", "--attack-steps", "1", "--epochs", "1", "--restarts", "2", "--quiet"];
    let first = success(&run(&args, out.path()));
    let model = first.lines().find_map(|line| line.strip_prefix("model: ")).unwrap();
    assert!(std::path::Path::new(model).exists());
    let second = success(&run(&args, out.path()));
    assert!(second.contains("nothing left to do"), "{second}");
    assert_eq!(first.lines().skip(1).collect::<Vec<_>>(), second.lines().skip(1).collect::<Vec<_>>());
}

#[test]
fn data_list_verify_and_sample() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().to_str().unwrap();
    let text = stdout(&["data", "list", "--data", dir]);
    for expected in
        ["mnist          not found", "3000 + 1000 images of 1×28×28, embedded sample", "800 + 200 images of 3×32×32"]
    {
        assert!(text.contains(expected), "{text}");
    }
    let text = success(&run(&["data", "sample"], out.path()));
    assert_eq!(text.lines().count(), 3, "{text}");
    let text = stdout(&["data", "verify", "--data", dir]);
    assert_eq!(text.lines().count(), 4 + 4 + 6, "{text}");
    let text = stdout(&["data", "list", "--data", dir]);
    assert!(text.contains(&format!("in {dir}/mnist")), "{text}");
    // What is there is not replaced.
    let line = super::error_line(&run(&["data", "sample", "--data-set", "mnist"], out.path()), 2);
    super::assert_contains(&line, &["exists already", "--out"]);
}

/// `--data`, then `ENGINE_DATA`, then the platform's directory.
#[test]
fn data_are_looked_for_in_the_documented_order() {
    let [flag, env, platform] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for (dir, below) in [(&flag, ""), (&env, ""), (&platform, "engine")] {
        success(&run(&["data", "sample", "--data-set", "mnist"], &dir.path().join(below)));
    }
    let place = |args: &[&str], with_env: bool, with_platform: bool| {
        let mut command = engine(&[&["data", "list"], args].concat());
        if with_env {
            command.env("ENGINE_DATA", env.path());
        }
        if with_platform {
            command.env("XDG_DATA_HOME", platform.path());
        }
        let text = success(&command.output().unwrap());
        let line = text.lines().find(|line| line.starts_with("mnist ")).unwrap().to_string();
        line.split_once(", in ").map_or(line.clone(), |(_, place)| place.to_string())
    };
    let dir = |dir: &tempfile::TempDir, below: &str| dir.path().join(below).display().to_string();
    let data = ["--data", flag.path().to_str().unwrap()];
    assert_eq!(place(&data, true, true), dir(&flag, "mnist"));
    assert_eq!(place(&[], true, true), dir(&env, "mnist"));
    assert_eq!(place(&[], false, true), dir(&platform, "engine/mnist"));
    assert!(place(&[], false, false).contains("not found"));
    let empty = tempfile::tempdir().unwrap();
    assert!(place(&["--data", empty.path().to_str().unwrap()], true, true).contains("not found"), "and nothing else");
}

#[test]
fn doctor_tells_the_truth() {
    let text = stdout(&["doctor"]);
    let cpu = engine::backend::cpu::Cpu::<f32>::new(1).unwrap();
    for expected in [env!("CARGO_PKG_VERSION"), cpu.vector_path().name(), "commit", "cifar10"] {
        assert!(text.contains(expected), "no '{expected}' in {text}");
    }
    let line =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    super::assert_contains(line("gpu "), &["none: ", "NVIDIA driver"]);
    super::assert_contains(line("auto "), &["cpu, because ", "NVIDIA driver"]);
    let kernels = if modules::built_with().is_some() { "embedded for 80, " } else { "built without NVRTC" };
    super::assert_contains(line("kernels "), &[kernels]);
    // Which NVRTC there is, is the machine's affair; that none is found can be had everywhere.
    let without = super::engine(&["doctor"]).env("ENGINE_NVRTC", "none").output().unwrap();
    let without = success(&without);
    assert!(without.contains("nvrtc    none, needed only where no kernels are embedded: "), "{without}");
    let out = tempfile::tempdir().unwrap();
    success(&run(&["data", "sample", "--data-set", "mnist"], out.path()));
    let text = stdout(&["doctor", "--data", out.path().to_str().unwrap()]);
    assert!(text.contains(&format!("mnist          {}/mnist", out.path().display())), "{text}");
}

#[test]
fn bench_prints_the_peers_columns() {
    let peer = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/pytorch_cpu.py")).unwrap();
    let bounds = ["--batch", "20", "--threads", "1", "--repeat", "2", "--seconds", "1"];
    for (flags, task, attack_steps) in [(&["--steps", "2"][..], "step", "2"), (&["--forward"], "forward", "0")] {
        let text = stdout(&[&["bench"], &bounds[..], flags].concat());
        let [header, line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(peer.contains(&format!("\"{header}\"")), "{header}");
        let values: Vec<&str> = line.split(',').collect();
        assert_eq!(values.len(), header.split(',').count(), "{line}");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(values[..8], ["lenet", "1", "20", task, attack_steps, "engine", "1", version]);
        assert!([8, 9].iter().all(|&column| values[column].parse::<f64>().unwrap() > 0.0), "{line}");
        // The system says how much memory was used, or the column is empty.
        assert!(!cfg!(target_os = "linux") || values[10].parse::<f64>().unwrap() > 1.0, "{line}");
    }
}

#[test]
fn bench_times_a_step_or_a_pass() {
    let output = engine(&["bench", "--forward", "--steps", "3"]).output().unwrap();
    let line = super::error_line(&output, 2);
    super::assert_contains(&line, &["--forward", "--steps"]);
}
