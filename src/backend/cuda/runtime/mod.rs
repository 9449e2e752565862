//! Kernels, memory and launches, whatever the kernels compute.

pub(super) mod allocator;
pub(super) mod compile;
pub(super) mod context;
pub mod driver;
pub mod kernel;
pub mod modules;
pub(super) mod nvidia;
pub(super) mod queue;
pub(super) mod timing;
