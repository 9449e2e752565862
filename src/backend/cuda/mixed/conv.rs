//! Convolutions on tensor cores, cut as [`tiles`] says.

use super::tiles::{self, PIXELS};
use super::{Buf, Device, Exact, Mixed, PIECE, Statistics};
use crate::backend::Conv;
use crate::backend::cuda::kernel::{Arg, Args, Grid, by_value, kernels};
use crate::backend::cuda::{Cuda, tuning};
use crate::dims::{ChannelDims, Conv2dDims};

kernels! { "conv_bf16":
    correlate_bf16_k8_c8(job: Correlate);
    correlate_bf16_k8_c16(job: Correlate);
    correlate_bf16_k8_c32(job: Correlate);
    correlate_bf16_k8_c64(job: Correlate);
    correlate_bf16_k16_c8(job: Correlate);
    correlate_bf16_k16_c16(job: Correlate);
    correlate_bf16_k16_c32(job: Correlate);
    correlate_bf16_k16_c64(job: Correlate);
    correlate_bf16_k32_c8(job: Correlate);
    correlate_bf16_k32_c16(job: Correlate);
    correlate_bf16_k32_c32(job: Correlate);
    correlate_bf16_k32_c64(job: Correlate);
    correlate_bf16_k64_c8(job: Correlate);
    correlate_bf16_k64_c16(job: Correlate);
    correlate_bf16_k64_c32(job: Correlate);
    correlate_bf16_k64_c64(job: Correlate);
    correlate_bf16_k64_c128(job: Correlate);
    pack_weights(d: Conv2dDims, split: u32, w: &Device<f32>, forward: &mut Device<u16>, backward: &mut Device<u16>);
    conv2d_bwd_weight_bf16_c8(d: Conv2dDims, x: &Device<u16>, dy: &Device<u16>, dw: &mut Device<f32>);
    conv2d_bwd_weight_bf16_c32(d: Conv2dDims, x: &Device<u16>, dy: &Device<u16>, dw: &mut Device<f32>);
    conv2d_bwd_weight_bf16_c64(d: Conv2dDims, x: &Device<u16>, dy: &Device<u16>, dw: &mut Device<f32>);
}

/// What a correlation's kernel is told (`kernels/conv_bf16.cu`); buffers by their addresses, 0 for those that it has not.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Correlate {
    d: Conv2dDims,
    gradient: u32,
    slab: u32,
    buffers: u32,
    apply_relu: u32,
    x: u64,
    w: u64,
    b: u64,
    y: u64,
    y_f32: u64,
    part: u64,
}

by_value!(Correlate);

/// In the order of [`tiles::TILES`].
const CORRELATE: [unsafe fn(&Cuda, Grid, Correlate); tiles::TILES.len()] = [
    launch::correlate_bf16_k8_c8,
    launch::correlate_bf16_k8_c16,
    launch::correlate_bf16_k8_c32,
    launch::correlate_bf16_k8_c64,
    launch::correlate_bf16_k16_c8,
    launch::correlate_bf16_k16_c16,
    launch::correlate_bf16_k16_c32,
    launch::correlate_bf16_k16_c64,
    launch::correlate_bf16_k32_c8,
    launch::correlate_bf16_k32_c16,
    launch::correlate_bf16_k32_c32,
    launch::correlate_bf16_k32_c64,
    launch::correlate_bf16_k64_c8,
    launch::correlate_bf16_k64_c16,
    launch::correlate_bf16_k64_c32,
    launch::correlate_bf16_k64_c64,
    launch::correlate_bf16_k64_c128,
];

/// A kernel of [`Conv::conv2d_bwd_weight`].
type BwdWeight = unsafe fn(&Cuda, Grid, Conv2dDims, &Device<u16>, &Device<u16>, &mut Device<f32>);

/// In the order of [`tiles::WEIGHT_TILES`].
const BWD_WEIGHT: [BwdWeight; tiles::WEIGHT_TILES.len()] =
    [launch::conv2d_bwd_weight_bf16_c8, launch::conv2d_bwd_weight_bf16_c32, launch::conv2d_bwd_weight_bf16_c64];

/// A convolution's weights in bf16.
pub(super) struct Weights {
    d: [usize; 4],
    /// For images that are split.
    split: bool,
    /// `[tap, c_out, c_in]`, channels padded.
    forward: Device<u16>,
    /// `[tap, c_in, c_out]`.
    backward: Device<u16>,
}

fn image(d: &Conv2dDims) -> ChannelDims {
    ChannelDims::new(d.x())
}

/// Whether the input is split: an image of few channels.
fn split(d: &Conv2dDims, x: &Buf) -> bool {
    matches!(x, Buf::Exact(_)) && d.c_in <= PIECE / 2
}

impl Mixed {
    fn weights<'w>(&self, d: &Conv2dDims, split: bool, w: &'w Exact) -> &'w Weights {
        let packed = w.weights.get_or_init(|| {
            assert_eq!(w.data.len(), d.w().iter().product::<usize>());
            let (c_in, c_out) = (d.c_in.next_multiple_of(PIECE), d.c_out.next_multiple_of(PIECE));
            let len = (d.k * d.k * c_in * c_out) as usize;
            let (mut forward, mut backward) = (self.exact.alloc(len), self.exact.alloc(len));
            let grid = tuning::elements(len, 1);
            // SAFETY: just checked, and both orders have a place for every padded weight.
            unsafe { launch::pack_weights(&self.exact, grid, *d, split.into(), &w.data, &mut forward, &mut backward) };
            Weights { d: d.w(), split, forward, backward }
        });
        assert_eq!((packed.d, packed.split), (d.w(), split), "one weight for two kinds of convolution");
        packed
    }
}

impl Conv for Mixed {
    /// Without a ReLU a normalisation follows: statistics of the output come with it.
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Buf, w: &Buf, b: Option<&Buf>, relu: bool) -> Buf {
        let Some(cut) = tiles::correlate(d, false, self.exact.driver.shared_memory()) else {
            return self.exact.conv2d_fwd(d, &self.in_f32(x), w.f32(), b.map(Buf::f32), relu).into();
        };
        let split = split(d, x);
        let x = match x {
            Buf::Exact(x) if split => super::Made::New(self.rounded(&image(d), true, &x.data)),
            x => self.in_bf16(&image(d), x),
        };
        assert!(b.is_none_or(|b| b.f32().len() == d.c_out as usize));
        let of = ChannelDims::new(d.y());
        let mut y = self.alloc(&of);
        let tiles = (of.n * of.hw).div_ceil(PIXELS);
        y.statistics = (!relu).then(|| Statistics { parts: self.exact.alloc((of.c * tiles) as usize), pixels: PIXELS });
        let job = Correlate {
            d: *d,
            gradient: 0,
            slab: cut.slab,
            buffers: cut.buffers,
            apply_relu: relu.into(),
            x: x.data.address(),
            w: self.weights(d, split, w.exact()).forward.address(),
            b: b.map_or(0, |b| b.f32().address()),
            y: y.data.address(),
            y_f32: 0,
            part: y.statistics.as_ref().map_or(0, |statistics| statistics.parts.address()),
        };
        // SAFETY: batches have the elements of `d`, weights too; the bias was checked, and statistics have a pair a channel
        // and tile.
        unsafe { CORRELATE[cut.tile](&self.exact, cut.grid, job) };
        y.into()
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, x: &Buf, dy: &Buf, w: &Buf) -> Buf {
        let Some(cut) = tiles::correlate(d, true, self.exact.driver.shared_memory()) else {
            let x = self.in_f32(x);
            return self.exact.conv2d_bwd_input(d, &x, &self.in_f32(dy), w.f32()).into();
        };
        let dy = self.in_bf16(&ChannelDims::new(d.y()), dy);
        let mut job = Correlate {
            d: *d,
            gradient: 1,
            slab: cut.slab,
            buffers: cut.buffers,
            apply_relu: 0,
            x: dy.data.address(),
            w: self.weights(d, split(d, x), w.exact()).backward.address(),
            b: 0,
            y: 0,
            y_f32: 0,
            part: 0,
        };
        let dx: Buf = match x {
            Buf::Exact(_) => self.exact.alloc(d.x().iter().product()).into(),
            Buf::Batch(_) => self.alloc(&image(d)).into(),
        };
        match &dx {
            Buf::Exact(dx) => job.y_f32 = dx.data.address(),
            Buf::Batch(dx) => job.y = dx.data.address(),
        }
        // SAFETY: batches have the elements of `d`, weights too.
        unsafe { CORRELATE[cut.tile](&self.exact, cut.grid, job) };
        dx
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Buf, dy: &Buf) -> Buf {
        let (x, dy) = (self.in_bf16(&image(d), x), self.in_bf16(&ChannelDims::new(d.y()), dy));
        let (tile, parts, grid) = tiles::weight_gradient(d);
        let dw = self.exact.sum_of_parts(&ChannelDims::new(d.w()), parts, None, false, |_, _, dw| {
            // SAFETY: batches have the elements of `d`, `dw` those of `parts` gradients.
            unsafe { BWD_WEIGHT[tile](&self.exact, grid, *d, &x.data, &dy.data, dw) };
        });
        dw.into()
    }

    fn bias_bwd(&self, d: &ChannelDims, dy: &Buf) -> Buf {
        self.exact.bias_bwd(d, &self.in_f32(dy)).into()
    }
}
