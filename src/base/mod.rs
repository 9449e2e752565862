//! What every other module may use and what uses none of them.

pub mod csv;
pub mod dims;
pub mod error;
pub mod layout;
pub mod named_enum;
pub mod nvtx;
pub mod rng;
