//! Starts a backend by its name, and runs generic code on it.

use std::sync::Arc;

use super::stage::{BackendName, Precision};
use crate::backend::cpu::{Cores, Cpu, Running};
use crate::backend::cuda::{Bf16, Cuda, F32};
use crate::base::error::{Error, Result};

/// A backend by name, and the threads that it and those beside it may use.
#[derive(Clone, Copy, Debug)]
pub struct BackendSpec {
    /// The kind of backend.
    pub name: BackendName,
    /// Number format of activations.
    pub precision: Precision,
    /// Threads in all of the CPU backends that run side by side.
    pub threads: usize,
}

/// A backend of a kind that is known only at run time. The macro `on_backend!` runs code that is generic over the backend on it.
pub enum AnyBackend {
    /// The CPU.
    Cpu(Cpu<f32>),
    /// A stream of the GPU, computing in single precision.
    CudaF32(Cuda<F32>),
    /// A stream of the GPU, computing in mixed precision.
    CudaBf16(Cuda<Bf16>),
}

impl BackendSpec {
    /// A new backend with cores of its own.
    ///
    /// # Errors
    /// As [`BackendSpec::start_on`].
    pub fn start(self) -> Result<AnyBackend> {
        self.start_on(&Cores::new(self.threads))
    }

    /// A new backend: the CPU as one of those that share `cores`, or a stream of the GPU.
    ///
    /// # Errors
    /// [`Error::Usage`] for a combination that does not exist, [`Error::Failed`] if the device does not start.
    pub fn start_on(self, cores: &Arc<Cores>) -> Result<AnyBackend> {
        Ok(match (self.name, self.precision) {
            (BackendName::Cpu, Precision::F32) => AnyBackend::Cpu(Cpu::on_cores(cores)?),
            (BackendName::Cuda, Precision::F32) => AnyBackend::CudaF32(Cuda::new()?),
            (BackendName::Cuda, Precision::Bf16) => AnyBackend::CudaBf16(Cuda::new()?),
            (BackendName::Cpu, Precision::Bf16) => {
                return Err(Error::Usage("--precision bf16 needs a GPU; the CPU computes in f32".to_string()));
            }
        })
    }
}

impl AnyBackend {
    /// Counts as one of the backends that run, for the CPU's division of the cores, until what is returned is dropped.
    pub fn enter(&self) -> Option<Running> {
        match self {
            AnyBackend::Cpu(cpu) => Some(cpu.enter()),
            AnyBackend::CudaF32(_) | AnyBackend::CudaBf16(_) => None,
        }
    }
}

/// Evaluates an expression in which `$backend` is the backend that `$any`, a reference to an [`AnyBackend`], holds.
macro_rules! on_backend {
    ($any:expr, |$backend:ident| $body:expr) => {
        match $any {
            $crate::experiments::pipeline::AnyBackend::Cpu($backend) => $body,
            $crate::experiments::pipeline::AnyBackend::CudaF32($backend) => $body,
            $crate::experiments::pipeline::AnyBackend::CudaBf16($backend) => $body,
        }
    };
}

pub(crate) use on_backend;
