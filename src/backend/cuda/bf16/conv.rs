//! Convolutions on tensor cores, in the tiles that [`tiles`] chooses.

use std::sync::Arc;

use bytemuck::Zeroable;

use super::deferred::{Deferred, DeferredArg, NormSums, NormalizedInput, NormalizedInputArg, Output};
use super::tiles::{self, Block, TILES, TileConfig};
use super::tuned::Pass;
use super::{Activations, Batch, Bf16, Buf, VEC8};
use crate::backend::cuda::activation::code;
use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::{Cuda, Device, Precision};
use crate::backend::{Accumulation, Activation, Conv, accumulate};
use crate::base::dims::{ChannelDims, Conv2dDims};
use crate::base::layout::layout;
use crate::base::maybe_owned::MaybeOwned;

kernels! { "bf16/conv":
    correlate_bf16[TILES](d: Conv2dDims, gradient: u32, params: ConvParams);
}

/// The parameters of a kernel of `kernels/bf16/conv.cu`; buffers by their addresses, 0 for those that it has not.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ConvParams {
    x: DeferredArg,
    w: u64,
    b: u64,
    y: u64,
    y_f32: u64,
    materialized: u64,
    materialized_mask: u64,
    sums: ChannelSumsArg,
    addend: u64,
    input_norm: NormalizedInputArg,
    residual_norm: NormalizedInputArg,
    relu_mask: u64,
    residual_sums: ChannelSumsArg,
    arrivals: u64,
    input_pixels: u32,
    input_tiles: u32,
    activation: u32,
    _padding: u32,
}

impl ConvParams {
    /// Parameters of a kernel that reads `x` and `w`; the caller adds the outputs.
    fn new(config: &TileConfig, x: &Deferred, w: &Device<u16>) -> Self {
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
    activation,
    _padding,
});
by_value!(ConvParams);

/// Where a kernel puts two numbers a channel together.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ChannelSumsArg {
    partials: u64,
    first: u64,
    second: u64,
}

layout!(ChannelSumsArg { partials, first, second });

/// Two numbers for each channel of a correlation's result, and the partial sums of its blocks.
struct ChannelSums {
    partials: Device<[f32; 2]>,
    first: Device<f32>,
    second: Device<f32>,
}

impl ChannelSums {
    fn arg(&self) -> ChannelSumsArg {
        let ChannelSums { partials, first, second } = self;
        ChannelSumsArg { partials: partials.address(), first: first.address(), second: second.address() }
    }
}

fn image(d: &Conv2dDims) -> ChannelDims {
    ChannelDims::new(d.x())
}

/// Whether the input is split: an image of few channels.
fn split(d: &Conv2dDims, x: &Batch) -> bool {
    matches!(x, Batch::F32(_)) && d.c_in <= VEC8 / 2
}

impl Cuda<Bf16> {
    fn alloc_sums(&self, c: u32, config: &TileConfig) -> ChannelSums {
        let [first, second] = [0, 1].map(|_| self.alloc(c as usize));
        ChannelSums { partials: self.alloc(c as usize * config.partials as usize), first, second }
    }

    /// The tile of a convolution with this input, if one fits.
    fn config(&self, d: &Conv2dDims, gradient: bool, input: &Deferred) -> Option<TileConfig> {
        let block = Block { shared: self.shared_memory(), warpgroups: self.precision.warpgroups };
        let configs = tiles::convolution(d, gradient, input.q.is_some(), block);
        let pass = if gradient { Pass::InputGradient } else { Pass::Forward };
        self.select(pass, d, &configs, |config| config.tile)
    }

    /// How a convolution reads its input, and where it also writes it. The sum of a residual block and its shortcut is read again
    /// by the next shortcut, so it is materialised: by this convolution if input and output have the same pixels, else before it.
    fn input(&self, d: &Conv2dDims, x: &Activations) -> (Deferred, Option<Output>) {
        let input = self.reader(x);
        if input.q.is_none() || input.gradient.is_some() {
            return (input, None);
        }
        let same_pixels = (d.h_in, d.w_in, d.stride) == (d.h_out, d.w_out, 1);
        match same_pixels {
            true => (input.clone(), Some(self.alloc_output(&x.d, &input))),
            false => (Deferred::of(self.data(x)), None),
        }
    }
}

impl Conv for Cuda<Bf16> {
    /// With the identity as activation a normalisation is taken to follow, and the kernel also computes the output's statistics.
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Batch, w: &Buf, b: Option<&Buf>, activation: Activation) -> Batch {
        assert!(b.is_none_or(|b| b.f32().len() == d.c_out as usize));
        let split = split(d, x);
        let image = match x {
            Batch::F32(x) if split => MaybeOwned::Owned(self.to_bf16(&image(d), true, x)),
            x => self.cast_bf16(&image(d), x),
        };
        let (input, output) = self.input(d, &image);
        let Some(config) = self.config(d, false, &input) else {
            let x = Bf16::cast_f32(self, x);
            return self.precision.f32.conv2d_fwd(d, &x, w.f32(), b.map(PlainBuf::f32), activation).into();
        };
        let of = ChannelDims::new(d.y());
        let y = self.alloc_activations(&of);
        let statistics = activation.is_identity().then(|| self.alloc_sums(of.c, &config));
        let mut params = ConvParams::new(&config, &input, &self.weights(d, split, w).forward);
        params.b = b.map_or(0, |b| b.f32().address());
        params.activation = code(activation);
        params.y = y.address();
        params.sums = statistics.as_ref().map(ChannelSums::arg).unwrap_or_default();
        params.arrivals = self.precision.arrivals.address();
        if let Some(Output { data, mask }) = &output {
            (params.materialized, params.materialized_mask) =
                (data.address(), mask.as_ref().map_or(0, Device::address));
        }
        // SAFETY: batches have the elements of `d`, weights too; the bias was checked, a mask has a byte for eight channels, and the
        // configuration has the number of partial sums and was chosen only if [`ARRIVALS`] counters suffice.
        unsafe { launch::correlate_bf16(self, config.tile, config.grid, *d, 0, params) };
        if let Some(output) = output {
            image.materialized.get_or_init(|| output.into());
        }
        let statistics = statistics.map(|ChannelSums { first, second, .. }| [first, second].map(Arc::new));
        Activations { statistics, ..Activations::stored(&of, y) }.into()
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, x: &Batch, dy: &Batch, w: &Buf) -> Batch {
        self.conv2d_bwd_input_accumulated(d, x, dy, w, Accumulation::Partial)
    }

    /// If the op is the last to contribute and a normalisation computed `x`, the gradient also goes through that normalisation's
    /// ReLU, and the kernel adds up the sums that its backward pass needs.
    fn conv2d_bwd_input_accumulated(
        &self,
        d: &Conv2dDims,
        x: &Batch,
        dy: &Batch,
        w: &Buf,
        accumulation: Accumulation<Batch>,
    ) -> Batch {
        let input = self.reader(&self.cast_bf16(&ChannelDims::new(d.y()), dy));
        let Some(config) = self.config(d, true, &input) else {
            let [x, dy] = [x, dy].map(|batch| Bf16::cast_f32(self, batch));
            let dx = self.precision.f32.conv2d_bwd_input(d, &x, &dy, w.f32());
            return accumulate(self, dx.into(), accumulation);
        };
        let mut params = ConvParams::new(&config, &input, &self.weights(d, split(d, x), w).backward);
        let Batch::Bf16(x) = x else {
            let dx = self.alloc(d.x().iter().product());
            params.y_f32 = dx.address();
            // SAFETY: batches have the elements of `d`, weights too.
            unsafe { launch::correlate_bf16(self, config.tile, config.grid, *d, 1, params) };
            return accumulate(self, dx.into(), accumulation);
        };
        let image = image(d);
        assert_eq!(x.d, image);
        let (whole, sum) = match &accumulation {
            Accumulation::Partial => (false, None),
            Accumulation::Last(sum) => (true, sum.as_ref().map(|sum| self.cast_bf16(&image, sum))),
        };
        let dx = self.alloc_activations(&image);
        params.y = dx.address();
        params.addend = sum.as_ref().map_or(0, |sum| self.data(sum).address());
        params.arrivals = self.precision.arrivals.address();
        // The normalisations whose sums are taken.
        let mut taken = Vec::new();
        if whole
            && let Some(Deferred {
                p: p @ NormalizedInput { normalization: Some(_), .. },
                q,
                activation,
                gradient: None,
            }) = &x.deferred
        {
            let sums = self.alloc_sums(image.c, &config);
            params.input_norm = NormalizedInput { activation: *activation, ..p.clone() }.arg();
            params.sums = sums.arg();
            taken.push((p, sums));
            if !activation.is_identity() && q.is_some() {
                params.relu_mask = self.materialize(x).mask.as_ref().map_or(0, Device::address);
            }
            // With an activation of its own the residual's gradient is not the whole one yet.
            if let Some(q @ NormalizedInput { normalization: Some(_), activation: Activation::Identity, .. }) = q {
                let sums = self.alloc_sums(image.c, &config);
                params.residual_norm = q.arg();
                params.residual_sums = sums.arg();
                taken.push((q, sums));
            }
        }
        // SAFETY: batches have the elements of `d`, weights too, vectors one a channel, a mask a byte for eight channels, and the
        // configuration has the number of partial sums and was chosen only if [`ARRIVALS`] counters suffice.
        unsafe { launch::correlate_bf16(self, config.tile, config.grid, *d, 1, params) };
        let mut dx = Activations::stored(&image, dx);
        dx.sums.extend(taken.into_iter().map(|(input, ChannelSums { first, second, .. })| NormSums {
            of: input.data.clone(),
            dgamma: Arc::new(first),
            dbeta: Arc::new(second),
        }));
        dx.into()
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Batch, dy: &Batch) -> Buf {
        let (x, dy) = (self.cast_bf16(&image(d), x), self.cast_bf16(&ChannelDims::new(d.y()), dy));
        let (x, dy) = (self.data(&x), self.data(&dy));
        self.weight_gradient(d, x, dy).into()
    }

    fn bias_bwd(&self, d: &ChannelDims, dy: &Batch) -> Buf {
        self.precision.f32.bias_bwd(d, &Bf16::cast_f32(self, dy)).into()
    }
}
