//! Sums over the pixels of one channel in one block of images.

use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::Element;

/// The sum of the pixels, per lane.
pub struct Sum<'a, T> {
    pub x: &'a [[T; LANES]],
}

impl<T: Element> Sum<'_, T> {
    pub fn plain(self) -> [T; LANES] {
        let mut sum = [T::zero(); LANES];
        for x in self.x {
            for l in 0..LANES {
                sum[l] += x[l];
            }
        }
        sum
    }
}

/// The sums of `x - centre` and of its square, per lane.
pub struct Deviations<'a, T> {
    pub centre: T,
    pub x: &'a [[T; LANES]],
}

impl<T: Element> Deviations<'_, T> {
    pub fn plain(self) -> [[T; LANES]; 2] {
        let [mut sum, mut squares] = [[T::zero(); LANES]; 2];
        for x in self.x {
            for l in 0..LANES {
                let deviation = x[l] - self.centre;
                sum[l] += deviation;
                squares[l] += deviation * deviation;
            }
        }
        [sum, squares]
    }
}
