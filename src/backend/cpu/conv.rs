//! 2-d convolution as a correlation over taps.

use super::jobs::{Conv2dBwdWeight, Conv3x3, Correlate, Phase, Tap};
use super::layout::sizes::{Padding, Sizes};
use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{Activation, Conv, Memory};
use crate::base::dims::{ChannelDims, Conv2dDims};

/// Output positions (pixels times blocks of images) of which the weight gradient takes a sum in registers, if there are
/// as many: adding up the lanes at the end is not to count.
const POSITIONS: usize = 256;

/// Vectors of `dy` that the weight gradient goes through for every input channel: half a second-level cache.
const REUSED: usize = (512 << 10) / (LANES * size_of::<f32>());

impl Sizes {
    /// The taps of the forward pass in weight order.
    pub(super) fn fwd_taps(&self) -> Vec<Tap> {
        let ((width, plane), kk) = (self.padded_x(), self.k * self.k);
        (0..self.c_in * kk)
            .map(|i| {
                let (c, kh, kw) = (i / kk, i % kk / self.k, i % self.k);
                Tap { x: (c * plane + kh * width + kw) as u32, w: i as u32 }
            })
            .collect()
    }

    /// The taps of the input gradient.
    fn bwd_input_phases(&self) -> Vec<Phase> {
        let rows = 0..self.stride.min(self.h_in);
        let pixels = rows.flat_map(|row| (0..self.stride.min(self.w_in)).map(move |col| (row, col)));
        pixels.map(|(row, col)| Phase { row, col, taps: self.bwd_input_taps(row, col) }).collect()
    }

    /// The taps that reach the input pixel `(row, col)`, both less than the stride.
    fn bwd_input_taps(&self, row: usize, col: usize) -> Vec<Tap> {
        let ([rows, cols], (width, plane)) = (self.dy_padding(), self.padded_dy());
        let shift = |at: usize, before: usize, k: usize| {
            let distance = at + self.pad + before * self.stride;
            (distance >= k && (distance - k).is_multiple_of(self.stride)).then(|| (distance - k) / self.stride)
        };
        let mut taps = Vec::new();
        for c in 0..self.c_out {
            for kh in 0..self.k {
                for kw in 0..self.k {
                    if let (Some(y), Some(x)) = (shift(row, rows.before, kh), shift(col, cols.before, kw)) {
                        let w = (c * self.c_in * self.k + kh) * self.k + kw;
                        taps.push(Tap { x: (c * plane + y * width + x) as u32, w: w as u32 });
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
    pub(super) fn correlate_fwd(
        &self,
        s: &Sizes,
        x: &[T],
        w: &Buf<T>,
        b: Option<&Buf<T>>,
        activation: Activation,
    ) -> Buf<T> {
        let padded = self.padded_input(s, x);
        let (width, plane) = s.padded_x();
        let taps = w.prepared().fwd_taps.get(s, || s.fwd_taps());
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
                activation,
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
        let ([rows, cols], (width, plane)) = (s.dy_padding(), s.padded_dy());
        let padded = self.pad(dy, s.c_out, s.h_out, s.w_out, rows, cols);
        let phases = w.prepared().bwd_input_phases.get(s, || s.bwd_input_phases());
        let out = s.c_in * s.h_in * s.w_in;
        let mut dx = self.alloc(blocks(s.n) * out * LANES);
        self.for_chunks(&mut dx, out * LANES, |block, dx| {
            for Phase { row, col, taps } in &*phases {
                let job = Correlate {
                    taps,
                    x: &lanes(&padded)[block * s.c_out * plane..],
                    x_row: width,
                    x_col: 1,
                    w,
                    w_channel: s.k * s.k,
                    bias: None,
                    activation: Activation::Identity,
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
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Buf<T>, w: &Buf<T>, b: Option<&Buf<T>>, activation: Activation) -> Buf<T> {
        self.count(Kernel::Conv2dFwd);
        let s = Sizes::of(d);
        let winograd = Conv3x3::fwd(&s).and_then(|conv| self.conv3x3(&s, conv, x, w, b.map(|b| &**b), activation));
        winograd.unwrap_or_else(|| self.correlate_fwd(&s, x, w, b, activation))
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, _x: &Buf<T>, dy: &Buf<T>, w: &Buf<T>) -> Buf<T> {
        self.count(Kernel::Conv2dBwdInput);
        let s = Sizes::of(d);
        let winograd =
            Conv3x3::bwd_input(&s).and_then(|conv| self.conv3x3(&s, conv, dy, w, None, Activation::Identity));
        winograd.unwrap_or_else(|| self.correlate_bwd_input(&s, dy, w))
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.count(Kernel::Conv2dBwdWeight);
        let s = Sizes::of(d);
        let padded = self.padded_input(&s, x);
        let ((width, plane), taps) = (s.padded_x(), s.fwd_taps());
        let positions = s.h_out * s.w_out;
        let together = (POSITIONS / positions).clamp(1, blocks(s.n));
        let per_thread = s.c_out.div_ceil(self.threads());
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
