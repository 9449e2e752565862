//! From a backend's name to the backend.

use super::stage::{BackendName, Precision};
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{Bf16, Cuda, F32};
use crate::base::error::{Error, Result};

/// Work that every backend can do.
pub trait Task {
    /// What comes of it.
    type Output;

    /// Does it on `backend`.
    ///
    /// # Errors
    /// The work's own.
    fn run<B: Backend>(self, backend: &B) -> Result<Self::Output>;
}

/// Does `task` on a new backend: the CPU with `threads` threads, or a stream of the GPU.
///
/// # Errors
/// [`Error::Usage`] for a combination that does not exist, [`Error::Failed`] if the device does not start; the task's own.
pub fn on_backend<T: Task>(backend: BackendName, precision: Precision, threads: usize, task: T) -> Result<T::Output> {
    match (backend, precision) {
        (BackendName::Cpu, Precision::F32) => task.run(&Cpu::<f32>::new(threads)?),
        (BackendName::Cuda, Precision::F32) => task.run(&Cuda::<F32>::new()?),
        (BackendName::Cuda, Precision::Bf16) => task.run(&Cuda::<Bf16>::new()?),
        (BackendName::Cpu, Precision::Bf16) => {
            Err(Error::Usage("--precision bf16 needs a GPU; the CPU computes in f32".to_string()))
        }
    }
}
