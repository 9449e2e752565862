//! The kernels of every backend.
//!
//! - `recorded`: every op, forward and backward, against PyTorch
//! - `edges`: NaN, ties, huge values, batches that do not fill the backend's blocks
//! - `images`: the attack's own steps and the gathering of batches, against plain loops

pub mod edges;
pub mod images;
pub mod recorded;
