//! Fully connected layers, and the end of every split-K product.

use crate::backend::cuda::activation::code;
use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::tuning::{LINEAR_BWD_INPUT_TILES, LINEAR_BWD_WEIGHT_TILES, LINEAR_FWD_TILES};
use crate::backend::cuda::{Context, Cuda, Precision, tuning};
use crate::backend::{Activation, Linear};
use crate::base::dims::{ChannelDims, LinearDims};

kernels! { "f32/linear":
    linear_fwd[LINEAR_FWD_TILES](
        d: LinearDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, activation: u32, y: &mut Device<f32>,
    );
    linear_bwd_input[LINEAR_BWD_INPUT_TILES](d: LinearDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    linear_bwd_weight[LINEAR_BWD_WEIGHT_TILES](d: LinearDims, x: &Device<f32>, dy: &Device<f32>, dw: &mut Device<f32>);
    sum_partials(
        d: ChannelDims, split_k: u32, groups: u32, partials: &Device<f32>, b: Option<&Device<f32>>, activation: u32,
        y: &mut Device<f32>,
    );
}

impl Context {
    /// The activation of `sum + b` for a result `[n, c, hw]` of which `product` writes `split_k` partial sums, one after the other; `b` has
    /// an element per channel. Without a split that is the result itself, so `product` gets the bias and the activation.
    pub(in crate::backend::cuda) fn split_k_product(
        &self,
        d: &ChannelDims,
        split_k: u32,
        b: Option<&Device<f32>>,
        activation: Activation,
        product: impl FnOnce(Option<&Device<f32>>, Activation, &mut Device<f32>),
    ) -> Device<f32> {
        let len = d.elements();
        let mut y = self.alloc(len);
        if split_k == 1 {
            product(b, activation, &mut y);
            return y;
        }
        let mut partials = self.alloc(split_k as usize * len);
        product(None, Activation::Identity, &mut partials);
        let (grid, groups) = tuning::sum_partials(len, split_k);
        // SAFETY: `partials` has `split_k` times the elements of `y`, which are those of `d`; `b` has its channels.
        unsafe { launch::sum_partials(self, grid, *d, split_k, groups, &partials, b, code(activation), &mut y) };
        y
    }
}

/// Lengths of `x`, `w` and `y`.
fn lengths(d: &LinearDims) -> [usize; 3] {
    let (n, f_in, f_out) = (d.n as usize, d.f_in as usize, d.f_out as usize);
    [n * f_in, f_out * f_in, n * f_out]
}

impl<P: Precision> Linear for Cuda<P> {
    fn linear_fwd(
        &self,
        d: &LinearDims,
        x: &P::Batch,
        w: &P::Buf,
        b: Option<&P::Buf>,
        activation: Activation,
    ) -> P::Batch {
        let (x, w, b) = (P::cast_f32(self, x), w.f32(), b.map(PlainBuf::f32));
        let [x_len, w_len, _] = lengths(d);
        assert!(x.len() == x_len && w.len() == w_len && b.is_none_or(|b| b.len() == d.f_out as usize));
        let config = tuning::linear_fwd(d);
        let of = ChannelDims { n: d.n, c: d.f_out, hw: 1 };
        self.split_k_product(&of, config.split_k, b, activation, |b, activation, y| {
            // SAFETY: `x`, `w` and `b` are as long as `d` says, `y` has `config.split_k` outputs.
            unsafe { launch::linear_fwd(self, config.tile, config.grid, *d, &x, w, b, code(activation), y) };
        })
        .into()
    }

    fn linear_bwd_input(&self, d: &LinearDims, dy: &P::Batch, w: &P::Buf) -> P::Batch {
        let (dy, w) = (P::cast_f32(self, dy), w.f32());
        let [_, w_len, y_len] = lengths(d);
        assert!(dy.len() == y_len && w.len() == w_len);
        let config = tuning::linear_bwd_input(d);
        let of = ChannelDims { n: d.n, c: d.f_in, hw: 1 };
        self.split_k_product(&of, config.split_k, None, Activation::Identity, |_, _, dx| {
            // SAFETY: `dy` and `w` are as long as `d` says, `dx` has `config.split_k` inputs.
            unsafe { launch::linear_bwd_input(self, config.tile, config.grid, *d, &dy, w, dx) };
        })
        .into()
    }

    fn linear_bwd_weight(&self, d: &LinearDims, x: &P::Batch, dy: &P::Batch) -> P::Buf {
        let (x, dy) = (P::cast_f32(self, x), P::cast_f32(self, dy));
        let [x_len, _, y_len] = lengths(d);
        assert!(x.len() == x_len && dy.len() == y_len);
        let config = tuning::linear_bwd_weight(d);
        let of = ChannelDims { n: d.f_out, c: d.f_in, hw: 1 };
        self.split_k_product(&of, config.split_k, None, Activation::Identity, |_, _, dw| {
            // SAFETY: `x` and `dy` are as long as `d` says, `dw` has `config.split_k` weights.
            unsafe { launch::linear_bwd_weight(self, config.tile, config.grid, *d, &x, &dy, dw) };
        })
        .into()
    }
}
