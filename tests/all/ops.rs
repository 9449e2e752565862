//! The kernels of every backend.
//!
//! - `recorded`: every op, forward and backward, against PyTorch
//! - `conv_pool`: convolution, ReLU and pooling as one op against the three apart
//! - `prepared`: forms of a weight that the CPU keeps are those of the weight as it is now
//! - `definitions`: normalisation, pooling, losses, linear layers and updates against plain loops
//! - `edges`: NaN, ties, huge values, batches that do not fill the backend's blocks
//! - `images`: the gathering of batches, against plain loops
//! - `samples`: ops on single images of a batch, against plain loops in f64
//! - `pgd`, `apgd`, `fab`, `square`, `cw_l2`: the steps of the attacks, against plain loops
//! - `threads`: a convolution's bits under several numbers of threads, and how backends divide the cores
//! - `winograd`: convolutions by Winograd's algorithm on every vector path of the CPU against f64
//! - `norm`: the CPU's loops over planes on every vector path against f64: few images, large means, NaN, threads

pub mod apgd;
pub mod conv_pool;
pub mod cw_l2;
pub mod definitions;
pub mod edges;
pub mod fab;
pub mod images;
pub mod norm;
pub mod pgd;
pub mod prepared;
pub mod recorded;
pub mod samples;
pub mod square;
pub mod threads;
pub mod winograd;
