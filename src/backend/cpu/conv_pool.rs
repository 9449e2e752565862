//! Convolution, activation and max pooling of a block of images in one go: nothing is written between them, neither forward nor
//! backward.

use super::jobs::{Conv2dPoolBwdInput, Patches, WinogradConv};
use super::layout::sizes::Sizes;
use super::pool::MaxIndices;
use super::{Buf, Cpu, Kernel, LANES, Real, Work, blocks, lanes, lanes_mut};
use crate::backend::{Activated, Activation, Conv, ConvPool, Elementwise, Pool};
use crate::base::dims::{Conv2dDims, Pool2dDims};

/// Least input channels from which Winograd's algorithm is faster than patches, which need as few multiply-adds, and no transforms.
const LEAST_GRADIENT_CHANNELS: usize = 16;

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
        let out = s.h_in * s.w_in;
        let multiply_adds = windows.len() * s.c_in * s.c_out * out;
        let tasks = self.channel_tasks(s.n, s.c_in, 1, multiply_adds);
        let mut dx = self.alloc(blocks(s.n) * s.c_in * out * LANES);
        let work = Work::MultiplyAdds(blocks(s.n) * multiply_adds);
        self.for_chunks(work, &mut dx, tasks.each * out * LANES, |task, dx| {
            let (dx, (block, channels)) = (lanes_mut(dx), tasks.of(task));
            let job = Conv2dPoolBwdInput {
                windows: &windows,
                tables: &tables.as_chunks().0[channels.start * s.c_out * windows.len() * 4..],
                g: &lanes(&g)[block * s.c_out * plane..][..s.c_out * plane],
                indices: &lanes(&indices)[block * s.c_out * plane..][..s.c_out * plane],
                plane,
                width,
                channels: channels.len(),
                rows: patches.rows,
                cols: patches.cols,
                dx,
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
        let plan = self.fwd_correlation(&s, w);
        if (p.k, p.stride, s.stride) == (2, 2, 1) && plan.rows >= 2 {
            self.count(Kernel::Conv2dFwd);
            return self.correlate_pool(&plan, s.n, x, bias, activation);
        }
        self.max_pool2d_fwd(p, &self.conv2d_fwd(d, x, w, b, activation))
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
        let winograd =
            WinogradConv::pooled(WinogradConv::bwd_input(&s), p).filter(|conv| conv.c_out >= LEAST_GRADIENT_CHANNELS);
        if let Some(layer) = self.winograd(winograd, &s, w) {
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
