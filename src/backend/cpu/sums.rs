//! Sums over a plane: the pixels of one channel in one block of images.
//!
//! A plane is summed per lane in `T`, and what lanes and planes give is put together in f64, blocks in order. So the
//! planes can be shared out to any number of threads, and no sum is long enough to lose digits in f32.

use super::jobs::Sum;
use super::{Buf, Cpu, LANES, Real, blocks, lanes};
use crate::base::dims::ChannelDims;

/// The sum over the lanes that hold images: the padding ones hold anything.
pub fn over_images<T: Real>(lanes: &[T; LANES], images: usize) -> f64 {
    lanes[..images].iter().map(|v| v.as_f64()).sum()
}

/// A plane of a batch: which channel, where its pixels are, and in how many of its lanes there are images.
pub struct Plane {
    pub channel: usize,
    first: usize,
    hw: usize,
    pub images: usize,
}

impl Plane {
    /// The `index`-th plane in memory.
    pub fn of(d: &ChannelDims, index: usize) -> Self {
        let (c, hw) = (d.c as usize, d.hw as usize);
        let images = (d.n as usize - index / c * LANES).min(LANES);
        Plane { channel: index % c, first: index * hw, hw, images }
    }

    /// Its pixels in `x`.
    pub fn pixels<'a, T>(&self, x: &'a [T]) -> &'a [[T; LANES]] {
        &lanes(x)[self.first..][..self.hw]
    }
}

impl<T: Real> Cpu<T> {
    /// `f` of every plane, in memory's order. Each reads the plane in `buffers` batches.
    pub(super) fn map_planes<R: Send + Clone + Default>(
        &self,
        d: &ChannelDims,
        buffers: usize,
        f: impl Fn(Plane) -> R + Sync,
    ) -> Vec<R> {
        let planes = blocks(d.n as usize) * d.c as usize;
        let mut all = vec![R::default(); planes];
        let elements = buffers * planes * d.hw as usize * LANES;
        self.for_items(elements, all.iter_mut(), |i, out| *out = f(Plane::of(d, i)));
        all
    }

    /// Per channel, the sum over all images and pixels.
    pub(super) fn channel_sums(&self, d: &ChannelDims, x: &Buf<T>) -> Vec<f64> {
        let partials = self.map_planes(d, 1, |plane| {
            let sum = T::sum(self.arch, Sum { x: plane.pixels(x) });
            over_images(&sum, plane.images)
        });
        (0..d.c as usize).map(|c| partials.iter().skip(c).step_by(d.c as usize).sum()).collect()
    }
}
