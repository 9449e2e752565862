//! Ops on single images of a batch.

use super::Memory;

/// How far images are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Largest difference of a pixel.
    LInf,
    /// Euclidean.
    L2,
}

/// Ops that treat each image of a batch on its own.
pub trait Samples: Memory {
    /// `to = from` for the images that are `chosen`.
    fn copy_samples(&self, chosen: &[bool], from: &Self::Batch, to: &mut Self::Batch);
    /// Distance of each of `n` images of `a` from that of `b`, in f64.
    fn distances(&self, n: usize, distance: Distance, a: &Self::Batch, b: &Self::Batch) -> Vec<f64>;
}
