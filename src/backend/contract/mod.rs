//! The traits, one file a family.

mod activation;
mod apgd;
mod conv;
mod conv_pool;
mod cw_l2;
mod elementwise;
mod fab;
mod images;
mod linear;
mod loss;
mod memory;
mod norm;
mod optim;
mod pgd;
mod pool;
mod prune;
mod samples;
mod sequential;
mod square;

pub use activation::*;
pub use apgd::*;
pub(crate) use conv::accumulate;
pub use conv::*;
pub use conv_pool::*;
pub use cw_l2::*;
pub use elementwise::*;
pub use fab::*;
pub use images::*;
pub use linear::*;
pub use loss::*;
pub use memory::*;
pub use norm::*;
pub use optim::*;
pub use pgd::*;
pub use pool::*;
pub use prune::*;
pub use samples::*;
pub use sequential::*;
pub use square::*;

macro_rules! families {
    ($($family:ident)+) => {
        /// Every kernel family: what the tape, the attacks and the training loop need of a device.
        pub trait Backend: $($family +)+ {}

        impl<B: $($family +)+> Backend for B {}
    };
}

families! {
    Elementwise Conv Linear Norm Pool ConvPool Loss Optim Prune Images Samples Pgd Apgd Fab Square CwL2
}
