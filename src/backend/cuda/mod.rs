//! The CUDA backend: hand-written kernels (`kernels/`), one family a file, launched by the family's file in `f32` or `bf16`.
//!
//! **Precision.** `Cuda<F32>` computes in f32, `Cuda<Bf16>` in mixed precision ([`bf16`]). Families that are f32 in both are written
//! once, for any precision ([`mod@f32`]).
//!
//! **Layout.** Parameters are f32 in PyTorch's order. A batch in f32 is NCHW without padding; for one in bf16 see [`bf16`].
//!
//! **Order.** A backend is one stream: kernels run one after the other, and each may use what the ones before it wrote.
//! Several backends on one device run side by side.
//!
//! **Errors** are kept until [`Memory::status`] is asked, as CUDA itself does; after one nothing is launched any more.
//!
//! **Steps.** Inside [`Memory::capture`] launches are only recorded. At its end they become a CUDA graph, or, where an
//! earlier step had the same kernels in the same order, the arguments that have changed are set in its graph; then the
//! graph is launched. So a repeated step costs one submission, and nothing that varies from step to step has to be
//! declared in advance.

mod activation;
pub mod bf16;
pub mod f32;
mod precision;
pub mod runtime;
mod tuning;

use std::ops::{Deref, Range};
use std::sync::{Arc, LazyLock};

use super::Memory;
use crate::base::error::{Error, Result};
pub use bf16::Bf16;
pub use f32::F32;
use precision::PlainBuf;
pub use precision::Precision;
pub use runtime::allocator::{Device, MemoryUse};
pub use runtime::context::Context;
use runtime::driver::Driver;
use runtime::kernel::{Declared, KernelSpec};
pub use runtime::nvidia::{GpuInfo, cuda_version, gpu};
pub use runtime::queue::Submission;
pub use runtime::timing::Timing;

/// The kernels of every family; those of a launch are counted in this order.
const KERNELS: &[&[&[Declared]]] = &[f32::KERNELS, bf16::KERNELS];

/// The prototypes of all kernels, by their indices.
pub fn kernels() -> &'static [KernelSpec] {
    static SPECS: LazyLock<Vec<KernelSpec>> = LazyLock::new(|| {
        let declared = KERNELS.iter().flat_map(|families| families.iter().flat_map(|kernels| kernels.iter()));
        declared.flat_map(Declared::specs).collect()
    });
    &SPECS
}

/// Whether launches of a step overlap on the first visible GPU, or in one line why not.
pub fn launches_overlap() -> Result<(), String> {
    match Submission::chosen().map_err(|e| e.to_string())? {
        Submission::Graphs => runtime::nvidia::launches_overlap(),
        _ => Err("ENGINE_CUDA asks for that".to_string()),
    }
}

/// A GPU, or a driver that stands in for one, as a device that computes in precision `P`.
pub struct Cuda<P: Precision> {
    context: Arc<Context>,
    precision: P,
}

impl<P: Precision> Cuda<P> {
    /// A backend with a stream of its own on the first visible GPU. `ENGINE_CUDA` says how launches reach it: `graphs` (the
    /// default), `serial`, `single` or `waiting`.
    ///
    /// # Errors
    /// [`Error::Failed`] saying what is missing: a driver, a GPU, or kernels for it.
    pub fn new() -> Result<Self> {
        Cuda::on_gpu(Submission::chosen()?)
    }

    /// A backend that times each kernel ([`Context::timings`]); its results are meaningless.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn timed() -> Result<Self> {
        Cuda::on_gpu(Submission::Timed)
    }

    fn on_gpu(how: Submission) -> Result<Self> {
        let context = Context::new(Arc::new(runtime::nvidia::Nvidia::open()?), kernels(), how)?;
        let gpu = gpu().map_err(Error::Failed)?;
        Ok(Cuda::of(context, Some(gpu.compute_capability)))
    }

    /// A backend on a driver.
    ///
    /// # Errors
    /// [`Error::Failed`] if the driver lacks a kernel, or has one with other parameters.
    pub fn with_driver(driver: Arc<dyn Driver>, how: Submission) -> Result<Self> {
        Ok(Cuda::of(Context::new(driver, kernels(), how)?, None))
    }

    fn of(context: Context, compute_capability: Option<(i32, i32)>) -> Self {
        let context = Arc::new(context);
        let precision = P::new(&context, compute_capability);
        Cuda { context, precision }
    }
}

/// Launches and transfers are the same in every precision.
impl<P: Precision> Deref for Cuda<P> {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl<P: Precision> Memory for Cuda<P> {
    type Buf = P::Buf;
    type Batch = P::Batch;

    fn upload(&self, values: &[f32]) -> P::Buf {
        self.upload_slice(values).into()
    }

    fn download(&self, x: &P::Buf) -> Vec<f32> {
        self.download_slice(x.f32())
    }

    fn upload_batch(&self, _n: usize, values: &[f32]) -> P::Batch {
        self.upload_slice(values).into()
    }

    fn download_batch(&self, _n: usize, x: &P::Batch) -> Vec<f32> {
        self.download_slice(&P::cast_f32(self, x))
    }

    fn full(&self, len: usize, value: f32) -> P::Buf {
        self.fill(len, value).into()
    }

    fn copy_batch(&self, x: &P::Batch) -> P::Batch {
        P::copy_batch(self, x)
    }

    fn part(&self, n: usize, range: Range<usize>, x: &P::Batch) -> P::Batch {
        assert_eq!(range, 0..n, "map_parts makes one part");
        P::copy_batch(self, x)
    }

    fn join(&self, parts: &[&P::Batch]) -> P::Batch {
        let [whole] = parts else { panic!("map_parts makes one part") };
        P::copy_batch(self, whole)
    }

    fn scope<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// One part: a GPU is filled best by the whole batch.
    fn map_parts<R: Send>(&self, n: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
        vec![f(0..n)]
    }

    fn splits(&self, _n: usize) -> bool {
        false
    }

    fn capture<R>(&self, samples: usize, f: impl FnOnce() -> R) -> R {
        self.context.capture(samples, f)
    }

    fn synchronize(&self) {
        self.context.synchronize();
    }

    fn profile(&self, on: bool) {
        self.context.synchronize();
        runtime::nvidia::profiler(on);
    }

    fn peak_bytes(&self) -> usize {
        self.memory_use().peak
    }

    fn empty_cache(&self) {
        self.context.empty_cache();
    }

    fn status(&self) -> Result<()> {
        self.context.status()
    }
}
