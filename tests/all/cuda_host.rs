//! The CUDA kernels compiled for the host (`tests/cuda_host/README.md`): a driver that runs them, every access checked.
//!
//! - `build`: the shared library, made by the system's C++ compiler
//! - `driver`: the library as a [`Driver`]
//! - `planted`: bugs that it must catch

pub mod build;
mod driver;
mod planted;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use engine::backend::cuda::runtime::driver::Driver;
use engine::backend::cuda::{Bf16, Cuda, F32, Submission, kernels};

use crate::skip::{Missing, or_skip};
use driver::HostDriver;
pub use driver::{Library, launched};

/// The library of all kernels; `ENGINE_HOST_KERNELS` names one that is already made.
pub fn library() -> Result<&'static Library, &'static str> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let make = || {
        let path = match std::env::var_os("ENGINE_HOST_KERNELS") {
            Some(path) => PathBuf::from(path),
            None => {
                let all = kernels();
                let mut files: Vec<&str> = all.iter().map(|kernel| kernel.file).collect();
                files.dedup();
                let names = |file: &str| all.iter().filter(|k| k.file == file).map(|k| k.name).collect::<Vec<_>>();
                let units: Vec<_> = files.iter().map(|file| build::Unit { file, kernels: names(file) }).collect();
                build::library(&units)?
            }
        };
        Library::open(&path)
    };
    LIBRARY.get_or_init(make).as_ref().map_err(String::as_str)
}

/// A device that runs the kernels on the host.
pub fn driver() -> Option<Arc<dyn Driver>> {
    or_skip(Missing::Compiler, library()).map(|library| Arc::new(HostDriver::new(library)) as Arc<dyn Driver>)
}

/// A backend on such a device.
pub fn backend() -> Option<Cuda<F32>> {
    driver().map(|driver| Cuda::<F32>::with_driver(driver, Submission::Graphs).unwrap())
}

/// One in bf16.
pub fn bf16() -> Option<Cuda<Bf16>> {
    driver().map(|driver| Cuda::<Bf16>::with_driver(driver, Submission::Graphs).unwrap())
}

#[test]
fn the_library_has_every_kernel_of_the_launch_table() {
    let Some(driver) = driver() else { return };
    for kernel in kernels() {
        driver.function(kernel.name).unwrap_or_else(|why| panic!("{}: {why}", kernel.name));
    }
}
