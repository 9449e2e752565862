//! The CPU backend: reference for every other backend, and the default without a GPU.
//!
//! **Layout.** A batch keeps [`LANES`] images side by side in the innermost dimension:
//! `[n / LANES][c][h][w][LANES]`. Every op then vectorises over images, whatever its kernel size, stride or padding,
//! and a narrow network loses nothing to channels that do not fill a register. The last block is padded with lanes
//! whose values are finite but meaningless; their gradients are zero, so no sum over a batch sees them.
//!
//! **Precision.** `Cpu<f32>` computes in f32; `Cpu<f64>` is the same code in f64, for gradient checks.
//!
//! **Layers.** Each file imports only from the lines above its own:
//!
//! ```text
//! threads     the cores, which the backends of a run share
//! layout      memory, blocks of images, sizes
//! projection  clamping and signed steps, which the attacks share
//! jobs        the inner loops as data, each with its plain definition in any float type
//! simd        the same loops in f32 on vector registers
//! dispatch    which of the two a float type takes
//! buf         tensors, with what layers prepare of their weights
//! the others  the functions of the contract, one file a family
//! ```
//!
//! **Threads.** Work is split over blocks of images or over output channels, never inside a sum, so results do not
//! depend on the number of threads, and it may change from step to step.

mod apgd;
mod buf;
mod conv;
mod conv_pool;
mod correlation;
mod cw_l2;
mod dispatch;
mod elementwise;
mod fab;
mod images;
mod jobs;
mod layout;
mod linear;
mod loss;
mod norm;
mod optim;
mod pgd;
mod pool;
mod projection;
mod prune;
mod samples;
mod simd;
mod square;
mod sums;
mod threads;
mod winograd;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

pub use buf::Buf;
pub use dispatch::Real;
pub use layout::LANES;
use layout::arena::Arena;
use layout::{blocks, lane_index, lanes, lanes_mut};
use threads::Participant;
pub use threads::{Cores, Running};

use super::Memory;
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;

/// What an op does, as far as it decides whether a second thread helps: waking one takes 5 to 10 µs, in a virtual machine more.
#[derive(Clone, Copy)]
enum Work {
    /// Elements that it reads and writes, if it is bound by memory.
    Elements(usize),
    /// Multiply-adds of vectors.
    MultiplyAdds(usize),
}

/// Bytes and multiply-adds of vectors from which an op is shared: about what a core does in that time.
const SHARED_BYTES: usize = 256 << 10;
const SHARED_MULTIPLY_ADDS: usize = 1 << 16;

/// Multiply-adds of vectors that every part of one block of images has: 100 µs or more, so that waking a thread, and what each part
/// prepares for itself, are little beside them.
const TASK_MULTIPLY_ADDS: usize = 1 << 19;

named_enum! {
    /// The kernels whose calls are counted.
    pub enum Kernel: "kernel" {
        Conv2dFwd = "conv2d_fwd",
        Conv2dBwdInput = "conv2d_bwd_input",
        Conv2dBwdWeight = "conv2d_bwd_weight",
        BiasBwd = "bias_bwd",
        LinearFwd = "linear_fwd",
        LinearBwdInput = "linear_bwd_input",
        LinearBwdWeight = "linear_bwd_weight",
        BatchNormFwd = "batch_norm_fwd",
        BatchNormBwd = "batch_norm_bwd",
        PgdStep = "pgd_step",
    }
}

named_enum! {
    /// Vector instructions the kernels may use; results agree up to rounding.
    pub enum VectorPath: "vector path" {
        /// 16 f32 in a register.
        Avx512 = "avx512",
        /// 8 f32 in a register.
        Avx2 = "avx2+fma",
        /// The plain loops, compiled for the target's baseline.
        Portable = "portable",
    }
}

impl VectorPath {
    /// Those this processor has, the widest first.
    pub fn available() -> Vec<VectorPath> {
        VectorPath::ALL.iter().copied().filter(|path| path.arch().is_some()).collect()
    }

    /// Pulp's instruction set, if the processor has it.
    pub fn arch(self) -> Option<pulp::Arch> {
        #[cfg(target_arch = "x86_64")]
        match self {
            VectorPath::Avx512 => return pulp::x86::V4::try_new().map(pulp::Arch::V4),
            VectorPath::Avx2 => return pulp::x86::V3::try_new().map(pulp::Arch::V3),
            VectorPath::Portable => {}
        }
        (self == VectorPath::Portable).then_some(pulp::Arch::Scalar)
    }
}

/// Tasks of `each` output channels of a block of images, of `channels` in all.
#[derive(Clone, Copy)]
struct ChannelTasks {
    channels: usize,
    each: usize,
}

impl ChannelTasks {
    /// The block, or the group of blocks, of a task, and its channels.
    fn of(self, task: usize) -> (usize, Range<usize>) {
        let tasks = self.channels.div_ceil(self.each);
        let first = task % tasks * self.each;
        (task / tasks, first..(first + self.each).min(self.channels))
    }
}

/// The CPU as a device, computing in `T`.
pub struct Cpu<T: Real> {
    element: std::marker::PhantomData<T>,
    cores: Participant,
    path: VectorPath,
    arch: pulp::Arch,
    arena: Arena,
    calls: [AtomicU64; Kernel::ALL.len()],
}

impl<T: Real> Cpu<T> {
    /// A backend with `threads` threads of its own and the widest vector instructions the processor has.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system cannot start the threads.
    pub fn new(threads: usize) -> Result<Self> {
        Self::on_cores(&Cores::new(threads))
    }

    /// A backend that shares `cores` with others.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn on_cores(cores: &Arc<Cores>) -> Result<Self> {
        Self::start(cores, VectorPath::available()[0])
    }

    /// A backend with `threads` threads of its own and other vector instructions.
    ///
    /// # Errors
    /// As [`Cpu::new`], and if the processor does not have them.
    pub fn with_path(threads: usize, path: VectorPath) -> Result<Self> {
        Self::start(&Cores::new(threads), path)
    }

    fn start(cores: &Arc<Cores>, path: VectorPath) -> Result<Self> {
        let arch = path.arch().ok_or_else(|| Error::Failed(format!("this processor has no {path}")))?;
        let (arena, cores) = (Arena::new(cores.total()), Participant::new(cores)?);
        Ok(Cpu { cores, path, arch, arena, calls: Default::default(), element: std::marker::PhantomData })
    }

    /// Counts as one of the backends that run, as in [`Memory::scope`], until what is returned is dropped.
    pub fn enter(&self) -> Running {
        self.cores.enter()
    }

    /// Threads that work on what is called here and now: those of the parallel region around, else the backend's share of the cores.
    pub fn threads(&self) -> usize {
        self.cores.threads()
    }

    /// The vector instructions in use.
    pub fn vector_path(&self) -> VectorPath {
        self.path
    }

    /// How often `kernel` was called.
    pub fn calls(&self, kernel: Kernel) -> u64 {
        self.calls[kernel as usize].load(Ordering::Relaxed)
    }

    /// Plain buffer in the backend's own precision.
    pub fn buffer(&self, values: &[T]) -> Buf<T> {
        let mut buf = self.alloc(values.len());
        buf.copy_from_slice(values);
        buf
    }

    /// Batch of `n` from NCHW values in the backend's own precision.
    pub fn batch(&self, n: usize, values: &[T]) -> Buf<T> {
        let features = values.len() / n;
        let mut buf = self.alloc(blocks(n) * features * LANES);
        for (b, block) in buf.chunks_exact_mut(features * LANES).enumerate() {
            for (f, lanes) in block.chunks_exact_mut(LANES).enumerate() {
                for (l, lane) in lanes.iter_mut().enumerate() {
                    let sample = b * LANES + l;
                    *lane = if sample < n { values[sample * features + f] } else { T::zero() };
                }
            }
        }
        buf
    }

    /// NCHW values of a batch of `n` in the backend's own precision.
    pub fn batch_values(&self, n: usize, x: &Buf<T>) -> Vec<T> {
        let features = x.len() / (blocks(n) * LANES);
        (0..n * features).map(|i| x[lane_index(i / features, i % features, features)]).collect()
    }

    fn count(&self, kernel: Kernel) {
        self.calls[kernel as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A buffer whose content is unspecified: the caller writes every element.
    fn alloc(&self, len: usize) -> Buf<T> {
        self.arena.take(len).into()
    }

    /// Calls `f(i, chunk)` for each chunk of `len` elements of `out`, on several threads if the work is worth it.
    fn for_chunks<U: Send>(&self, work: Work, out: &mut [U], len: usize, f: impl Fn(usize, &mut [U]) + Sync) {
        self.for_items(work, out.chunks_mut(len), f);
    }

    /// How the `channels` of the outputs of a batch of `n` are shared out. A task has all of them where there are several blocks, else a
    /// multiple of `group`, if that leaves every task enough of the block's `multiply_adds`, counted in vectors.
    fn channel_tasks(&self, n: usize, channels: usize, group: usize, multiply_adds: usize) -> ChannelTasks {
        let tasks = multiply_adds / TASK_MULTIPLY_ADDS;
        let each = if blocks(n) > 1 || tasks < 2 {
            channels
        } else {
            channels.div_ceil(tasks.min(self.threads())).next_multiple_of(group).min(channels)
        };
        ChannelTasks { channels, each }
    }

    /// Calls `f(i, item)` for each item, on several threads if the work is worth it.
    fn for_items<I: Send>(&self, work: Work, items: impl Iterator<Item = I>, f: impl Fn(usize, I) + Sync) {
        let shared = match work {
            Work::Elements(elements) => elements * size_of::<T>() >= SHARED_BYTES,
            Work::MultiplyAdds(multiply_adds) => multiply_adds >= SHARED_MULTIPLY_ADDS,
        };
        let single = items.size_hint().1.is_some_and(|most| most < 2);
        if !shared || single || self.threads() == 1 {
            return items.enumerate().for_each(|(i, item)| f(i, item));
        }
        let items: Vec<I> = items.collect();
        self.cores.region(|threads| match threads {
            1 => items.into_iter().enumerate().for_each(|(i, item)| f(i, item)),
            _ => items.into_par_iter().enumerate().for_each(|(i, item)| f(i, item)),
        });
    }
}

impl<T: Real> Memory for Cpu<T> {
    type Buf = Buf<T>;
    type Batch = Buf<T>;

    fn upload(&self, values: &[f32]) -> Buf<T> {
        let mut buf = self.alloc(values.len());
        buf.iter_mut().zip(values).for_each(|(b, &v)| *b = T::of(v));
        buf
    }

    fn download(&self, x: &Buf<T>) -> Vec<f32> {
        x.iter().map(|v| v.as_f32()).collect()
    }

    fn upload_batch(&self, n: usize, values: &[f32]) -> Buf<T> {
        let values: Vec<T> = values.iter().map(|&v| T::of(v)).collect();
        self.batch(n, &values)
    }

    fn download_batch(&self, n: usize, x: &Buf<T>) -> Vec<f32> {
        self.batch_values(n, x).into_iter().map(|v| v.as_f32()).collect()
    }

    fn full(&self, len: usize, value: f32) -> Buf<T> {
        let mut buf = self.alloc(len);
        buf.fill(T::of(value));
        buf
    }

    fn copy_batch(&self, x: &Buf<T>) -> Buf<T> {
        self.buffer(x)
    }

    fn part(&self, n: usize, range: Range<usize>, x: &Buf<T>) -> Buf<T> {
        debug_assert!(range.start.is_multiple_of(LANES) && (range.end.is_multiple_of(LANES) || range.end == n));
        let block = x.len() / blocks(n);
        self.buffer(&x[range.start / LANES * block..blocks(range.end) * block])
    }

    fn join(&self, parts: &[&Buf<T>]) -> Buf<T> {
        let mut whole = self.alloc(parts.iter().map(|p| p.len()).sum());
        let mut rest = &mut whole[..];
        for part in parts {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        }
        whole
    }

    fn scope<R>(&self, f: impl FnOnce() -> R) -> R {
        let _running = self.enter();
        f()
    }

    fn parallel<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.cores.region(|_| f())
    }

    /// One part a block: all activations of a narrow network for [`LANES`] images fit in a core's own cache.
    fn map_parts<R: Send>(&self, n: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
        let part = |b: usize| f(b * LANES..((b + 1) * LANES).min(n));
        self.cores.region(|threads| match threads {
            1 => (0..blocks(n)).map(part).collect(),
            _ => (0..blocks(n)).into_par_iter().with_max_len(1).map(part).collect(),
        })
    }

    fn splits(&self, n: usize) -> bool {
        blocks(n) > 1
    }

    fn peak_bytes(&self) -> usize {
        self.arena.peak_bytes()
    }

    fn empty_cache(&self) {
        self.arena.empty_cache();
    }
}
