//! Buffers with a shape, of two kinds: batches and parameters.

use std::fmt;
use std::sync::Arc;

use crate::backend::Memory;
use crate::base::error::{Error, Result};

/// Shape of a batch: `[n, c, h, w]`; vectors are `[n, features, 1, 1]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Shape(pub [usize; 4]);

impl Shape {
    /// The sizes.
    pub fn dims(&self) -> [usize; 4] {
        self.0
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {:?}", self.0)
    }
}

/// A batch of images, activations, logits or their gradients on a device. Cloning shares the buffer.
pub struct Tensor<B: Memory> {
    buf: Arc<B::Batch>,
    shape: Shape,
}

impl<B: Memory> Clone for Tensor<B> {
    fn clone(&self) -> Self {
        Tensor { buf: self.buf.clone(), shape: self.shape.clone() }
    }
}

impl<B: Memory> Tensor<B> {
    /// A tensor around a buffer of that shape.
    pub fn new(buf: B::Batch, shape: Shape) -> Self {
        Tensor { buf: Arc::new(buf), shape }
    }

    /// A tensor from values in NCHW order.
    pub fn upload(backend: &B, dims: [usize; 4], values: &[f32]) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Tensor::new(backend.upload_batch(dims[0], values), Shape(dims))
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The buffer.
    pub fn buf(&self) -> &B::Batch {
        &self.buf
    }

    /// The buffer, to change in place.
    ///
    /// # Errors
    /// [`Error::Shape`] while another tensor or a tape shares it.
    pub fn buf_mut(&mut self) -> Result<&mut B::Batch> {
        Arc::get_mut(&mut self.buf).ok_or_else(shared)
    }

    /// The values on the host, in NCHW order.
    pub fn values(&self, backend: &B) -> Vec<f32> {
        backend.download_batch(self.shape.0[0], &self.buf)
    }
}

/// A parameter, a statistic, a loss or the gradient of one on a device: any rank, in PyTorch's order. Cloning shares the
/// buffer.
pub struct Param<B: Memory> {
    buf: Arc<B::Buf>,
    dims: Vec<usize>,
}

impl<B: Memory> Clone for Param<B> {
    fn clone(&self) -> Self {
        Param { buf: self.buf.clone(), dims: self.dims.clone() }
    }
}

impl<B: Memory> Param<B> {
    /// A parameter around a buffer of that shape.
    pub fn new(buf: B::Buf, dims: Vec<usize>) -> Self {
        Param { buf: Arc::new(buf), dims }
    }

    /// A parameter from values in PyTorch's order.
    pub fn upload(backend: &B, dims: &[usize], values: &[f32]) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Param::new(backend.upload(values), dims.to_vec())
    }

    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer.
    pub fn buf(&self) -> &B::Buf {
        &self.buf
    }

    /// The buffer, to change in place.
    ///
    /// # Errors
    /// [`Error::Shape`] while another parameter or a tape shares it.
    pub fn buf_mut(&mut self) -> Result<&mut B::Buf> {
        Arc::get_mut(&mut self.buf).ok_or_else(shared)
    }

    /// The values on the host.
    pub fn values(&self, backend: &B) -> Vec<f32> {
        backend.download(&self.buf)
    }
}

fn shared() -> Error {
    Error::Shape {
        op: "in-place update",
        expected: "a buffer of its own".into(),
        got: "a buffer that a tape still shares".into(),
    }
}
