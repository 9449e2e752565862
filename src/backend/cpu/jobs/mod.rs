//! The inner loops as data: a job says what one call computes for one block of images, and its function `plain` is the
//! definition, in any float type. Jobs are named after the functions of the contract that they serve; [`Correlate`] serves
//! convolutions and linear layers alike.

mod conv2d_bwd_weight;
mod conv2d_pool_bwd_input;
mod conv2d_pool_fwd;
mod correlate;
mod gemm;
mod loss;
mod norm;
mod packing;
mod pgd;
mod pool;
mod sums;
mod winograd;

pub use conv2d_bwd_weight::Conv2dBwdWeight;
pub use conv2d_pool_bwd_input::{Conv2dPoolBwdInput, Patches};
pub use conv2d_pool_fwd::Conv2dPoolFwd;
pub use correlate::Correlate;
pub use gemm::{DEPTH, Gemm};
pub use loss::{CrossEntropy, argmax, cross_entropy};
pub use norm::{BatchNormBwd, BatchNormFwd, GradientSums, Normalization, NormalizedPlane, StatisticsTerm};
pub use packing::{PANEL, Packing};
pub use pgd::{PgdStep, RandomStart};
pub use pool::{FIRST_INDEX, MaxPool2dBwd, MaxPool2dFwd};
pub use sums::{Deviations, Sum};
pub use winograd::{Input, Minimal, Output, WinogradConv, WinogradFilters, WinogradStrips, entry_stride};
