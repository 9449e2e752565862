//! 2-d convolution as a correlation over taps.

use super::jobs::{Conv2dBwdWeight, WinogradConv};
use super::layout::sizes::{Padding, Sizes};
use super::{Buf, Cpu, Kernel, LANES, Real, Work, blocks, lanes};
use crate::backend::{Accumulation, Activation, Conv, Memory, accumulate};
use crate::base::dims::{ChannelDims, Conv2dDims};

/// Output positions (pixels times blocks of images) of which the weight gradient takes a sum in registers, if there are
/// as many: adding up the lanes at the end is not to count.
const POSITIONS: usize = 256;

/// Vectors of `dy` that the weight gradient goes through for every input channel: half a second-level cache.
const REUSED: usize = (512 << 10) / (LANES * size_of::<f32>());

impl Sizes {
    /// Offsets of the taps into the padded input, in weight order.
    fn tap_offsets(&self) -> Vec<u32> {
        let ((width, plane), kk) = (self.padded_x(), self.k * self.k);
        (0..self.c_in * kk).map(|i| (i / kk * plane + i % kk / self.k * width + i % self.k) as u32).collect()
    }
}

/// A batch with zeros around its images.
pub(super) enum Padded<'a, T: Real> {
    Same(&'a [T]),
    Copy(Buf<T>),
}

impl<T: Real> std::ops::Deref for Padded<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Padded::Same(x) => x,
            Padded::Copy(x) => x,
        }
    }
}

impl<T: Real> Cpu<T> {
    /// A copy of a batch of `[c, h, w]` images with zeros around them, or the batch itself if there are none.
    pub(super) fn pad<'a>(
        &self,
        x: &'a [T],
        c: usize,
        h: usize,
        w: usize,
        rows: Padding,
        cols: Padding,
    ) -> Padded<'a, T> {
        let none = Padding { before: 0, after: 0 };
        if rows == none && cols == none {
            return Padded::Same(x);
        }
        let (hp, wp) = (h + rows.before + rows.after, w + cols.before + cols.after);
        let samples = x.len() / (c * h * w * LANES);
        let mut padded = self.alloc(samples * c * hp * wp * LANES);
        self.for_chunks(Work::Elements(x.len() + padded.len()), &mut padded, c * hp * wp * LANES, |b, block| {
            let source = &x[b * c * h * w * LANES..];
            for (i, row) in block.chunks_exact_mut(wp * LANES).enumerate() {
                let (channel, y) = (i / hp, i % hp);
                if y < rows.before || y >= rows.before + h {
                    row.fill(T::zero());
                    continue;
                }
                let (left, rest) = row.split_at_mut(cols.before * LANES);
                let (middle, right) = rest.split_at_mut(w * LANES);
                left.fill(T::zero());
                middle.copy_from_slice(&source[(channel * h + y - rows.before) * w * LANES..][..w * LANES]);
                right.fill(T::zero());
            }
        });
        Padded::Copy(padded)
    }
}

impl<T: Real> Conv for Cpu<T> {
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Buf<T>, w: &Buf<T>, b: Option<&Buf<T>>, activation: Activation) -> Buf<T> {
        self.count(Kernel::Conv2dFwd);
        let s = Sizes::of(d);
        let bias = b.map(|b| &**b);
        match self.winograd(WinogradConv::fwd(&s), &s, w) {
            Some(layer) => self.winograd_conv(&layer, s.n, x, bias, activation, None),
            None => self.correlate(&self.fwd_correlation(&s, w), s.n, x, bias, activation),
        }
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, x: &Buf<T>, dy: &Buf<T>, w: &Buf<T>) -> Buf<T> {
        self.conv2d_bwd_input_accumulated(d, x, dy, w, Accumulation::Partial)
    }

    fn conv2d_bwd_input_accumulated(
        &self,
        d: &Conv2dDims,
        _x: &Buf<T>,
        dy: &Buf<T>,
        w: &Buf<T>,
        accumulation: Accumulation<Buf<T>>,
    ) -> Buf<T> {
        self.count(Kernel::Conv2dBwdInput);
        let s = Sizes::of(d);
        match self.winograd(WinogradConv::bwd_input(&s), &s, w) {
            Some(layer) => self.winograd_conv(&layer, s.n, dy, None, Activation::Identity, accumulation.sum()),
            None => {
                let own = self.correlate(&self.bwd_input_correlation(&s, w), s.n, dy, None, Activation::Identity);
                accumulate(self, own, accumulation)
            }
        }
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.count(Kernel::Conv2dBwdWeight);
        let s = Sizes::of(d);
        let padding = Padding { before: s.pad, after: s.pad };
        let padded = self.pad(x, s.c_in, s.h_in, s.w_in, padding, padding);
        let ((width, plane), taps) = (s.padded_x(), s.tap_offsets());
        let positions = s.h_out * s.w_out;
        let together = (POSITIONS / positions).clamp(1, blocks(s.n));
        let per_thread = s.c_out.div_ceil(self.threads());
        let channels = (REUSED / (together * positions)).clamp(1, per_thread).next_multiple_of(4);
        let mut dw = self.zeros(s.c_out * taps.len());
        let work = Work::MultiplyAdds(blocks(s.n) * positions * dw.len());
        self.for_chunks(work, &mut dw, channels * taps.len(), |chunk, dw| {
            for block in (0..blocks(s.n)).step_by(together) {
                let job = Conv2dBwdWeight {
                    taps: &taps,
                    blocks: together.min(blocks(s.n) - block),
                    x: &lanes(&padded)[block * s.c_in * plane..],
                    x_block: s.c_in * plane,
                    x_row: s.stride * width,
                    x_col: s.stride,
                    dy: &lanes(dy)[(block * s.c_out + chunk * channels) * positions..],
                    dy_block: s.c_out * positions,
                    rows: s.h_out,
                    cols: s.w_out,
                    dw: &mut *dw,
                };
                T::conv2d_bwd_weight(self.arch, job);
            }
        });
        dw
    }

    fn bias_bwd(&self, d: &ChannelDims, dy: &Buf<T>) -> Buf<T> {
        self.count(Kernel::BiasBwd);
        let sums = self.channel_sums(d, dy);
        self.buffer(&sums.into_iter().map(T::of_f64).collect::<Vec<T>>())
    }
}
