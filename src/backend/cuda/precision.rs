//! Precisions: how activations are stored and computed with.

use std::sync::Arc;

use super::{Context, Cuda, Device};
use crate::base::maybe_owned::MaybeOwned;

/// How activations are stored and computed with.
pub trait Precision: Send + Sync + Sized + 'static {
    /// A parameter, a statistic or a mask: f32, and what a precision has made of it.
    type Buf: PlainBuf;
    /// A batch of images, activations or logits.
    type Batch: From<Device<f32>> + Send + Sync;

    /// For a backend on this context; without a compute capability, on something that is no GPU.
    fn new(context: &Arc<Context>, compute_capability: Option<(i32, i32)>) -> Self;

    /// The batch in f32, NCHW.
    fn cast_f32<'a>(cuda: &Cuda<Self>, x: &'a Self::Batch) -> MaybeOwned<'a, Device<f32>>;

    /// The batch in f32 to change in place.
    fn f32_mut<'a>(cuda: &Cuda<Self>, x: &'a mut Self::Batch) -> &'a mut Device<f32>;

    /// A copy.
    fn copy_batch(cuda: &Cuda<Self>, x: &Self::Batch) -> Self::Batch;

    /// Recomputes the values derived from these parameters, such as packed weights, after `PlainBuf::in_place` has changed them.
    fn updated<'a>(cuda: &Cuda<Self>, params: impl Iterator<Item = &'a Self::Buf>);
}

/// Storage of a parameter.
pub trait PlainBuf: From<Device<f32>> + Send + Sync {
    /// The values.
    fn f32(&self) -> &Device<f32>;

    /// The values, to change. What a precision has made of the old ones is forgotten.
    fn f32_mut(&mut self) -> &mut Device<f32>;

    /// The values, to change before [`Precision::updated`] is called.
    fn in_place(&mut self) -> &mut Device<f32>;
}
