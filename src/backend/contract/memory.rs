//! Buffers, transfers and the split of a batch.

use std::ops::Range;

use crate::base::error::Result;

/// Buffers, transfers and the split of a batch into parts.
pub trait Memory: Sync + Sized {
    /// Storage of a parameter, a statistic, a mask or a scalar: in PyTorch's order.
    type Buf: Send + Sync;
    /// Storage of a batch of images, activations, logits or their gradients: the layout and the precision are the
    /// backend's business.
    type Batch: Send + Sync;

    /// Buffer with these values.
    fn upload(&self, values: &[f32]) -> Self::Buf;
    /// Values of a buffer.
    fn download(&self, x: &Self::Buf) -> Vec<f32>;
    /// Batch of `n` with these values in NCHW order.
    fn upload_batch(&self, n: usize, values: &[f32]) -> Self::Batch;
    /// Values of a batch of `n` in NCHW order.
    fn download_batch(&self, n: usize, x: &Self::Batch) -> Vec<f32>;
    /// Buffer of `len` elements of this value.
    fn full(&self, len: usize, value: f32) -> Self::Buf;
    /// Buffer of `len` zeros.
    fn zeros(&self, len: usize) -> Self::Buf {
        self.full(len, 0.0)
    }
    /// A copy of a batch.
    fn copy_batch(&self, x: &Self::Batch) -> Self::Batch;
    /// The samples `range` of a batch of `n`; `range` is one that [`Memory::map_parts`] hands out.
    fn part(&self, n: usize, range: Range<usize>, x: &Self::Batch) -> Self::Batch;
    /// The batch whose parts, in order, are `parts`.
    fn join(&self, parts: &[&Self::Batch]) -> Self::Batch;

    /// Runs `f`, the work on a stage; everything that calls kernels in a loop should be inside. Backends that share the cores of a
    /// run divide them among those that are in a scope.
    fn scope<R>(&self, f: impl FnOnce() -> R) -> R;
    /// Runs `f`, one step of a loop, as a parallel region: on as many threads as the backend's share of the cores has at its
    /// beginning. A region within it has the same threads.
    fn parallel<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }
    /// Runs `f` on consecutive parts of a batch of `n` whose samples do not depend on each other, side by side where
    /// that is faster, and returns the results in order, as a parallel region of its own. The parts do not depend on the number of
    /// threads.
    fn map_parts<R: Send>(&self, n: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R>;
    /// Whether [`Memory::map_parts`] makes several parts of a batch of `n`.
    fn splits(&self, n: usize) -> bool;

    /// Runs `f`, one round of a loop over batches of `samples` that calls the same kernels each time: a device may record
    /// them and submit them at once. `f` should neither upload nor download.
    fn capture<R>(&self, _samples: usize, f: impl FnOnce() -> R) -> R {
        f()
    }
    /// Waits until everything is done that was asked for.
    fn synchronize(&self) {}
    /// Starts or stops the recording of a profiler, after all work so far.
    fn profile(&self, _on: bool) {}
    /// Most bytes that were ever in use by buffers at one time.
    fn peak_bytes(&self) -> usize;
    /// Gives memory back that is kept for reuse, after all work so far; buffers in use are not touched.
    fn empty_cache(&self);
    /// The first error on the device so far. No other function reports errors; after one they compute nothing. Ask before you
    /// rely on a result.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Failed`]: memory has run out, or a kernel has failed.
    fn status(&self) -> Result<()> {
        Ok(())
    }
}
