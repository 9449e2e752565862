//! Ops on single images of a batch, and how the attacks go over its blocks: a loop over the pixels of one block of images,
//! compiled for the vector instructions in use. All that differs between the images of a block is in arrays of [`LANES`].

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{Buf, Cpu, LANES, Real, lanes, lanes_mut};
use crate::backend::{Distance, Samples};

/// A pixel of every image of a block.
pub(super) type Pixel<T> = [T; LANES];

/// One value an image of a block, `fill` in lanes without an image.
pub(super) fn in_lanes<S, T: Copy>(values: &[S], fill: T, of: impl Fn(&S) -> T) -> Pixel<T> {
    let mut lanes = [fill; LANES];
    lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane = of(value));
    lanes
}

/// Some lanes of a block: all bits of these are 1, all others 0.
pub(super) struct Chosen<T>(Pixel<T>);

impl<T: Real> Chosen<T> {
    pub fn new<S>(values: &[S], of: impl Fn(&S) -> bool) -> Self {
        let mut lanes = [T::zero(); LANES];
        for (lane, _) in lanes.iter_mut().zip(values).filter(|(_, value)| of(value)) {
            bytemuck::bytes_of_mut(lane).fill(255);
        }
        Chosen(lanes)
    }

    pub fn any(&self) -> bool {
        bytemuck::bytes_of(&self.0).contains(&255)
    }

    /// `to = from` in these lanes. With masks in registers, because of conditions that are the same at every pixel the
    /// compiler makes branches, or gathers.
    #[inline(always)]
    pub fn copy<S: Simd>(&self, simd: S, from: &[Pixel<T>], to: &mut [Pixel<T>]) {
        let (mask, _) = S::as_simd_u32s(bytemuck::cast_slice(&self.0));
        let (from, _) = S::as_simd_u32s(bytemuck::cast_slice(from));
        let (to, _) = S::as_mut_simd_u32s(bytemuck::cast_slice_mut(to));
        for (to, from) in to.chunks_exact_mut(mask.len()).zip(from.chunks_exact(mask.len())) {
            for ((to, from), mask) in to.iter_mut().zip(from).zip(mask) {
                *to = simd.xor_u32s(*to, simd.and_u32s(simd.xor_u32s(*to, *from), *mask));
            }
        }
    }
}

/// Calls `f` for every block of a batch with as many images as `values` has elements: their elements, and the range of
/// the block's pixels.
pub(super) fn for_blocks<V>(values: &[V], len: usize, mut f: impl FnMut(&[V], Range<usize>)) {
    let block = len / values.len().div_ceil(LANES);
    for (b, values) in values.chunks(LANES).enumerate() {
        f(values, b * block..(b + 1) * block);
    }
}

/// [`Samples::copy_samples`] for one block.
struct CopySamples<'a, T> {
    chosen: Chosen<T>,
    from: &'a [Pixel<T>],
    to: &'a mut [Pixel<T>],
}

impl<T: Real> WithSimd for CopySamples<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.chosen.copy(simd, self.from, self.to);
    }
}

/// Largest absolute value and sum of squares of `a - b`, per lane.
struct Distances<'a, T> {
    a: &'a [Pixel<T>],
    b: &'a [Pixel<T>],
}

impl<T: Real> WithSimd for Distances<'_, T> {
    type Output = (Pixel<T>, Pixel<f64>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (Pixel<T>, Pixel<f64>) {
        let (mut largest, mut squares) = ([T::zero(); LANES], [0.0; LANES]);
        for (a, b) in self.a.iter().zip(self.b) {
            for l in 0..LANES {
                let difference = (a[l] - b[l]).abs();
                // NaN counts as the largest: no number is larger than it.
                let larger = difference > largest[l] || difference.is_nan();
                largest[l] = if larger { difference } else { largest[l] };
                squares[l] += difference.as_f64() * difference.as_f64();
            }
        }
        (largest, squares)
    }
}

impl<T: Real> Samples for Cpu<T> {
    fn copy_samples(&self, chosen: &[bool], from: &Buf<T>, to: &mut Buf<T>) {
        for_blocks(chosen, from.len(), |chosen, at| {
            if chosen.contains(&true) {
                let (from, to) = (lanes(&from[at.clone()]), lanes_mut(&mut to[at]));
                self.arch.dispatch(CopySamples { chosen: Chosen::new(chosen, |&c| c), from, to });
            }
        });
    }

    fn distances(&self, n: usize, distance: Distance, a: &Buf<T>, b: &Buf<T>) -> Vec<f64> {
        let mut distances = Vec::with_capacity(n);
        for_blocks(&vec![(); n], a.len(), |images, at| {
            let (largest, squares) = self.arch.dispatch(Distances { a: lanes(&a[at.clone()]), b: lanes(&b[at]) });
            distances.extend((0..images.len()).map(|l| match distance {
                Distance::LInf => largest[l].as_f64(),
                Distance::L2 => squares[l].sqrt(),
            }));
        });
        distances
    }
}
