//! Convolutions on tensor cores, in the tiles that [`tiles`] chooses.

use std::sync::Arc;

use bytemuck::Zeroable;

use super::tiles::{self, Block, TILES, TileConfig};
use super::tuned::Pass;
use super::{Batch, Buf, Device, Made, Mixed, PIECE};
use crate::backend::cuda::bf16::deferred::{Operand, OperandArg, Room, Sums, Term, TermArg};
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::{Conv, Gathered, sum_gathered};
use crate::base::dims::{ChannelDims, Conv2dDims};
use crate::base::layout::layout;

kernels! { "bf16/conv":
    correlate_bf16[TILES](d: Conv2dDims, gradient: u32, params: ConvParams);
}

/// The parameters of a kernel of `kernels/bf16/conv.cu`; buffers by their addresses, 0 for those that it has not.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ConvParams {
    x: OperandArg,
    w: u64,
    b: u64,
    y: u64,
    y_f32: u64,
    materialized: u64,
    materialized_mask: u64,
    sums: TotalsArg,
    addend: u64,
    input_norm: TermArg,
    residual_norm: TermArg,
    relu_mask: u64,
    residual_sums: TotalsArg,
    arrivals: u64,
    input_pixels: u32,
    input_tiles: u32,
    apply_relu: u32,
    _padding: u32,
}

impl ConvParams {
    /// Reads `x` and `w`; what it writes is still to be said.
    fn new(config: &TileConfig, x: &Operand, w: &Device<u16>) -> Self {
        let TileConfig { input_pixels, input_tiles, .. } = *config;
        ConvParams { x: x.arg(), w: w.address(), input_pixels, input_tiles, ..Zeroable::zeroed() }
    }
}

layout!(ConvParams {
    x,
    w,
    b,
    y,
    y_f32,
    materialized,
    materialized_mask,
    sums,
    addend,
    input_norm,
    residual_norm,
    relu_mask,
    residual_sums,
    arrivals,
    input_pixels,
    input_tiles,
    apply_relu,
    _padding,
});
by_value!(ConvParams);

/// Where a kernel puts two numbers a channel together.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct TotalsArg {
    partials: u64,
    first: u64,
    second: u64,
}

layout!(TotalsArg { partials, first, second });

/// Two numbers for each channel of a correlation's result, and the room that its blocks need to put them together.
struct Totals {
    part: Device<[f32; 2]>,
    first: Device<f32>,
    second: Device<f32>,
}

impl Totals {
    fn arg(&self) -> TotalsArg {
        let Totals { part, first, second } = self;
        TotalsArg { partials: part.address(), first: first.address(), second: second.address() }
    }
}

fn image(d: &Conv2dDims) -> ChannelDims {
    ChannelDims::new(d.x())
}

/// Whether the input is split: an image of few channels.
fn split(d: &Conv2dDims, x: &Buf) -> bool {
    matches!(x, Buf::Exact(_)) && d.c_in <= PIECE / 2
}

impl Mixed {
    fn totals(&self, c: u32, config: &TileConfig) -> Totals {
        let [first, second] = [0, 1].map(|_| self.exact.alloc(c as usize));
        Totals { part: self.exact.alloc(c as usize * config.partials as usize), first, second }
    }

    /// The tile of a convolution with this operand, if one fits.
    fn config(&self, d: &Conv2dDims, gradient: bool, operand: &Operand) -> Option<TileConfig> {
        let block = Block { shared: self.exact.driver.shared_memory(), warpgroups: self.warpgroups };
        let configs = tiles::convolution(d, gradient, operand.q.is_some(), block);
        let pass = if gradient { Pass::InputGradient } else { Pass::Forward };
        self.chosen(pass, d, &configs, |config| config.tile)
    }

    /// How a convolution reads its input, and where it is to write it as well: the sum of a block and its shortcut, which the
    /// next shortcut reads again. That costs nothing where a tile's pixels are the same in both; else it is written first.
    fn operand_to_write(&self, d: &Conv2dDims, x: &Batch) -> (Operand, Option<Room>) {
        let operand = self.operand(x);
        if operand.q.is_none() || operand.gradient.is_some() {
            return (operand, None);
        }
        let same_pixels = (d.h_in, d.w_in, d.stride) == (d.h_out, d.w_out, 1);
        match same_pixels {
            true => (operand.clone(), Some(self.room(&x.d, &operand))),
            false => (Operand::of(self.data(x)), None),
        }
    }
}

impl Conv for Mixed {
    /// Without a ReLU a normalisation follows: statistics of the output come with it.
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Buf, w: &Buf, b: Option<&Buf>, relu: bool) -> Buf {
        assert!(b.is_none_or(|b| b.f32().len() == d.c_out as usize));
        let split = split(d, x);
        let image = match x {
            Buf::Exact(x) if split => Made::New(self.rounded(&image(d), true, &x.data)),
            x => self.in_bf16(&image(d), x),
        };
        let (operand, wanted) = self.operand_to_write(d, &image);
        let Some(config) = self.config(d, false, &operand) else {
            return self.exact.conv2d_fwd(d, &self.in_f32(x), w.f32(), b.map(Buf::f32), relu).into();
        };
        let of = ChannelDims::new(d.y());
        let y = self.alloc(&of);
        let statistics = (!relu).then(|| self.totals(of.c, &config));
        let mut params = ConvParams::new(&config, &operand, &self.weights(d, split, w.exact()).forward);
        params.b = b.map_or(0, |b| b.f32().address());
        params.apply_relu = relu.into();
        params.y = y.address();
        params.sums = statistics.as_ref().map(Totals::arg).unwrap_or_default();
        params.arrivals = self.arrivals.address();
        if let Some(Room { data, mask }) = &wanted {
            (params.materialized, params.materialized_mask) =
                (data.address(), mask.as_ref().map_or(0, Device::address));
        }
        // SAFETY: batches have the elements of `d`, weights too; the bias was checked, a mask has a byte a piece, and the
        // configuration says what room totals and arrivals need.
        unsafe { launch::correlate_bf16(&self.exact, config.tile, config.grid, *d, 0, params) };
        if let Some(room) = wanted {
            image.written.get_or_init(|| room.into());
        }
        let statistics = statistics.map(|Totals { first, second, .. }| [first, second].map(Arc::new));
        Batch { statistics, ..Batch::written(&of, y) }.into()
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, x: &Buf, dy: &Buf, w: &Buf) -> Buf {
        self.conv2d_bwd_gathered(d, x, dy, w, Gathered::Part)
    }

    /// If it is the whole and a normalisation made the input, it goes through its ReLU too, and the sums that the normalisation
    /// needs are taken.
    fn conv2d_bwd_gathered(&self, d: &Conv2dDims, x: &Buf, dy: &Buf, w: &Buf, gathered: Gathered<Buf>) -> Buf {
        let operand = self.operand(&self.in_bf16(&ChannelDims::new(d.y()), dy));
        let Some(config) = self.config(d, true, &operand) else {
            let dx = self.exact.conv2d_bwd_input(d, &self.in_f32(x), &self.in_f32(dy), w.f32());
            return sum_gathered(self, dx.into(), gathered);
        };
        let mut params = ConvParams::new(&config, &operand, &self.weights(d, split(d, x), w.exact()).backward);
        let Buf::Batch(x) = x else {
            let dx = self.exact.alloc(d.x().iter().product());
            params.y_f32 = dx.address();
            // SAFETY: batches have the elements of `d`, weights too.
            unsafe { launch::correlate_bf16(&self.exact, config.tile, config.grid, *d, 1, params) };
            return sum_gathered(self, dx.into(), gathered);
        };
        let image = image(d);
        assert_eq!(x.d, image);
        let (whole, onto) = match &gathered {
            Gathered::Part => (false, None),
            Gathered::Rest(onto) => (true, onto.as_ref().map(|onto| self.in_bf16(&image, onto))),
        };
        let dx = self.alloc(&image);
        params.y = dx.address();
        params.addend = onto.as_ref().map_or(0, |onto| self.data(onto).address());
        params.arrivals = self.arrivals.address();
        // The normalisations whose sums are taken.
        let mut taken = Vec::new();
        if whole && let Some(Operand { p: p @ Term { affine: Some(_), .. }, q, relu, gradient: None }) = &x.operand {
            let totals = self.totals(image.c, &config);
            params.input_norm = Term { relu: *relu, ..p.clone() }.arg();
            params.sums = totals.arg();
            taken.push((p, totals));
            if *relu && q.is_some() {
                params.relu_mask = self.write(x).mask.as_ref().map_or(0, Device::address);
            }
            // With a ReLU of its own the residual's gradient is not the whole one yet.
            if let Some(q @ Term { affine: Some(_), relu: false, .. }) = q {
                let totals = self.totals(image.c, &config);
                params.residual_norm = q.arg();
                params.residual_sums = totals.arg();
                taken.push((q, totals));
            }
        }
        // SAFETY: batches have the elements of `d`, weights too, vectors one a channel, a mask a byte a piece, and the
        // configuration says what room totals and arrivals need.
        unsafe { launch::correlate_bf16(&self.exact, config.tile, config.grid, *d, 1, params) };
        let mut dx = Batch::written(&image, dx);
        dx.sums.extend(taken.into_iter().map(|(term, Totals { first, second, .. })| Sums {
            of: term.data.clone(),
            dgamma: Arc::new(first),
            dbeta: Arc::new(second),
        }));
        dx.into()
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Buf, dy: &Buf) -> Buf {
        let (x, dy) = (self.in_bf16(&image(d), x), self.in_bf16(&ChannelDims::new(d.y()), dy));
        let (x, dy) = (self.data(&x), self.data(&dy));
        self.weight_gradient(d, x, dy).into()
    }

    fn bias_bwd(&self, d: &ChannelDims, dy: &Buf) -> Buf {
        self.exact.bias_bwd(d, &self.in_f32(dy)).into()
    }
}
