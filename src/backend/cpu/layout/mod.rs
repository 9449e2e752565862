//! How tensors lie in memory: blocks of images side by side, buffers, and the sizes of convolutions.

pub mod arena;
pub mod element;
pub mod sizes;

/// Images in the innermost dimension of a batch: one AVX-512 register of f32, two of AVX2.
pub const LANES: usize = 16;

/// Blocks of [`LANES`] images that hold `n` images.
pub fn blocks(n: usize) -> usize {
    n.div_ceil(LANES)
}

/// Index of `feature` of `sample` in a batch with that many features per sample.
pub fn lane_index(sample: usize, feature: usize, features: usize) -> usize {
    (sample / LANES * features + feature) * LANES + sample % LANES
}

/// The same memory as one array per pixel. A batch's length is a multiple of [`LANES`].
pub fn lanes<T>(x: &[T]) -> &[[T; LANES]] {
    x.as_chunks().0
}

/// As [`lanes`], to write to.
pub fn lanes_mut<T>(x: &mut [T]) -> &mut [[T; LANES]] {
    x.as_chunks_mut().0
}
