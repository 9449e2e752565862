//! Max pooling. An index says which pixel of a window is the maximum, counted row by row.

use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::Element;

/// Index 0 as it is stored: added to an index, so that the lowest bits of the f32 are the index's bits.
pub const FIRST_INDEX: f32 = 8_388_608.0;

/// The index that is stored as `index`; 0 if that is none.
pub fn index_of<T: Element>(index: T) -> usize {
    (index.as_f32() - FIRST_INDEX) as usize
}

/// Forward pass of one channel of one block of images.
pub struct MaxPool2dFwd<'a, T> {
    pub k: usize,
    pub stride: usize,
    pub w_in: usize,
    pub w_out: usize,
    pub x: &'a [[T; LANES]],
    pub y: &'a mut [[T; LANES]],
    pub indices: &'a mut [[T; LANES]],
}

impl<T: Element> MaxPool2dFwd<'_, T> {
    /// Compares every pixel with the best so far. A NaN is larger than any number and stays, because no number is larger.
    pub fn plain(self) {
        for (i, (y, index)) in self.y.iter_mut().zip(self.indices).enumerate() {
            let window = &self.x[(i / self.w_out * self.w_in + i % self.w_out) * self.stride..];
            (*y, *index) = (window[0], [T::of(FIRST_INDEX); LANES]);
            for q in 0..self.k * self.k {
                let x = &window[q / self.k * self.w_in + q % self.k];
                for l in 0..LANES {
                    if x[l] > y[l] || x[l].is_nan() {
                        (y[l], index[l]) = (x[l], T::of(FIRST_INDEX + q as f32));
                    }
                }
            }
        }
    }
}

/// Backward pass of the same, added to `dx`.
pub struct MaxPool2dBwd<'a, T> {
    pub k: usize,
    pub stride: usize,
    /// Pixels between the rows of `dx`.
    pub w_in: usize,
    pub w_out: usize,
    pub indices: &'a [[T; LANES]],
    pub dy: &'a [[T; LANES]],
    pub dx: &'a mut [[T; LANES]],
}

impl<T: Element> MaxPool2dBwd<'_, T> {
    /// Adds each gradient at the index of its window's maximum.
    pub fn plain(self) {
        for (i, (dy, index)) in self.dy.iter().zip(self.indices).enumerate() {
            let window = &mut self.dx[(i / self.w_out * self.w_in + i % self.w_out) * self.stride..];
            for l in 0..LANES {
                let q = index_of(index[l]);
                window[q / self.k * self.w_in + q % self.k][l] += dy[l];
            }
        }
    }
}
