//! Convolution, activation and max pooling of a block of images in one go: the activations between them stay in the core's
//! cache, for the rows of one row of windows at a time. Backward, nothing is between them at all.

use super::jobs::{Conv2dPoolBwdInput, MaxPool2dFwd, Patches, WinogradConv};
use super::layout::sizes::Sizes;
use super::pool::MaxIndices;
use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{Activated, Activation, Conv, ConvPool, Elementwise, Pool};
use crate::base::dims::{Conv2dDims, Pool2dDims};

impl<T: Real> Cpu<T> {
    /// The input gradient by patches.
    fn patches_bwd_input(
        &self,
        s: &Sizes,
        p: &Pool2dDims,
        patches: &Patches,
        indices: &MaxIndices<T>,
        dy: &Buf<T>,
        w: &Buf<T>,
    ) -> Buf<T> {
        let (h, w_pooled) = (p.h_out as usize, p.w_out as usize);
        let (rows, cols) = (patches.padding(h, patches.rows), patches.padding(w_pooled, patches.cols));
        let (width, height) = (w_pooled + cols.before + cols.after, h + rows.before + rows.after);
        let g = self.pad(dy, s.c_out, h, w_pooled, rows, cols);
        let indices = self.pad(&indices.0, s.c_out, h, w_pooled, rows, cols);
        let tables = w.prepared().pool_bwd_input_tables.get(s, || {
            let mut tables = self.arena.take(s.c_in * s.c_out * patches.table());
            patches.fill_tables(s, w, &mut tables);
            tables
        });
        let (plane, windows) = (width * height, patches.windows(width));
        let out = s.c_in * s.h_in * s.w_in * LANES;
        let mut dx = self.alloc(blocks(s.n) * out);
        self.for_chunks(&mut dx, out, |block, dx| {
            let job = Conv2dPoolBwdInput {
                windows: &windows,
                tables: tables.as_chunks().0,
                g: &lanes(&g)[block * s.c_out * plane..][..s.c_out * plane],
                indices: &lanes(&indices)[block * s.c_out * plane..][..s.c_out * plane],
                plane,
                width,
                channels: s.c_in,
                rows: patches.rows,
                cols: patches.cols,
                dx: lanes_mut(dx),
            };
            T::conv2d_pool_bwd_input(self.arch, job);
        });
        dx
    }
}

impl<T: Real> ConvPool for Cpu<T> {
    fn conv2d_pool_fwd(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        x: &Buf<T>,
        w: &Buf<T>,
        b: Option<&Buf<T>>,
        activation: Activation,
    ) -> (Buf<T>, MaxIndices<T>) {
        let s = Sizes::of(d);
        let bias = b.map(|b| &**b);
        if let Some(layer) = self.winograd(WinogradConv::pooled(WinogradConv::fwd(&s), p), &s, w) {
            self.count(Kernel::Conv2dFwd);
            return self.winograd_conv_pool(&layer, s.n, x, bias, activation);
        }
        let (k, stride, pooled_h, pooled_w) = (p.k as usize, p.stride as usize, p.h_out as usize, p.w_out as usize);
        let plan = self.fwd_correlation(&s, w);
        if stride < k || plan.rows < k {
            // Windows overlap, and their rows would be computed more than once; or they are larger than a piece.
            return self.max_pool2d_fwd(p, &self.conv2d_fwd(d, x, w, b, activation));
        }
        self.count(Kernel::Conv2dFwd);
        let windows = (plan.rows - k) / stride + 1;
        let out = s.c_out * pooled_h * pooled_w * LANES;
        let (mut y, mut indices) = (self.alloc(blocks(s.n) * out), self.alloc(blocks(s.n) * out));
        let reads = s.c_in * s.k * s.k * s.h_out * s.w_out * s.c_out * blocks(s.n) * LANES;
        let items = y.chunks_exact_mut(out).zip(indices.chunks_exact_mut(out));
        self.for_items(reads, items, |block, (y, indices)| {
            let (y, indices) = (lanes_mut(y), lanes_mut(indices));
            let mut rows = self.alloc(s.c_out * k * s.w_out * LANES);
            self.pieces(&plan, windows * stride, x, block, |first, piece| {
                for row in (first / stride..pooled_h).take(windows) {
                    let at = row * stride - first;
                    let job = Self::fwd_job(&plan, piece, at, k, bias, activation, lanes_mut(&mut rows));
                    T::correlate(self.arch, job);
                    for (channel, x) in lanes(&rows).chunks_exact(k * s.w_out).enumerate() {
                        let at = (channel * pooled_h + row) * pooled_w;
                        let (y, indices) = (&mut y[at..][..pooled_w], &mut indices[at..][..pooled_w]);
                        let job = MaxPool2dFwd { k, stride, w_in: s.w_out, w_out: pooled_w, x, y, indices };
                        T::max_pool2d_fwd(self.arch, job);
                    }
                }
            });
        });
        (y, MaxIndices(indices))
    }

    fn conv2d_pool_bwd_input(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        indices: &MaxIndices<T>,
        x: &Buf<T>,
        activated: Activated<'_, Buf<T>>,
        dy: &Buf<T>,
        w: &Buf<T>,
    ) -> Buf<T> {
        let s = Sizes::of(d);
        if let Some(layer) = self.winograd(WinogradConv::pooled(WinogradConv::bwd_input(&s), p), &s, w) {
            self.count(Kernel::Conv2dBwdInput);
            return self.winograd_pool_bwd_input(&layer, s.n, indices, &self.activation_bwd(activated, dy));
        }
        if let Some(patches) = Patches::of(&s, p) {
            self.count(Kernel::Conv2dBwdInput);
            return self.patches_bwd_input(&s, p, &patches, indices, &self.activation_bwd(activated, dy), w);
        }
        self.conv2d_bwd_input(d, x, &self.max_pool2d_bwd(p, indices, Some(activated), dy), w)
    }
}
