//! One trait a family of kernels; [`Backend`] is their sum.

mod conv;
mod conv_pool;
mod elementwise;
mod images;
mod linear;
mod loss;
mod memory;
mod norm;
mod optim;
mod perturb;
mod pgd;
mod pool;
mod prune;

pub(crate) use conv::sum_gathered;
pub use conv::*;
pub use conv_pool::*;
pub use elementwise::*;
pub use images::*;
pub use linear::*;
pub use loss::*;
pub use memory::*;
pub use norm::*;
pub use optim::*;
pub use perturb::*;
pub use pgd::*;
pub use pool::*;
pub use prune::*;

/// Every kernel family: what the tape, the attacks and the training loop need of a device.
pub trait Backend:
    Elementwise + Conv + Linear + Norm + Pool + ConvPool + Loss + Optim + Prune + Attack + Perturb + Images
{
}

impl<B> Backend for B where
    B: Elementwise + Conv + Linear + Norm + Pool + ConvPool + Loss + Optim + Prune + Attack + Perturb + Images
{
}
