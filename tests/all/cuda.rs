//! The CUDA backend as a whole.
//!
//! - `lenet`: the attack on a LeNet by one kernel
//! - `runtime`: what reaches the driver: graphs, allocations, transfers, faults
//! - `shapes`: products of every tile, and sums over channels of every cut, against the CPU
//! - `steps`: steps of training against the CPU

mod lenet;
mod runtime;
mod shapes;
mod steps;
