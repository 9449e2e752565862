//! The families of ops in f32, one file each. Convolution, normalisation, pooling and elementwise ops are for [`F32`] alone; the
//! others are for any precision.

mod apgd;
mod conv;
mod cw_l2;
mod elementwise;
mod fab;
mod images;
mod lenet;
mod linear;
mod loss;
mod norm;
mod optim;
mod pgd;
mod pool;
mod prune;
mod samples;
mod square;

use std::sync::Arc;

use super::precision::PlainBuf;
use super::runtime::kernel::Declared;
use super::{Context, Cuda, Device, Precision};
use crate::base::maybe_owned::MaybeOwned;

/// Single precision throughout, without tensor cores.
pub struct F32;

impl PlainBuf for Device<f32> {
    fn f32(&self) -> &Device<f32> {
        self
    }

    fn f32_mut(&mut self) -> &mut Device<f32> {
        self
    }

    fn in_place(&mut self) -> &mut Device<f32> {
        self
    }
}

impl Precision for F32 {
    type Buf = Device<f32>;
    type Batch = Device<f32>;

    fn new(_: &Arc<Context>, _: Option<(i32, i32)>) -> Self {
        F32
    }

    fn cast_f32<'a>(_: &Cuda<F32>, x: &'a Device<f32>) -> MaybeOwned<'a, Device<f32>> {
        MaybeOwned::Borrowed(x)
    }

    fn f32_mut<'a>(_: &Cuda<F32>, x: &'a mut Device<f32>) -> &'a mut Device<f32> {
        x
    }

    fn copy_batch(cuda: &Cuda<F32>, x: &Device<f32>) -> Device<f32> {
        cuda.copy_of(x)
    }

    fn updated<'a>(_: &Cuda<F32>, _: impl Iterator<Item = &'a Device<f32>>) {}
}

/// The kernels of each family.
pub(super) const KERNELS: &[&[Declared]] = &[
    apgd::KERNELS,
    conv::KERNELS,
    cw_l2::KERNELS,
    elementwise::KERNELS,
    fab::KERNELS,
    images::KERNELS,
    lenet::KERNELS,
    linear::KERNELS,
    loss::KERNELS,
    norm::KERNELS,
    optim::KERNELS,
    pgd::KERNELS,
    pool::KERNELS,
    prune::KERNELS,
    samples::KERNELS,
    square::KERNELS,
];
