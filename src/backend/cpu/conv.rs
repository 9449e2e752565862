//! 2-d convolution as a correlation over taps.

use super::jobs::{Conv2dBwdWeight, Conv3x3, Correlate, Tap};
use super::layout::sizes::{Padding, Sizes};
use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{Conv, Memory};
use crate::base::dims::{ChannelDims, Conv2dDims};

/// Output positions (pixels times blocks of images) of which the weight gradient takes a sum in registers, if there are
/// as many: adding up the lanes at the end is not to count.
const POSITIONS: usize = 256;

/// Vectors of `dy` that the weight gradient goes through for every input channel: half a second-level cache.
const REUSED: usize = (512 << 10) / (LANES * size_of::<f32>());

impl Sizes {
    /// The taps of the forward pass in weight order, for an input whose rows are `width` pixels and whose channels
    /// are `plane` pixels.
    pub(super) fn forward_taps(&self, plane: usize, width: usize) -> Vec<Tap> {
        let kk = self.k * self.k;
        (0..self.c_in * kk)
            .map(|i| {
                let (c, kh, kw) = (i / kk, i % kk / self.k, i % self.k);
                Tap { x: (c * plane + kh * width + kw) as u32, w: i as u32 }
            })
            .collect()
    }

    /// The taps that reach the input pixels `(row, col)` with `row % stride == phase.0` and `col % stride == phase.1`.
    fn gradient_taps(&self, phase: (usize, usize), before: (usize, usize), plane: usize, width: usize) -> Vec<Tap> {
        let shift = |phase: usize, before: usize, k: usize| {
            let distance = phase + self.pad + before * self.stride;
            (distance >= k && (distance - k).is_multiple_of(self.stride)).then(|| (distance - k) / self.stride)
        };
        let mut taps = Vec::new();
        for c in 0..self.c_out {
            for kh in 0..self.k {
                for kw in 0..self.k {
                    if let (Some(row), Some(col)) = (shift(phase.0, before.0, kh), shift(phase.1, before.1, kw)) {
                        let w = (c * self.c_in * self.k + kh) * self.k + kw;
                        taps.push(Tap { x: (c * plane + row * width + col) as u32, w: w as u32 });
                    }
                }
            }
        }
        taps
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
        self.for_chunks(&mut padded, c * hp * wp * LANES, |b, block| {
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

    pub(super) fn padded_input<'a>(&self, s: &Sizes, x: &'a [T]) -> Padded<'a, T> {
        let padding = Padding { before: s.pad, after: s.pad };
        self.pad(x, s.c_in, s.h_in, s.w_in, padding, padding)
    }

    /// [`Conv::conv2d_fwd`] tap by tap; a linear layer, where the image is one pixel.
    pub(super) fn correlate_fwd(&self, s: &Sizes, x: &[T], w: &Buf<T>, b: Option<&Buf<T>>, relu: bool) -> Buf<T> {
        let padded = self.padded_input(s, x);
        let (width, plane) = s.padded();
        let taps = s.forward_taps(plane, width);
        let out = s.c_out * s.h_out * s.w_out;
        let mut y = self.alloc(blocks(s.n) * out * LANES);
        self.for_chunks(&mut y, out * LANES, |block, y| {
            let job = Correlate {
                taps: &taps,
                x: &lanes(&padded)[block * s.c_in * plane..],
                x_row: s.stride * width,
                x_col: s.stride,
                w,
                w_channel: taps.len(),
                bias: b.map(|b| &**b),
                relu,
                channels: s.c_out,
                rows: s.h_out,
                cols: s.w_out,
                y: lanes_mut(y),
                y_first: 0,
                y_channel: s.h_out * s.w_out,
                y_row: s.w_out,
                y_col: 1,
            };
            T::correlate(self.arch, job);
        });
        y
    }

    /// [`Conv::conv2d_bwd_input`] tap by tap; that of a linear layer, where the image is one pixel.
    ///
    /// Input pixels whose row and column leave the same remainder modulo the stride are reached by the same taps, so the
    /// gradient is one dense correlation of `dy` per pair of remainders.
    pub(super) fn correlate_bwd_input(&self, s: &Sizes, dy: &[T], w: &Buf<T>) -> Buf<T> {
        let (rows, cols) = (s.gradient_padding(s.h_in, s.h_out), s.gradient_padding(s.w_in, s.w_out));
        let padded = self.pad(dy, s.c_out, s.h_out, s.w_out, rows, cols);
        let width = s.w_out + cols.before + cols.after;
        let plane = (s.h_out + rows.before + rows.after) * width;
        let phases: Vec<_> = (0..s.stride.min(s.h_in))
            .flat_map(|r| (0..s.stride.min(s.w_in)).map(move |c| (r, c)))
            .map(|phase| (phase, s.gradient_taps(phase, (rows.before, cols.before), plane, width)))
            .collect();
        let out = s.c_in * s.h_in * s.w_in;
        let mut dx = self.alloc(blocks(s.n) * out * LANES);
        self.for_chunks(&mut dx, out * LANES, |block, dx| {
            for ((row, col), taps) in &phases {
                let job = Correlate {
                    taps,
                    x: &lanes(&padded)[block * s.c_out * plane..],
                    x_row: width,
                    x_col: 1,
                    w,
                    w_channel: s.k * s.k,
                    bias: None,
                    relu: false,
                    channels: s.c_in,
                    rows: (s.h_in - row).div_ceil(s.stride),
                    cols: (s.w_in - col).div_ceil(s.stride),
                    y: lanes_mut(dx),
                    y_first: row * s.w_in + col,
                    y_channel: s.h_in * s.w_in,
                    y_row: s.stride * s.w_in,
                    y_col: s.stride,
                };
                T::correlate(self.arch, job);
            }
        });
        dx
    }
}

impl<T: Real> Conv for Cpu<T> {
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Buf<T>, w: &Buf<T>, b: Option<&Buf<T>>, relu: bool) -> Buf<T> {
        self.count(Kernel::Conv2dFwd);
        let s = Sizes::of(d);
        let winograd = Conv3x3::fwd(&s).and_then(|conv| self.conv3x3(s.n, conv, x, w, b.map(|b| &**b), relu));
        winograd.unwrap_or_else(|| self.correlate_fwd(&s, x, w, b, relu))
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, _x: &Buf<T>, dy: &Buf<T>, w: &Buf<T>) -> Buf<T> {
        self.count(Kernel::Conv2dBwdInput);
        let s = Sizes::of(d);
        let winograd = Conv3x3::bwd_input(&s).and_then(|conv| self.conv3x3(s.n, conv, dy, w, None, false));
        winograd.unwrap_or_else(|| self.correlate_bwd_input(&s, dy, w))
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.count(Kernel::Conv2dBwdWeight);
        let s = Sizes::of(d);
        let padded = self.padded_input(&s, x);
        let (width, plane) = s.padded();
        let taps = s.forward_taps(plane, width);
        let positions = s.h_out * s.w_out;
        let together = (POSITIONS / positions).clamp(1, blocks(s.n));
        let per_thread = s.c_out.div_ceil(self.threads.current_num_threads());
        let channels = (REUSED / (together * positions)).clamp(1, per_thread).next_multiple_of(4);
        let mut dw = self.zeros(s.c_out * taps.len());
        self.for_chunks(&mut dw, channels * taps.len(), |chunk, dw| {
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
