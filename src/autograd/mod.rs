//! Tensors, the tape that records a forward pass, and the differentiable ops.

pub mod ops;
pub mod tape;
pub mod tensor;
