//! Modules that every other module may use and that use no other.

pub mod binomial;
pub mod csv;
pub mod dims;
pub mod error;
pub mod files;
pub mod layout;
pub mod maybe_owned;
pub mod named_enum;
pub mod nvtx;
pub mod rng;
