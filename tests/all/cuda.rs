//! The CUDA backend as a whole.
//!
//! - `accuracy`: what mixed precision costs, measured
//! - `host_time`: what the host does for a step, measured
//! - `lenet`: the attack on a LeNet by one kernel
//! - `bf16`: the ops in mixed precision against the CPU on rounded numbers
//! - `norm`: batch normalisation with all that is fused into it against the CPU
//! - `rounds`: sizes for which a launch's blocks go round more than once
//! - `runtime`: what reaches the driver: graphs, allocations, transfers, faults
//! - `shapes`: products of every tile, and sums over channels however they are split, against the CPU
//! - `spy`: a driver that counts
//! - `steps`: steps of training against the CPU
//! - `tested`: which test is there for which kernel

mod accuracy;
mod bf16;
mod host_time;
mod lenet;
mod norm;
mod rounds;
mod runtime;
mod shapes;
mod spy;
mod steps;
pub mod tested;
