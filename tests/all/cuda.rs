//! The CUDA backend as a whole.
//!
//! - `runtime`: what reaches the driver: graphs, allocations, transfers, faults
//! - `steps`: steps of training against the CPU

mod runtime;
mod steps;
