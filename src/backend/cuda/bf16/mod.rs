//! The CUDA backend in mixed precision: activations and their gradients are bf16, products run on tensor cores, and
//! everything else is what the exact backend, [`Cuda`], does in f32: parameters, statistics, vectors of features, logits,
//! losses, updates, images and their gradients.
//!
//! **Layout.** A [`Batch`] is NHWC in bf16, its channels padded with zeros to a multiple of eight. Whatever is small or where
//! bf16 would cost accuracy is *exact*: f32, as [`Cuda`] has it. Every op takes either kind of batch and converts where it
//! has to, so what has no kernel here runs in f32. An input gradient is of the kind of the input: exact for an image, so that
//! an attack sees the signs of f32.
//!
//! **What is not written.** A normalisation with its residual and its ReLU is an *operand*: it says how to compute what it
//! means, and the convolution that reads it does so on the way. The same goes for the gradient with respect to its input. On
//! the way back a convolution adds up what a normalisation needs of the gradient that it writes, so in a pass through a
//! ResNet nothing is launched for normalisations but to put sums of blocks together. Whoever needs an operand in memory
//! writes it, once.
//!
//! **Weights** are kept in f32. A convolution packs them to bf16 when it first reads them after an update.

mod conv;
mod deferred;
mod exact;
mod norm;
mod pool;
#[cfg(test)]
mod predictions;
mod tiles;
mod tuned;
mod weights;

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Cuda, Submission, Timing, gpu};
use crate::backend::Memory;
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::driver::Driver;
use crate::backend::cuda::runtime::kernel::KernelSpec;
use crate::base::dims::{ChannelDims, Conv2dDims};
use crate::base::error::{Error, Result};
use deferred::{Operand, Sums, Written};
use tiles::ARRIVALS;
pub use tiles::TILES;
use tuned::Pass;
pub use tuned::Table;
use weights::Weights;

/// The prototypes of the kernels.
pub(super) fn kernels() -> Vec<KernelSpec> {
    [conv::KERNELS, norm::KERNELS, pool::KERNELS, weights::KERNELS].concat()
}

/// A GPU, or what plays one, in mixed precision.
pub struct Mixed {
    exact: Cuda,
    /// Zeros, with which the blocks of a launch count themselves.
    arrivals: Device<u32>,
    /// The fastest tiles, where they are known.
    table: Table,
    /// Whether warpgroups multiply together: compute capability 9.0.
    warpgroups: bool,
    /// Which of the tiles that fit convolutions take instead, or `usize::MAX`.
    trial: AtomicUsize,
}

/// Storage of a tensor.
pub enum Buf {
    /// In f32, as [`Cuda`] has it.
    Exact(Exact),
    /// Activations, or their gradients.
    Batch(Batch),
}

/// A buffer in f32 and, if it is the weight of a convolution, what it was packed to.
pub struct Exact {
    /// Shared with the operands that it is part of.
    data: Arc<Device<f32>>,
    weights: OnceLock<Weights>,
}

/// Activations in bf16, or their gradient.
pub struct Batch {
    d: ChannelDims,
    /// What they are, if nobody has written them yet.
    operand: Option<Operand>,
    written: OnceLock<Written>,
    /// Mean and variance of each channel of a convolution's output.
    statistics: Option<[Arc<Device<f32>>; 2]>,
    /// Of a gradient that has been through the ReLU of a normalisation: the gradients of its parameters, and of those of the
    /// normalisation that made its residual.
    sums: Vec<Sums>,
}

/// Channels of eight of a pixel are a piece, which a thread handles at a time.
const PIECE: u32 = 8;

/// Pieces of the pixels of a batch.
fn pieces(d: &ChannelDims) -> usize {
    d.n as usize * d.hw as usize * d.c.div_ceil(PIECE) as usize
}

impl From<Device<f32>> for Buf {
    fn from(data: Device<f32>) -> Self {
        Arc::new(data).into()
    }
}

impl From<Arc<Device<f32>>> for Buf {
    fn from(data: Arc<Device<f32>>) -> Self {
        Buf::Exact(Exact { data, weights: OnceLock::new() })
    }
}

impl From<Batch> for Buf {
    fn from(batch: Batch) -> Self {
        Buf::Batch(batch)
    }
}

/// A buffer that is there, or was made to be looked at.
enum Made<'a, T> {
    There(&'a T),
    New(T),
}

impl<T> Deref for Made<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Made::There(value) => value,
            Made::New(value) => value,
        }
    }
}

impl Buf {
    /// The buffer of something that is never bf16.
    fn exact(&self) -> &Exact {
        match self {
            Buf::Exact(exact) => exact,
            Buf::Batch(batch) => unreachable!("activations {:?} where parameters, vectors or images belong", batch.d),
        }
    }

    /// The values of something that is never bf16.
    fn f32(&self) -> &Device<f32> {
        &self.exact().data
    }

    /// What a convolution has packed of it.
    fn take_weights(&mut self) -> Option<Weights> {
        match self {
            Buf::Exact(exact) => exact.weights.take(),
            Buf::Batch(_) => None,
        }
    }

    /// The same to change; what was packed of it is out of date.
    fn f32_mut(&mut self) -> &mut Device<f32> {
        match self {
            Buf::Exact(exact) => {
                exact.weights.take();
                Arc::get_mut(&mut exact.data).expect("nothing is changed while an operand of the same pass needs it")
            }
            Buf::Batch(batch) => unreachable!("activations {:?} where parameters, vectors or images belong", batch.d),
        }
    }
}

impl Mixed {
    /// As [`Cuda::new`].
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn new() -> Result<Self> {
        Mixed::on_gpu(Cuda::new()?)
    }

    /// As [`Cuda::timed`].
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn timed() -> Result<Self> {
        Mixed::on_gpu(Cuda::timed()?)
    }

    /// As [`Cuda::with_driver`].
    ///
    /// # Errors
    /// As [`Cuda::with_driver`].
    pub fn with_driver(driver: Arc<dyn Driver>, how: Submission) -> Result<Self> {
        Ok(Mixed::of(Cuda::with_driver(driver, how)?, Table::default(), false))
    }

    fn on_gpu(exact: Cuda) -> Result<Self> {
        let gpu = gpu().map_err(Error::Failed)?;
        Ok(Mixed::of(exact, Table::of(gpu.compute_capability), gpu.compute_capability == (9, 0)))
    }

    fn of(exact: Cuda, table: Table, warpgroups: bool) -> Self {
        let arrivals = exact.upload_slice(&[0; ARRIVALS as usize]);
        Mixed { exact, arrivals, table, warpgroups, trial: AtomicUsize::new(usize::MAX) }
    }

    /// As [`Cuda::timings`].
    pub fn timings(&self) -> Vec<Timing> {
        self.exact.timings()
    }

    /// From now on each convolution takes the tile that is number `trial` of those that fit it, in the order in which the rules
    /// prefer them, or the first if there are fewer: there are never more than [`TILES`]. `None` ends that.
    pub fn try_tiles(&self, trial: Option<usize>) {
        self.trial.store(trial.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The fastest tiles of the convolutions of `step`, which is done with every tile and told how often before; the backend
    /// must be a timed one.
    ///
    /// # Errors
    /// Those of `step`.
    pub fn tune(&self, mut step: impl FnMut(u32) -> Result<()>) -> Result<Table> {
        let mut table = Table::default();
        for trial in 0..TILES.len() {
            self.try_tiles(Some(trial));
            self.timings();
            let outcome = step(trial as u32);
            self.try_tiles(None);
            outcome?;
            self.timings().iter().for_each(|timing| table.note(timing));
        }
        Ok(table)
    }

    /// Of the ways to cut a convolution, best first, the one to be taken; `tile` says which tile it uses.
    fn chosen<C: Copy>(&self, pass: Pass, d: &Conv2dDims, cuts: &[C], tile: impl Fn(&C) -> usize) -> Option<C> {
        let chosen = match self.trial.load(Ordering::Relaxed) {
            usize::MAX => self.table.tile(pass, d).and_then(|tuned| cuts.iter().find(|cut| tile(cut) == tuned)),
            trial => cuts.get(trial),
        };
        chosen.or(cuts.first()).copied()
    }

    /// Activations with these values, rounded; in NCHW order.
    pub fn upload_activations(&self, d: &ChannelDims, values: &[f32]) -> Buf {
        self.rounded(d, false, &self.exact.upload(values)).into()
    }

    /// Memory for activations.
    fn alloc(&self, d: &ChannelDims) -> Device<u16> {
        self.exact.alloc(pieces(d) * PIECE as usize)
    }
}

impl Memory for Mixed {
    type Buf = Buf;

    fn upload(&self, values: &[f32]) -> Buf {
        self.exact.upload(values).into()
    }

    fn download(&self, x: &Buf) -> Vec<f32> {
        self.exact.download(x.f32())
    }

    fn upload_batch(&self, n: usize, values: &[f32]) -> Buf {
        self.exact.upload_batch(n, values).into()
    }

    fn download_batch(&self, n: usize, x: &Buf) -> Vec<f32> {
        self.exact.download_batch(n, &self.in_f32(x))
    }

    fn full(&self, len: usize, value: f32) -> Buf {
        self.exact.full(len, value).into()
    }

    fn copy(&self, x: &Buf) -> Buf {
        match x {
            Buf::Exact(x) => self.exact.copy(&x.data).into(),
            Buf::Batch(x) => self.same(x).into(),
        }
    }

    fn part(&self, n: usize, range: Range<usize>, x: &Buf) -> Buf {
        assert_eq!(range, 0..n, "map_parts makes one part");
        self.copy(x)
    }

    fn join(&self, parts: &[&Buf]) -> Buf {
        let [whole] = parts else { panic!("map_parts makes one part") };
        self.copy(whole)
    }

    fn scope<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.exact.scope(f)
    }

    fn map_parts<R: Send>(&self, n: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
        self.exact.map_parts(n, f)
    }

    fn splits(&self, n: usize) -> bool {
        self.exact.splits(n)
    }

    fn step<R>(&self, samples: usize, f: impl FnOnce() -> R) -> R {
        self.exact.step(samples, f)
    }

    fn synchronize(&self) {
        self.exact.synchronize();
    }

    fn record(&self, on: bool) {
        self.exact.record(on);
    }

    fn peak_bytes(&self) -> usize {
        self.exact.peak_bytes()
    }

    fn empty_cache(&self) {
        self.exact.empty_cache();
    }

    fn status(&self) -> Result<()> {
        self.exact.status()
    }
}
