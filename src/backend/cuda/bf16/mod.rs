//! Mixed precision: activations and their gradients are bf16, products run on tensor cores, and everything else is f32:
//! parameters, statistics, vectors of features, logits, losses, updates, images and their gradients.
//!
//! **Layout.** [`Activations`] are NHWC in bf16, their channels padded with zeros to a multiple of eight. What is small or
//! would lose accuracy in bf16 stays f32, in NCHW order. Every op takes either kind of batch and converts where it has to, so
//! what has no kernel here runs in f32. An input gradient is of the kind of the input: f32 for an image, so that an attack
//! sees the signs of f32.
//!
//! **Deferred activations.** A batch normalisation with its residual and its activation launches no kernel: its output is
//! deferred, and the convolution that reads it computes it on the way. The same goes for the gradient with respect to its
//! input. On the way back a convolution adds up what a normalisation needs of the gradient that it writes, so
//! in a pass through a ResNet the only launches for normalisations are those that put sums of blocks together. Whoever needs
//! a deferred batch in memory materialises it, once.
//!
//! **Weights** are kept in f32. A convolution packs them to bf16 when it first reads them after an update.

mod cast;
mod conv;
mod deferred;
mod elementwise;
mod norm;
mod pool;
mod tiles;
mod tuned;
mod weights;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::precision::PlainBuf;
use super::runtime::kernel::Declared;
use super::{Context, Cuda, Device, F32, Precision};
use crate::base::dims::{ChannelDims, Conv2dDims};
use crate::base::error::Result;
use crate::base::maybe_owned::MaybeOwned;
use deferred::{Deferred, Materialized, NormSums};
use tiles::ARRIVALS;
pub use tiles::TILES;
use tuned::Pass;
pub use tuned::Table;
use weights::PackedWeights;

/// The kernels of each family.
pub(super) const KERNELS: &[&[Declared]] =
    &[cast::KERNELS, conv::KERNELS, elementwise::KERNELS, norm::KERNELS, pool::KERNELS, weights::KERNELS];

/// Mixed precision, as the documentation of the module says.
pub struct Bf16 {
    /// Computes in f32 on the same stream.
    f32: Cuda<F32>,
    /// Zeros, with which the blocks of a launch count themselves.
    arrivals: Device<u32>,
    /// The fastest tiles, where they are known.
    table: Table,
    /// Whether warpgroups multiply together: compute capability 9.0.
    warpgroups: bool,
    /// Number of the fitting tile that convolutions take instead of the fastest; `usize::MAX` for none.
    trial: AtomicUsize,
}

/// A parameter in f32 and, if it is the weight of a convolution, what it was packed to.
pub struct Buf {
    /// Shared with the deferred activations that are computed from it.
    data: Arc<Device<f32>>,
    packed: OnceLock<PackedWeights>,
}

/// A batch. Activations, the larger kind, are the usual one: a box would be one more allocation an op.
#[allow(clippy::large_enum_variant)]
pub enum Batch {
    /// Images, vectors of features, logits: f32, NCHW.
    F32(Device<f32>),
    /// Activations, or their gradients.
    Bf16(Activations),
}

/// Activations in bf16, or their gradient.
pub struct Activations {
    d: ChannelDims,
    /// How to compute them, if they are not in memory yet.
    deferred: Option<Deferred>,
    materialized: OnceLock<Materialized>,
    /// Mean and variance of each channel of a convolution's output.
    statistics: Option<[Arc<Device<f32>>; 2]>,
    /// Of a gradient that has been through the ReLU of a normalisation: the gradients of its parameters, and of those of the
    /// normalisation that made its residual.
    sums: Vec<NormSums>,
}

/// Channels of a pixel that a thread reads and writes at a time: eight bf16, sixteen bytes.
const VEC8: u32 = 8;

/// Such groups of channels in a batch.
fn vec8s(d: &ChannelDims) -> usize {
    d.n as usize * d.hw as usize * d.c.div_ceil(VEC8) as usize
}

impl From<Device<f32>> for Buf {
    fn from(data: Device<f32>) -> Self {
        Arc::new(data).into()
    }
}

impl From<Arc<Device<f32>>> for Buf {
    fn from(data: Arc<Device<f32>>) -> Self {
        Buf { data, packed: OnceLock::new() }
    }
}

impl PlainBuf for Buf {
    fn f32(&self) -> &Device<f32> {
        &self.data
    }

    fn f32_mut(&mut self) -> &mut Device<f32> {
        self.packed.take();
        self.in_place()
    }

    fn in_place(&mut self) -> &mut Device<f32> {
        Arc::get_mut(&mut self.data).expect("no parameter changes while activations of the same pass depend on it")
    }
}

impl From<Device<f32>> for Batch {
    fn from(data: Device<f32>) -> Self {
        Batch::F32(data)
    }
}

impl From<Activations> for Batch {
    fn from(activations: Activations) -> Self {
        Batch::Bf16(activations)
    }
}

impl Precision for Bf16 {
    type Buf = Buf;
    type Batch = Batch;

    fn new(context: &Arc<Context>, compute_capability: Option<(i32, i32)>) -> Self {
        Bf16 {
            f32: Cuda { context: context.clone(), precision: F32 },
            arrivals: context.upload_slice(&[0; ARRIVALS as usize]),
            table: compute_capability.map_or_else(Table::default, Table::of),
            warpgroups: compute_capability == Some((9, 0)),
            trial: AtomicUsize::new(usize::MAX),
        }
    }

    fn cast_f32<'a>(cuda: &Cuda<Bf16>, x: &'a Batch) -> MaybeOwned<'a, Device<f32>> {
        match x {
            Batch::F32(x) => MaybeOwned::Borrowed(x),
            Batch::Bf16(x) => MaybeOwned::Owned(cuda.to_f32(x)),
        }
    }

    fn f32_mut<'a>(cuda: &Cuda<Bf16>, x: &'a mut Batch) -> &'a mut Device<f32> {
        if let Batch::Bf16(activations) = x {
            *x = Batch::F32(cuda.to_f32(activations));
        }
        match x {
            Batch::F32(x) => x,
            Batch::Bf16(_) => unreachable!("just converted"),
        }
    }

    fn copy_batch(cuda: &Cuda<Bf16>, x: &Batch) -> Batch {
        match x {
            Batch::F32(x) => cuda.copy_of(x).into(),
            Batch::Bf16(x) => Activations::shared(&x.d, cuda.data(x).clone()).into(),
        }
    }

    /// Weights that had been packed are packed again, all at once.
    fn updated<'a>(cuda: &Cuda<Bf16>, params: impl Iterator<Item = &'a Buf>) {
        let packed: Vec<(&Device<f32>, &PackedWeights)> =
            params.filter_map(|param| Some((&*param.data, param.packed.get()?))).collect();
        cuda.pack(&packed);
    }
}

impl Cuda<Bf16> {
    /// From now on each convolution takes the tile that is number `trial` of those that fit it, in the order in which the rules
    /// prefer them, or the first if there are fewer: there are never more than [`TILES`]. `None` ends that.
    pub fn try_tiles(&self, trial: Option<usize>) {
        self.precision.trial.store(trial.unwrap_or(usize::MAX), Ordering::Relaxed);
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

    /// Of the configurations that fit a convolution, best first, the one to be taken; `tile` says which tile it uses.
    fn select<C: Copy>(&self, pass: Pass, d: &Conv2dDims, configs: &[C], tile: impl Fn(&C) -> usize) -> Option<C> {
        let Bf16 { table, trial, .. } = &self.precision;
        let selected = match trial.load(Ordering::Relaxed) {
            usize::MAX => table.tile(pass, d).and_then(|tuned| configs.iter().find(|config| tile(config) == tuned)),
            trial => configs.get(trial),
        };
        selected.or(configs.first()).copied()
    }

    /// Memory for activations.
    fn alloc_activations(&self, d: &ChannelDims) -> Device<u16> {
        self.alloc(vec8s(d) * VEC8 as usize)
    }
}
