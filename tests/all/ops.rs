//! The kernels of every backend.
//!
//! - `recorded`: every op, forward and backward, against PyTorch
//! - `conv3x3`: 3×3 convolutions on every vector path of the CPU against f64
//! - `conv_pool`: convolution, ReLU and pooling as one op against the three apart
//! - `prepared`: forms of a weight that the CPU keeps are those of the weight as it is now
//! - `definitions`: normalisation, pooling, losses, linear layers and updates against plain loops
//! - `edges`: NaN, ties, huge values, batches that do not fill the backend's blocks
//! - `images`: the attack's own steps and the gathering of batches, against plain loops
//! - `perturb`: moves of the attacks beyond PGD, against plain loops in f64
//! - `threads`: a convolution's bits under several numbers of threads
//! - `norm`: the CPU's loops over planes on every vector path against f64: few images, large means, NaN, threads

pub mod conv3x3;
pub mod conv_pool;
pub mod definitions;
pub mod edges;
pub mod images;
pub mod norm;
pub mod perturb;
pub mod prepared;
pub mod recorded;
pub mod threads;
