//! Differentiable ops, one file a family: each checks its shapes, calls the backend and records how to go back.

mod conv;
mod conv_pool;
mod elementwise;
mod linear;
mod loss;
mod norm;
mod pool;

pub use conv::conv2d;
pub use conv_pool::conv2d_pool;
pub use elementwise::{activate, add};
pub use linear::linear;
pub use loss::loss;
pub use norm::{BatchNorm, batch_norm};
pub use pool::{global_avg_pool, max_pool2d};

use crate::autograd::tape::ParamVar;
use crate::autograd::tensor::Tensor;
use crate::backend::{Activation, Backend};
use crate::base::error::{Error, Result};

/// Fails in the name of `op` unless `param` has the sizes `expected`.
fn expect_dims<B: Backend>(op: &'static str, what: &str, param: &ParamVar<B>, expected: &[usize]) -> Result<()> {
    if param.dims() == expected {
        return Ok(());
    }
    Err(Error::Shape { op, expected: format!("{what} {expected:?}"), got: format!("{:?}", param.dims()) })
}

/// The output of an op, if the gradient of its activation is computed from it.
fn saved_output<B: Backend>(activation: Activation, y: &Tensor<B>) -> Option<Tensor<B>> {
    (!activation.is_identity()).then(|| y.clone())
}
