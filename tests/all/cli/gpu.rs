//! The binary where there is a driver: one that stands in for NVIDIA's, finds a GPU of compute capability 9.0, and runs the
//! kernels compiled for the host in its place.

use std::path::{Path, PathBuf};
use std::process::Output;

use engine::backend::cuda::runtime::modules;
use tempfile::TempDir;

use super::{assert_contains, engine, error_line, success};
use crate::compare::assert_close;
use crate::cuda_host::{build, library};
use crate::kernels::NOTHING_EMBEDDED;
use crate::skip::{Missing, or_skip, skip};

/// Builds the stand-in as `libcuda.so.1` in `dir`.
fn stand_in(dir: &Path) -> Option<()> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/all/cli/stand_in_driver.cpp");
    let built = build::compiler(dir).and_then(|compiler| {
        build::run(compiler.to_command().args(["-shared", "-fPIC", source, "-o"]).arg(dir.join("libcuda.so.1")))
    });
    or_skip(Missing::Compiler, built)
}

/// A directory with the stand-in, and the library of kernels that it runs.
fn stand_in_with_kernels() -> Option<(TempDir, &'static Path)> {
    let dir = tempfile::tempdir().unwrap();
    stand_in(dir.path())?;
    let library = or_skip(Missing::Compiler, library())?;
    if modules::built_with().is_none() {
        skip(Missing::Nvrtc, NOTHING_EMBEDDED);
        return None;
    }
    Some((dir, library.path()))
}

/// Leaves the stand-in and the library of kernels in the directory that STAND_IN_DIR names.
#[test]
#[ignore = "for benches/gpu-rehearsal.sh"]
fn stand_in_for_the_rehearsal() {
    let dir = PathBuf::from(std::env::var_os("STAND_IN_DIR").expect("STAND_IN_DIR"));
    stand_in(&dir).expect("a C++ compiler");
    std::fs::copy(library().unwrap().path(), dir.join("libkernels.so")).unwrap();
}

fn with_driver(dir: &Path, args: &[&str], how: &str) -> Output {
    engine(args).env("LD_LIBRARY_PATH", dir).env("STAND_IN", how).env("ENGINE_NVRTC", "none").output().unwrap()
}

#[test]
fn doctor_sees_driver_and_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = stand_in(dir.path()) else { return };
    let line =
        |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_string();
    let text = success(&with_driver(dir.path(), &["doctor"], ""));
    let gpu = "gpu      Stand-in GPU, compute capability 9.0, 80.0 GiB, driver for CUDA 12.0";
    assert_eq!(line(&text, "gpu "), gpu, "{text}");
    match modules::built_with() {
        Some(_) => {
            assert_eq!(line(&text, "auto "), "auto     cuda on Stand-in GPU", "{text}");
            let why = "launches one after the other: the driver is for CUDA 12.0, and 12.3 is needed";
            assert_eq!(line(&text, "launches "), why, "{text}");
            assert!(line(&text, "kernels ").contains("embedded for 80, 90a"), "{text}");
            // Kernels that the driver does not find are an answer too.
            let text = success(&with_driver(dir.path(), &["doctor"], "other-kernels"));
            assert_contains(&line(&text, "auto "), &["cpu, because ", "kernel ", "named symbol not found"]);
        }
        None => assert_contains(&line(&text, "auto "), &["cpu, because ", "built without NVRTC", "pip install"]),
    }
    let text = success(&with_driver(dir.path(), &["doctor"], "no-gpu"));
    assert_eq!(line(&text, "gpu "), "gpu      none: the NVIDIA driver finds no GPU", "{text}");
}

#[test]
fn asking_for_a_gpu_that_is_not_there_is_an_error_of_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = stand_in(dir.path()) else { return };
    let line = error_line(&with_driver(dir.path(), &["bench", "--backend", "cuda"], "no-gpu"), 2);
    assert_contains(&line, &["--backend cuda: the NVIDIA driver finds no GPU", "engine doctor", "--backend cpu"]);
}

/// Whether the launches of a step overlap, and why not.
#[test]
fn doctor_says_whether_launches_overlap() {
    let Some((dir, library)) = stand_in_with_kernels() else { return };
    let said = |name: &str, value: &str| {
        let mut command = engine(&["doctor"]);
        command.env("LD_LIBRARY_PATH", dir.path()).env("STAND_IN_KERNELS", library).env(name, value);
        let text = success(&command.output().unwrap());
        text.lines().find(|line| line.starts_with("launches ")).unwrap_or(&text).to_string()
    };
    assert_eq!(said("ENGINE_CUDA", "graphs"), "launches those of a training step overlap");
    assert_eq!(said("ENGINE_CUDA", "serial"), "launches one after the other: ENGINE_CUDA asks for that");
    let why = "launches one after the other: the GPU has compute capability 8.9, and 9.0 is needed";
    assert_eq!(said("STAND_IN", "ada"), why);
}

/// A line for each kernel and shape, and a table of tiles to which a second network is added.
#[test]
fn kernels_are_timed_and_tiles_are_tuned() {
    let Some((dir, library)) = stand_in_with_kernels() else { return };
    let bench = |args: &[&str]| {
        let common = ["bench", "--backend", "cuda", "--batch", "2", "--steps", "1"];
        let mut command = engine(&[&common, args].concat());
        command.env("LD_LIBRARY_PATH", dir.path()).env("STAND_IN_KERNELS", library).output().unwrap()
    };
    let text = success(&bench(&["--kernels"]));
    let rows: Vec<csv::StringRecord> =
        csv::Reader::from_reader(text.as_bytes()).records().map(Result::unwrap).collect();
    let of = |kernel: &str| rows.iter().filter(|row| row[0].starts_with(kernel)).collect::<Vec<_>>();
    assert!(matches!(of("lenet_attack")[..], [attack] if attack[6].parse::<f64>().is_ok()), "{text}");
    let convolutions = of("conv2d_fwd");
    assert!(convolutions.len() == 2 && convolutions.iter().all(|row| &row[2] == "1"), "{text}");
    for row in &rows {
        let [launches, microseconds, total, share] = [2, 3, 4, 5].map(|column| row[column].parse::<f64>().unwrap());
        assert!(launches >= 1.0 && microseconds > 0.0 && total >= microseconds - 0.1 && share <= 100.0, "{row:?}");
        assert!(row[7].parse::<f64>().is_ok_and(|rate| rate >= 0.0), "{row:?}");
    }

    let table = dir.path().join("tiles.csv");
    let tune = |network: &str| {
        let args = ["--precision", "bf16", "--network", network, "--tune", table.to_str().unwrap()];
        success(&bench(&args));
        csv::Reader::from_path(&table).unwrap().records().map(Result::unwrap).collect::<Vec<_>>()
    };
    let first = tune("lenet");
    // Two convolutions, the first of which needs no input gradient on an image but in the attack.
    let passes: Vec<&str> = first.iter().map(|row| &row[0]).collect();
    assert_eq!(passes, ["forward", "forward", "input_gradient", "weight_gradient", "weight_gradient"], "{first:?}");
    let both = tune("lenet-cifar");
    assert!(both.len() > first.len() && first.iter().all(|row| both.contains(row)), "{both:?}");

    std::fs::write(&table, "forward\n1\n").unwrap();
    let line = error_line(&bench(&["--precision", "bf16", "--tune", table.to_str().unwrap()]), 2);
    assert_contains(&line, &["tiles.csv", "is no table of tiles", "--tune"]);
    let line = error_line(&bench(&["--tune", table.to_str().unwrap()]), 2);
    assert_contains(&line, &["--tune", "--precision bf16"]);
}

/// Trains with graphs, as on a GPU, or launch by launch, and on the CPU: the loss of an epoch is the same, in bf16 nearly.
#[test]
fn training_goes_through_the_driver() {
    let Some((dir, library)) = stand_in_with_kernels() else { return };
    let loss = |backend: &str, precision: &str, submission: &str| {
        let out = dir.path().join(format!("{backend}-{precision}-{submission}"));
        let mut args = vec![
            "run",
            "--table",
            "b1",
            "--profile",
            "smoke",
            "--cells",
            "kaiming_normal:adam",
            "--seeds",
            "1",
            "--epochs",
            "1",
        ];
        args.extend(["--train-images", "60", "--test-images", "10", "--quiet"]);
        args.extend(["--backend", backend, "--precision", precision]);
        for set in ["attack.steps=2", "eval_attack.steps=2", "held_out=10", "batch=20"] {
            args.extend(["--set", set]);
        }
        let mut command = engine(&args);
        command.env("LD_LIBRARY_PATH", dir.path()).env("STAND_IN_KERNELS", library);
        let text = success(&command.env("ENGINE_CUDA", submission).arg("--out").arg(&out).output().unwrap());
        assert!(backend == "cpu" || text.contains(&format!("cuda {precision} on Stand-in GPU")), "{text}");
        let stages = std::fs::read_dir(out.join("store")).unwrap().map(|entry| entry.unwrap().path());
        let metrics: Vec<_> = stages.map(|stage| stage.join("metrics.csv")).filter(|path| path.exists()).collect();
        assert_eq!(metrics.len(), 1, "{metrics:?}");
        let mut rows = csv::Reader::from_path(&metrics[0]).unwrap();
        let row: engine::train::EpochRow = rows.deserialize().next().unwrap().unwrap();
        row.train_loss
    };
    let on_the_cpu = loss("cpu", "f32", "graphs");
    for (precision, rtol) in [("f32", 1e-4), ("bf16", 1e-2)] {
        let graphs = loss("cuda", precision, "graphs");
        for submission in ["serial", "single"] {
            assert_eq!(graphs.to_bits(), loss("cuda", precision, submission).to_bits(), "{submission}");
        }
        assert_close(precision, &[graphs], &[on_the_cpu], rtol, 0.0);
    }
}
