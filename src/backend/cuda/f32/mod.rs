//! The families of ops in f32, one file each.

mod conv;
mod elementwise;
mod images;
mod lenet;
mod linear;
mod loss;
mod norm;
mod optim;
mod perturb;
mod pgd;
mod pool;
mod prune;

use super::runtime::kernel::Declared;

/// The kernels of each family.
pub(super) const KERNELS: &[&[Declared]] = &[
    conv::KERNELS,
    elementwise::KERNELS,
    images::KERNELS,
    lenet::KERNELS,
    linear::KERNELS,
    loss::KERNELS,
    norm::KERNELS,
    optim::KERNELS,
    perturb::KERNELS,
    pgd::KERNELS,
    pool::KERNELS,
    prune::KERNELS,
];
