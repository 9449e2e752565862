//! The CUDA backend as a whole.
//!
//! - `accuracy`: what mixed precision costs, measured
//! - `lenet`: the attack on a LeNet by one kernel
//! - `mixed`: the ops in mixed precision against the CPU on rounded numbers
//! - `runtime`: what reaches the driver: graphs, allocations, transfers, faults
//! - `shapes`: products of every tile, and sums over channels of every cut, against the CPU
//! - `steps`: steps of training against the CPU

mod accuracy;
mod lenet;
mod mixed;
mod runtime;
mod shapes;
mod steps;
