//! 2-d convolution as a correlation over taps.

use super::correlate::{Correlate, CorrelateWeight, Tap};
use super::fast::winograd::Conv3x3;
use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{Conv, Memory};
use crate::base::dims::{ChannelDims, Conv2dDims};

/// Output positions (pixels times blocks of images) of which the weight gradient takes a sum in registers, if there are
/// as many: adding up the lanes at the end is not to count.
const POSITIONS: usize = 256;

/// Vectors of `dy` that the weight gradient goes through for every input channel: half a second-level cache.
const REUSED: usize = (512 << 10) / (LANES * size_of::<f32>());

/// Zero pixels added around an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Border {
    pub low: usize,
    pub high: usize,
}

/// The parts of [`Conv2dDims`] as `usize`.
pub(super) struct Sizes {
    pub n: usize,
    pub c_in: usize,
    pub h_in: usize,
    pub w_in: usize,
    pub c_out: usize,
    pub h_out: usize,
    pub w_out: usize,
    pub k: usize,
    pub stride: usize,
    pub pad: usize,
}

impl Sizes {
    pub(super) fn of(d: &Conv2dDims) -> Self {
        let ([n, c_in, h_in, w_in], [_, c_out, h_out, w_out]) = (d.x(), d.y());
        let (k, stride, pad) = (d.k as usize, d.stride as usize, d.pad as usize);
        Sizes { n, c_in, h_in, w_in, c_out, h_out, w_out, k, stride, pad }
    }

    /// The forward pass as a 3×3 convolution of stride 1 that keeps the size of the images, if it is one.
    fn conv3x3<'a, T>(&self, x: &'a [T], weight: &'a [T], b: Option<&'a Buf<T>>, relu: bool) -> Option<Conv3x3<'a, T>>
    where
        T: Real,
    {
        let Sizes { n, c_in, c_out, h_in: h, w_in: w, .. } = *self;
        let bias = b.map(|b| &**b);
        let conv = Conv3x3 { n, c_in, c_out, h, w, x, weight, transposed: false, bias, relu };
        ((self.k, self.stride, self.pad) == (3, 1, 1)).then_some(conv)
    }

    /// As [`Sizes::conv3x3`] for the input gradient: the same convolution from the outputs to the inputs.
    fn conv3x3_bwd_input<'a, T: Real>(&self, dy: &'a [T], weight: &'a [T]) -> Option<Conv3x3<'a, T>> {
        let forward = self.conv3x3(dy, weight, None, false)?;
        Some(Conv3x3 { c_in: self.c_out, c_out: self.c_in, transposed: true, ..forward })
    }

    /// Pixels of a row and of a channel of the padded input.
    pub(super) fn padded(&self) -> (usize, usize) {
        let width = self.w_in + 2 * self.pad;
        (width, (self.h_in + 2 * self.pad) * width)
    }

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

    /// Zeros around `dy` so that every tap of the input gradient falls inside, for an image side of `size` pixels and
    /// `positions` outputs.
    fn gradient_border(&self, size: usize, positions: usize) -> Border {
        let low = (self.k - 1).saturating_sub(self.pad).div_ceil(self.stride);
        let high = ((size - 1 + self.pad) / self.stride + 1).saturating_sub(positions);
        Border { low, high }
    }

    /// The taps that reach the input pixels `(row, col)` with `row % stride == phase.0` and `col % stride == phase.1`.
    fn gradient_taps(&self, phase: (usize, usize), low: (usize, usize), plane: usize, width: usize) -> Vec<Tap> {
        let shift = |phase: usize, low: usize, k: usize| {
            let distance = phase + self.pad + low * self.stride;
            (distance >= k && (distance - k).is_multiple_of(self.stride)).then(|| (distance - k) / self.stride)
        };
        let mut taps = Vec::new();
        for c in 0..self.c_out {
            for kh in 0..self.k {
                for kw in 0..self.k {
                    if let (Some(row), Some(col)) = (shift(phase.0, low.0, kh), shift(phase.1, low.1, kw)) {
                        let w = (c * self.c_in * self.k + kh) * self.k + kw;
                        taps.push(Tap { x: (c * plane + row * width + col) as u32, w: w as u32 });
                    }
                }
            }
        }
        taps
    }
}

impl<T: Real> Cpu<T> {
    /// A copy of a batch of `[c, h, w]` images with zeros around them, or the batch itself if there are none.
    pub(super) fn bordered<'a>(
        &self,
        x: &'a [T],
        c: usize,
        h: usize,
        w: usize,
        rows: Border,
        cols: Border,
    ) -> Padded<'a, T> {
        let none = Border { low: 0, high: 0 };
        if rows == none && cols == none {
            return Padded::Same(x);
        }
        let (hp, wp) = (h + rows.low + rows.high, w + cols.low + cols.high);
        let samples = x.len() / (c * h * w * LANES);
        let mut padded = self.alloc(samples * c * hp * wp * LANES);
        self.for_chunks(&mut padded, c * hp * wp * LANES, |b, block| {
            let source = &x[b * c * h * w * LANES..];
            for (i, row) in block.chunks_exact_mut(wp * LANES).enumerate() {
                let (channel, y) = (i / hp, i % hp);
                if y < rows.low || y >= rows.low + h {
                    row.fill(T::zero());
                    continue;
                }
                let (left, rest) = row.split_at_mut(cols.low * LANES);
                let (middle, right) = rest.split_at_mut(w * LANES);
                left.fill(T::zero());
                middle.copy_from_slice(&source[(channel * h + y - rows.low) * w * LANES..][..w * LANES]);
                right.fill(T::zero());
            }
        });
        Padded::Copy(padded)
    }

    pub(super) fn padded_input<'a>(&self, s: &Sizes, x: &'a [T]) -> Padded<'a, T> {
        let border = Border { low: s.pad, high: s.pad };
        self.bordered(x, s.c_in, s.h_in, s.w_in, border, border)
    }
}

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

impl<T: Real> Conv for Cpu<T> {
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Buf<T>, w: &Buf<T>, b: Option<&Buf<T>>, relu: bool) -> Buf<T> {
        self.count(Kernel::Conv2dFwd);
        let s = Sizes::of(d);
        if let Some(y) = s.conv3x3(x, w, b, relu).and_then(|conv| T::conv3x3(self, &conv)) {
            return y;
        }
        let padded = self.padded_input(&s, x);
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

    /// Input pixels whose row and column leave the same remainder modulo the stride are reached by the same taps, so
    /// the gradient is one dense correlation of `dy` per pair of remainders.
    fn conv2d_bwd_input(&self, d: &Conv2dDims, _x: &Buf<T>, dy: &Buf<T>, w: &Buf<T>) -> Buf<T> {
        self.count(Kernel::Conv2dBwdInput);
        let s = Sizes::of(d);
        if let Some(dx) = s.conv3x3_bwd_input(dy, w).and_then(|conv| T::conv3x3(self, &conv)) {
            return dx;
        }
        let (rows, cols) = (s.gradient_border(s.h_in, s.h_out), s.gradient_border(s.w_in, s.w_out));
        let padded = self.bordered(dy, s.c_out, s.h_out, s.w_out, rows, cols);
        let width = s.w_out + cols.low + cols.high;
        let plane = (s.h_out + rows.low + rows.high) * width;
        let phases: Vec<_> = (0..s.stride.min(s.h_in))
            .flat_map(|r| (0..s.stride.min(s.w_in)).map(move |c| (r, c)))
            .map(|phase| (phase, s.gradient_taps(phase, (rows.low, cols.low), plane, width)))
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
                let job = CorrelateWeight {
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
                T::correlate_weight(self.arch, job);
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
