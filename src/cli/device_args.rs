//! Flags that choose what computes.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use clap::Args;

use crate::backend::cuda::{self, Cuda, F32};
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::base::nvtx;
use crate::experiments::pipeline::{AnyBackend, BackendName, BackendSpec, Precision};

named_enum! {
    /// Backends by name, as a user asks for them.
    pub enum BackendChoice: "backend" {
        /// A GPU where there is one, else the CPU.
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// An NVIDIA GPU.
        Cuda = "cuda",
    }
}

#[derive(Args)]
pub struct DeviceArgs {
    /// Device that computes
    #[arg(long, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
    /// Number format of activations
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// CPU threads, of all stages together [default: one a core]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        allow_negative_numbers = true
    )]
    threads: Option<u16>,
    /// Mark everything with NVTX ranges, and let a profiler record this many steady steps of a training
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    profile_steps: Option<u32>,
}

/// The device that computes.
#[derive(Clone, Debug)]
pub struct Device {
    pub backend: BackendName,
    pub precision: Precision,
    /// CPU threads in all.
    pub threads: usize,
    /// Name of the GPU, if that computes.
    pub gpu: Option<String>,
}

impl DeviceArgs {
    /// The flags that decide the numbers, for the name of a directory: `-cuda-bf16`.
    pub fn suffix(&self) -> String {
        let backend = match self.backend {
            BackendChoice::Auto => String::new(),
            chosen => format!("-{chosen}"),
        };
        let precision = match self.precision {
            Precision::F32 => String::new(),
            precision => format!("-{precision}"),
        };
        backend + &precision
    }

    /// # Errors
    /// [`Error::Usage`] for what this build or this machine does not have.
    pub fn resolve(&self) -> Result<Device> {
        if let Some(steps) = self.profile_steps {
            nvtx::profile_steps(steps.into());
        }
        let gpu = match self.backend {
            BackendChoice::Cpu => None,
            // A GPU that cannot be used is worth a word only to those who asked for it, and to `engine doctor`.
            BackendChoice::Auto => usable_gpu().ok(),
            BackendChoice::Cuda => Some(usable_gpu().map_err(|why| {
                Error::Usage(format!(
                    "--backend cuda: {why}; `engine doctor` shows what is found, --backend cpu needs no GPU"
                ))
            })?),
        };
        let backend = if gpu.is_some() { BackendName::Cuda } else { BackendName::Cpu };
        if self.precision == Precision::Bf16 && backend == BackendName::Cpu {
            let why = "--precision bf16: only a GPU computes in bf16, and the CPU is what computes here; drop the flag";
            return Err(Error::Usage(why.to_string()));
        }
        let threads = self.threads.map_or_else(cores, usize::from);
        Ok(Device { backend, precision: self.precision, threads, gpu })
    }
}

/// The name of the GPU, if there is one and the kernels are there for it; or why not.
pub fn usable_gpu() -> Result<String, String> {
    let gpu = cuda::gpu()?;
    Cuda::<F32>::new().map_err(|error| error.to_string())?;
    Ok(gpu.name)
}

impl Device {
    /// A backend with all threads.
    ///
    /// # Errors
    /// As [`BackendSpec::start`].
    pub fn start(&self) -> Result<AnyBackend> {
        self.spec().start()
    }

    /// Backends that have all threads together.
    pub fn spec(&self) -> BackendSpec {
        BackendSpec { name: self.backend, precision: self.precision, threads: self.threads }
    }

    /// `cpu f32, threads: 2`, or `cuda f32 on NVIDIA H200`.
    pub fn describe(&self) -> String {
        let Device { backend, precision, threads, gpu } = self;
        match gpu {
            Some(name) => format!("{backend} {precision} on {name}"),
            None => format!("{backend} {precision}, threads: {threads}"),
        }
    }
}

/// Cores this process may use.
pub fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}
