//! Flags that choose what computes.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use clap::Args;

use crate::choice::choice;
use crate::error::{Error, Result};
use crate::pipeline::{BackendName, Precision};

choice! {
    /// What the user may ask for.
    pub enum BackendChoice: "backend" {
        /// The fastest there is.
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// An NVIDIA GPU.
        Cuda = "cuda",
    }
}

#[derive(Args)]
pub struct DeviceArgs {
    /// auto, cpu or cuda
    #[arg(long, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
    /// f32 or bf16
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// CPU threads [default: one a core]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        allow_negative_numbers = true
    )]
    threads: Option<u16>,
}

/// What computes.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    pub backend: BackendName,
    pub precision: Precision,
    /// CPU threads in all.
    pub threads: usize,
}

impl DeviceArgs {
    /// # Errors
    /// [`Error::Usage`] for what this build does not have.
    pub fn resolve(&self) -> Result<Device> {
        if self.backend == BackendChoice::Cuda {
            return Err(Error::Usage("--backend cuda: this build has no CUDA backend; use --backend cpu".to_string()));
        }
        if self.precision == Precision::Bf16 {
            return Err(Error::Usage("--precision bf16: the CPU backend computes in f32; drop the flag".to_string()));
        }
        let threads = self.threads.map_or_else(cores, usize::from);
        Ok(Device { backend: BackendName::Cpu, precision: self.precision, threads })
    }
}

/// Cores this process may use.
pub fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}
