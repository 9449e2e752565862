//! The contract of a backend: one small trait per kernel family, [`Backend`] is their sum.
//!
//! Buffers are opaque, so a backend chooses its own layout and precision. There are two kinds, [`Memory::Buf`] and
//! [`Memory::Batch`]. Arguments come in the order dims, inputs, outputs. Shapes are checked by the ops that call these functions;
//! a backend may assume that they fit.
//!
//! Everything is deterministic: the same inputs give the same bits, whatever the number of threads.

mod contract;
pub mod cpu;
pub mod cuda;

pub(crate) use contract::accumulate;
pub use contract::*;
