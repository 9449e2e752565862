//! A buffer with a shape.

use std::fmt;
use std::sync::Arc;

use crate::backend::Memory;
use crate::base::error::{Error, Result};

/// Shape of a tensor, and with it the kind of its buffer.
#[derive(Clone, PartialEq, Eq)]
pub enum Shape {
    /// Parameters, statistics, losses: any rank, PyTorch's order.
    Plain(Vec<usize>),
    /// Activations: NCHW; vectors are `[n, features, 1, 1]`.
    Batch([usize; 4]),
}

impl Shape {
    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        match self {
            Shape::Plain(dims) => dims,
            Shape::Batch(dims) => dims,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Plain(dims) => write!(f, "{dims:?}"),
            Shape::Batch(dims) => write!(f, "batch {dims:?}"),
        }
    }
}

/// Values on a device. Cloning shares the buffer.
pub struct Tensor<B: Memory> {
    buf: Arc<B::Buf>,
    shape: Shape,
}

impl<B: Memory> Clone for Tensor<B> {
    fn clone(&self) -> Self {
        Tensor { buf: self.buf.clone(), shape: self.shape.clone() }
    }
}

impl<B: Memory> Tensor<B> {
    /// A tensor around a buffer of that shape.
    pub fn new(buf: B::Buf, shape: Shape) -> Self {
        Tensor { buf: Arc::new(buf), shape }
    }

    /// A plain tensor from values in PyTorch's order.
    pub fn plain(backend: &B, dims: &[usize], values: &[f32]) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Tensor::new(backend.upload(values), Shape::Plain(dims.to_vec()))
    }

    /// A batch from values in NCHW order.
    pub fn batch(backend: &B, dims: [usize; 4], values: &[f32]) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Tensor::new(backend.upload_batch(dims[0], values), Shape::Batch(dims))
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The shape if it is a batch.
    ///
    /// # Errors
    /// [`Error::Shape`], in the name of `op`, if it is not.
    pub fn batch_dims(&self, op: &'static str) -> Result<[usize; 4]> {
        match self.shape {
            Shape::Batch(dims) => Ok(dims),
            Shape::Plain(_) => Err(Error::Shape { op, expected: "a batch".into(), got: format!("{:?}", self.shape) }),
        }
    }

    /// The buffer.
    pub fn buf(&self) -> &B::Buf {
        &self.buf
    }

    /// The buffer, to change in place.
    ///
    /// # Errors
    /// [`Error::Shape`] while another tensor or a tape shares it.
    pub fn buf_mut(&mut self) -> Result<&mut B::Buf> {
        Arc::get_mut(&mut self.buf).ok_or_else(shared)
    }

    /// The values on the host.
    pub fn values(&self, backend: &B) -> Vec<f32> {
        match self.shape {
            Shape::Plain(_) => backend.download(&self.buf),
            Shape::Batch(dims) => backend.download_batch(dims[0], &self.buf),
        }
    }
}

fn shared() -> Error {
    Error::Shape {
        op: "in-place update",
        expected: "a buffer of its own".into(),
        got: "a buffer that a tape still shares".into(),
    }
}
