//! What the binary says where there is a driver: one that stands in for NVIDIA's and finds a GPU of compute capability 9.0.

use std::path::Path;
use std::process::Output;

use engine::backend::cuda::modules;

use super::{assert_contains, engine, error_line, success};
use crate::cuda_host::{build, or_skip};

/// Builds the stand-in as `libcuda.so.1` in `dir`.
fn stand_in(dir: &Path) -> Option<()> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/all/cli/stand_in_driver.cpp");
    let built = build::compiler(dir).and_then(|compiler| {
        build::run(compiler.to_command().args(["-shared", "-fPIC", source, "-o"]).arg(dir.join("libcuda.so.1")))
    });
    or_skip(built.as_ref().map(|()| ()).map_err(String::as_str))
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
