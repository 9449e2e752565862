//! A stream of a device with its memory: kernels are launched, values go up and down.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::allocator::{Device, Fault, MemoryUse, Pool};
use super::driver::{Driver, DriverResult};
use super::kernel::{Args, Grid, KernelSpec};
use super::queue::{Queue, Submission};
use super::timing::Timing;
use crate::base::error::{Error, Result};

/// One stream of a device, and the memory of what it computes.
pub struct Context {
    driver: Arc<dyn Driver>,
    pool: Arc<Pool>,
    queue: Queue,
    /// Samples of the last step, and bytes in use before it: what a smaller batch would not change.
    samples: AtomicUsize,
    live_before: AtomicUsize,
    /// Free and total memory when it ran out.
    free_at_fault: OnceLock<(usize, usize)>,
}

impl Context {
    /// A stream that launches `kernels`.
    ///
    /// # Errors
    /// [`Error::Failed`] if the driver lacks a kernel, or has one with other parameters.
    pub(in crate::backend::cuda) fn new(
        driver: Arc<dyn Driver>,
        kernels: &[KernelSpec],
        how: Submission,
    ) -> Result<Self> {
        let pool = Pool::new(driver.clone(), how == Submission::Timed);
        let queue = Queue::new(driver.clone(), pool.clone(), kernels, how)?;
        Ok(Context {
            driver,
            pool,
            queue,
            samples: AtomicUsize::new(0),
            live_before: AtomicUsize::new(0),
            free_at_fault: OnceLock::new(),
        })
    }

    /// The time of each kernel since this was last called, the longest first; nothing unless it is [`Submission::Timed`].
    pub fn timings(&self) -> Vec<Timing> {
        self.queue.timings()
    }

    /// Bytes in use, at most in use, and taken from the device.
    pub fn memory_use(&self) -> MemoryUse {
        self.pool.memory()
    }

    /// A buffer with unspecified content.
    pub(in crate::backend::cuda) fn alloc<T>(&self, len: usize) -> Device<T> {
        let buffer = Pool::take(&self.pool, len, || self.queue.flush());
        if matches!(self.pool.fault(), Some(Fault::OutOfMemory { .. })) {
            self.free_at_fault.get_or_init(|| self.driver.memory().unwrap_or_default());
        }
        buffer
    }

    /// Launches the kernel of this index.
    ///
    /// # Safety
    /// The arguments must be those of the kernel's prototype, and every buffer among them of as many elements as the kernel
    /// touches.
    pub(in crate::backend::cuda) unsafe fn launch(&self, kernel: usize, grid: Grid, args: Args) {
        // SAFETY: the caller's promise.
        unsafe { self.queue.launch(kernel, grid, args) }
    }

    /// A buffer with these values.
    pub(in crate::backend::cuda) fn upload_slice<T: bytemuck::NoUninit>(&self, values: &[T]) -> Device<T> {
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
    pub(in crate::backend::cuda) fn download_slice<T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(
        &self,
        buffer: &Device<T>,
    ) -> Vec<T> {
        let mut values = vec![T::zeroed(); buffer.len()];
        self.queue.flush();
        if self.pool.fault().is_none() && !values.is_empty() {
            // SAFETY: `values` has as many elements as the buffer.
            let outcome = unsafe { self.driver.download(buffer.address(), bytemuck::cast_slice_mut(&mut values)) };
            self.note("download", outcome);
        }
        values
    }

    /// Bytes of shared memory that a block can have.
    pub(in crate::backend::cuda) fn shared_memory(&self) -> u32 {
        self.driver.shared_memory()
    }

    /// [`crate::backend::Memory::capture`].
    pub(in crate::backend::cuda) fn capture<R>(&self, samples: usize, f: impl FnOnce() -> R) -> R {
        if self.pool.fault().is_none() {
            self.samples.store(samples, Ordering::Relaxed);
            self.live_before.store(self.pool.memory().live, Ordering::Relaxed);
        }
        self.queue.capture(f)
    }

    /// Waits until everything is done that was launched.
    pub(in crate::backend::cuda) fn synchronize(&self) {
        self.queue.flush();
        self.note("wait", self.driver.synchronize());
    }

    /// [`crate::backend::Memory::empty_cache`].
    pub(in crate::backend::cuda) fn empty_cache(&self) {
        self.queue.flush();
        self.note("wait", self.pool.empty_cache());
    }

    /// [`crate::backend::Memory::status`].
    pub(in crate::backend::cuda) fn status(&self) -> Result<()> {
        match self.pool.fault() {
            None => Ok(()),
            Some(Fault::OutOfMemory { asked }) => Err(Error::Failed(self.out_of_memory(*asked))),
            Some(Fault::Failed(why)) => Err(Error::Failed(format!("CUDA: {why}"))),
        }
    }

    /// Keeps an error that came with a transfer or a wait: it is of the transfer, or of a kernel before it.
    fn note(&self, what: &str, outcome: DriverResult<()>) {
        if let Err(why) = outcome {
            let hint = "if a kernel is to blame, ENGINE_CUDA=waiting shows which";
            self.pool.fail(Fault::Failed(format!("{what}: {why}; {hint}")));
        }
    }

    /// The line about memory that has run out.
    fn out_of_memory(&self, asked: usize) -> String {
        let MemoryUse { peak, held, .. } = self.pool.memory();
        let (free, total) = self.free_at_fault.get().copied().unwrap_or_default();
        let (samples, live_before) = (self.samples.load(Ordering::Relaxed), self.live_before.load(Ordering::Relaxed));
        let [asked, held_text, free_text, total] = [asked, held, free, total].map(mebibytes);
        let mut line = format!(
            "out of GPU memory: asked for {asked}; this stage holds {held_text}, free are {free_text} of {total}"
        );
        // Buffers were counted to the end of the step although they had no memory, so the peak is what it needs.
        let (needed, room) = (peak.saturating_sub(live_before), (held + free).saturating_sub(live_before));
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
