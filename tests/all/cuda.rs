//! The CUDA backend as a whole.
//!
//! - `runtime`: what reaches the driver: graphs, allocations, transfers, faults
//! - `shapes`: products of every tile, and sums over channels of every cut, against the CPU
//! - `steps`: steps of training against the CPU

mod runtime;
mod shapes;
mod steps;
