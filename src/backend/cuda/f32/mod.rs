//! The families of ops in f32, one file each.

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

use super::runtime::kernel::KernelSpec;

/// The prototypes of the kernels.
pub(super) fn kernels() -> Vec<KernelSpec> {
    [
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
    ]
    .concat()
}
