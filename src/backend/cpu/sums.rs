//! Sums over a plane: the pixels of one channel in one block of images.
//!
//! A plane is summed per lane in `T`, and what lanes and planes give is put together in f64, blocks in order. So the
//! planes can be shared out to any number of threads, and no sum is long enough to lose digits in f32.

use super::jobs::Sum;
use super::{Buf, Cpu, LANES, Real, Work, blocks, lanes, lanes_mut};
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

    /// Zeros where there are no images: sums over gradients include the padding lanes.
    pub fn clear_padding<T: Real>(&self, pixels: &mut [[T; LANES]]) {
        if self.images < LANES {
            pixels.iter_mut().for_each(|pixel| pixel[self.images..].fill(T::zero()));
        }
    }
}

/// A plane with its pixels in a batch that is written.
pub type PlaneMut<'a, T> = (Plane, &'a mut [[T; LANES]]);

/// The planes of each channel, blocks in order.
pub fn channels_mut<'a, T>(d: &ChannelDims, x: &'a mut [T]) -> Vec<Vec<PlaneMut<'a, T>>> {
    let mut channels: Vec<Vec<PlaneMut<'a, T>>> = Vec::new();
    channels.resize_with(d.c as usize, || Vec::with_capacity(blocks(d.n as usize)));
    for (i, pixels) in lanes_mut(x).chunks_exact_mut(d.hw as usize).enumerate() {
        let plane = Plane::of(d, i);
        channels[plane.channel].push((plane, pixels));
    }
    channels
}

/// Work on some channels of `buffers` batches.
pub fn channel_work(d: &ChannelDims, channels: usize, buffers: usize) -> Work {
    Work::Elements(buffers * channels * blocks(d.n as usize) * d.hw as usize * LANES)
}

impl<T: Real> Cpu<T> {
    /// `f` of each channel and its item. It reads and writes the channel in `buffers` batches.
    pub(super) fn map_channels<I: Send, R: Send + Clone + Default>(
        &self,
        d: &ChannelDims,
        buffers: usize,
        items: impl IntoIterator<Item = I>,
        f: impl Fn(usize, I) -> R + Sync,
    ) -> Vec<R> {
        let c = d.c as usize;
        let mut all = vec![R::default(); c];
        let items = all.iter_mut().zip(items);
        self.for_items(channel_work(d, c, buffers), items, |channel, (out, item)| *out = f(channel, item));
        all
    }

    /// `f` of each plane of a channel, blocks in order. It reads the plane in `buffers` batches.
    pub(super) fn map_planes<R: Send + Clone + Default>(
        &self,
        d: &ChannelDims,
        channel: usize,
        buffers: usize,
        f: impl Fn(Plane) -> R + Sync,
    ) -> Vec<R> {
        let (c, mut all) = (d.c as usize, vec![R::default(); blocks(d.n as usize)]);
        self.for_items(channel_work(d, 1, buffers), all.iter_mut(), |block, out| {
            *out = f(Plane::of(d, block * c + channel));
        });
        all
    }

    /// Per channel, the sum over all images and pixels.
    pub(super) fn channel_sums(&self, d: &ChannelDims, x: &Buf<T>) -> Vec<f64> {
        let of = |plane: Plane| over_images(&T::sum(self.arch, Sum { x: plane.pixels(x) }), plane.images);
        self.map_channels(d, 1, 0..d.c, |channel, _| self.map_planes(d, channel, 1, of).iter().sum())
    }
}
