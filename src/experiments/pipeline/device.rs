//! Starts a backend by its name, and runs generic code on it.

use super::stage::{BackendName, Precision};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{Bf16, Cuda, F32};
use crate::base::error::{Error, Result};

/// A backend by name, and the threads it may use.
#[derive(Clone, Copy, Debug)]
pub struct BackendSpec {
    /// The kind of backend.
    pub name: BackendName,
    /// Number format of activations.
    pub precision: Precision,
    /// Threads of a CPU backend.
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
    /// A new backend: the CPU with threads of its own, or a stream of the GPU.
    ///
    /// # Errors
    /// [`Error::Usage`] for a combination that does not exist, [`Error::Failed`] if the device does not start.
    pub fn start(self) -> Result<AnyBackend> {
        Ok(match (self.name, self.precision) {
            (BackendName::Cpu, Precision::F32) => AnyBackend::Cpu(Cpu::new(self.threads)?),
            (BackendName::Cuda, Precision::F32) => AnyBackend::CudaF32(Cuda::new()?),
            (BackendName::Cuda, Precision::Bf16) => AnyBackend::CudaBf16(Cuda::new()?),
            (BackendName::Cpu, Precision::Bf16) => {
                return Err(Error::Usage("--precision bf16 needs a GPU; the CPU computes in f32".to_string()));
            }
        })
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
