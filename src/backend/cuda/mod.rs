//! The CUDA backend: hand-written kernels (`kernels/*.cu`), one family a file, launched by the family's file here.
//!
//! **Layout.** Every buffer is f32. A batch is NCHW without padding; parameters are in PyTorch's order.
//!
//! **Order.** A backend is one stream: kernels run one after the other, and each may use what the ones before it wrote.
//! Several backends on one device run side by side.
//!
//! **Errors** are kept until [`Memory::status`] is asked, as CUDA itself does; after one nothing is launched any more.
//!
//! **Steps.** Inside [`Memory::step`] launches are only written down. At its end they become a CUDA graph, or, where an
//! earlier step had the same kernels in the same order, the arguments that have changed are set in its graph; then the
//! graph is launched. So a repeated step costs one submission, and nothing that varies from step to step has to be
//! declared in advance.

pub mod bf16;
mod f32;
pub mod runtime;
mod tuning;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::Memory;
use crate::base::error::{Error, Result};
pub use runtime::allocator::{Device, MemoryUse};
use runtime::allocator::{Fault, Pool};
use runtime::driver::Driver;
use runtime::kernel::{Args, Grid, KernelSpec};
pub use runtime::nvidia::{GpuInfo, cuda_version, gpu};
use runtime::queue::Queue;
pub use runtime::queue::Submission;
pub use runtime::timing::Timing;

/// Storage of a tensor.
pub type Buf = Device<f32>;

/// The prototypes of all kernels.
pub fn kernels() -> Vec<KernelSpec> {
    [f32::kernels(), bf16::kernels()].concat()
}

/// Whether launches of a step overlap on the first visible GPU, or in one line why not.
pub fn launches_overlap() -> Result<(), String> {
    match Submission::chosen().map_err(|e| e.to_string())? {
        Submission::Graphs => runtime::nvidia::launches_overlap(),
        _ => Err("ENGINE_CUDA asks for that".to_string()),
    }
}

/// A GPU, or what plays one, as a device.
pub struct Cuda {
    driver: Arc<dyn Driver>,
    pool: Arc<Pool>,
    queue: Queue,
    /// Samples of the last step, and bytes in use before it: what a smaller batch would not change.
    samples: AtomicUsize,
    resident: AtomicUsize,
    /// What was free when memory ran out.
    free_at_fault: OnceLock<(usize, usize)>,
}

impl Cuda {
    /// A backend with a stream of its own on the first visible GPU. `ENGINE_CUDA` says how launches reach it: `graphs` (the
    /// default), `serial`, `single` or `waiting`.
    ///
    /// # Errors
    /// [`Error::Failed`] saying what is missing: a driver, a GPU, or kernels for it.
    pub fn new() -> Result<Self> {
        let how = Submission::chosen()?;
        Cuda::with_driver(Arc::new(runtime::nvidia::Nvidia::open()?), how)
    }

    /// The same to see how long each kernel takes; what it computes means nothing.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn timed() -> Result<Self> {
        Cuda::with_driver(Arc::new(runtime::nvidia::Nvidia::open()?), Submission::Timed)
    }

    /// What each kernel took since this was last called, the longest first; nothing unless it is [`Submission::Timed`].
    pub fn timings(&self) -> Vec<Timing> {
        self.queue.timings()
    }

    /// A backend on a driver.
    ///
    /// # Errors
    /// [`Error::Failed`] if the driver lacks a kernel, or has one with other parameters.
    pub fn with_driver(driver: Arc<dyn Driver>, how: Submission) -> Result<Self> {
        let pool = Pool::new(driver.clone(), how == Submission::Timed);
        let queue = Queue::new(driver.clone(), pool.clone(), &kernels(), how)?;
        Ok(Cuda {
            driver,
            pool,
            queue,
            samples: AtomicUsize::new(0),
            resident: AtomicUsize::new(0),
            free_at_fault: OnceLock::new(),
        })
    }

    /// What the device is called.
    pub fn device_name(&self) -> String {
        self.driver.name()
    }

    /// Bytes in use, at most in use, and taken from the device.
    pub fn memory_use(&self) -> MemoryUse {
        self.pool.memory()
    }

    /// A buffer with unspecified content.
    fn alloc<T>(&self, len: usize) -> Device<T> {
        let buffer = Pool::take(&self.pool, len, || self.queue.flush());
        if matches!(self.pool.fault(), Some(Fault::OutOfMemory { .. })) {
            self.free_at_fault.get_or_init(|| self.driver.memory().unwrap_or_default());
        }
        buffer
    }

    /// Launches a kernel on the backend's stream.
    ///
    /// # Safety
    /// The arguments must be those of the kernel's prototype, and every buffer among them of as many elements as the kernel
    /// touches.
    unsafe fn launch(&self, name: &'static str, grid: Grid, args: Args) {
        // SAFETY: the caller's promise.
        unsafe { self.queue.launch(name, grid, args) }
    }

    /// A buffer with these values.
    fn upload_slice<T: bytemuck::NoUninit>(&self, values: &[T]) -> Device<T> {
        let buffer = self.alloc(values.len());
        self.queue.flush();
        if self.pool.fault().is_none() && !values.is_empty() {
            // SAFETY: the buffer has as many elements as `values`.
            let outcome = unsafe { self.driver.upload(buffer.address(), bytemuck::cast_slice(values)) };
            self.note("upload", outcome);
        }
        buffer
    }

    /// The values of a buffer, after everything that was launched; zeros after a fault.
    fn download_slice<T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(&self, buffer: &Device<T>) -> Vec<T> {
        let mut values = vec![T::zeroed(); buffer.len()];
        self.queue.flush();
        if self.pool.fault().is_none() && !values.is_empty() {
            // SAFETY: `values` has as many elements as the buffer.
            let outcome = unsafe { self.driver.download(buffer.address(), bytemuck::cast_slice_mut(&mut values)) };
            self.note("download", outcome);
        }
        values
    }

    /// Keeps an error that came with a transfer or a wait: it is of the transfer, or of a kernel before it.
    fn note(&self, what: &str, outcome: runtime::driver::DriverResult<()>) {
        if let Err(why) = outcome {
            let hint = "if a kernel is to blame, ENGINE_CUDA=waiting shows which";
            self.pool.fail(Fault::Failed(format!("{what}: {why}; {hint}")));
        }
    }

    /// The line about memory that has run out.
    fn out_of_memory(&self, asked: usize) -> String {
        let MemoryUse { peak, held, .. } = self.pool.memory();
        let (free, total) = self.free_at_fault.get().copied().unwrap_or_default();
        let (samples, resident) = (self.samples.load(Ordering::Relaxed), self.resident.load(Ordering::Relaxed));
        let [asked, held_text, free_text, total] = [asked, held, free, total].map(mebibytes);
        let mut line = format!(
            "out of GPU memory: asked for {asked}; this stage holds {held_text}, free are {free_text} of {total}"
        );
        // Buffers were counted to the end of the step although they had no memory, so the peak is what it needs.
        let (needed, room) = (peak.saturating_sub(resident), (held + free).saturating_sub(resident));
        let fits = (samples as f64 * room as f64 / needed.max(1) as f64) as usize;
        match fits {
            0 => line += "; use a narrower network, or fewer stages side by side (--jobs 1)",
            n => {
                line += &format!(
                    "; a batch of {} would fit (--set batch=N), or fewer stages side by side (--jobs 1)",
                    n.min(samples)
                )
            }
        }
        line
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Memory for Cuda {
    type Buf = Buf;

    fn upload(&self, values: &[f32]) -> Buf {
        self.upload_slice(values)
    }

    fn download(&self, x: &Buf) -> Vec<f32> {
        self.download_slice(x)
    }

    fn upload_batch(&self, _n: usize, values: &[f32]) -> Buf {
        self.upload_slice(values)
    }

    fn download_batch(&self, _n: usize, x: &Buf) -> Vec<f32> {
        self.download_slice(x)
    }

    fn full(&self, len: usize, value: f32) -> Buf {
        self.fill(len, value)
    }

    fn copy(&self, x: &Buf) -> Buf {
        self.copy_of(x)
    }

    fn part(&self, n: usize, range: Range<usize>, x: &Buf) -> Buf {
        assert_eq!(range, 0..n, "map_parts makes one part");
        self.copy_of(x)
    }

    fn join(&self, parts: &[&Buf]) -> Buf {
        let [whole] = parts else { panic!("map_parts makes one part") };
        self.copy_of(whole)
    }

    fn scope<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }

    /// One part: a GPU is filled best by the whole batch.
    fn map_parts<R: Send>(&self, n: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
        vec![f(0..n)]
    }

    fn splits(&self, _n: usize) -> bool {
        false
    }

    fn step<R>(&self, samples: usize, f: impl FnOnce() -> R) -> R {
        if self.pool.fault().is_none() {
            self.samples.store(samples, Ordering::Relaxed);
            self.resident.store(self.pool.memory().live, Ordering::Relaxed);
        }
        self.queue.step(f)
    }

    fn synchronize(&self) {
        self.queue.flush();
        self.note("wait", self.driver.synchronize());
    }

    fn record(&self, on: bool) {
        self.synchronize();
        runtime::nvidia::profiler(on);
    }

    fn peak_bytes(&self) -> usize {
        self.pool.memory().peak
    }

    fn empty_cache(&self) {
        self.queue.flush();
        self.note("wait", self.pool.empty_cache());
    }

    fn status(&self) -> Result<()> {
        match self.pool.fault() {
            None => Ok(()),
            Some(Fault::OutOfMemory { asked }) => Err(Error::Failed(self.out_of_memory(*asked))),
            Some(Fault::Failed(why)) => Err(Error::Failed(format!("CUDA: {why}"))),
        }
    }
}
