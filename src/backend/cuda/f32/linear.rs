//! Fully connected layers, and the end of every split-K product.

use crate::backend::Linear;
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::tuning::{LINEAR_BWD_INPUT_TILES, LINEAR_BWD_WEIGHT_TILES, LINEAR_FWD_TILES};
use crate::backend::cuda::{Buf, Cuda, tuning};
use crate::base::dims::{ChannelDims, LinearDims};

kernels! { "f32/linear":
    linear_fwd[LINEAR_FWD_TILES](
        d: LinearDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    linear_bwd_input[LINEAR_BWD_INPUT_TILES](d: LinearDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    linear_bwd_weight[LINEAR_BWD_WEIGHT_TILES](d: LinearDims, x: &Device<f32>, dy: &Device<f32>, dw: &mut Device<f32>);
    sum_partials(
        d: ChannelDims, split_k: u32, groups: u32, partials: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32,
        y: &mut Device<f32>,
    );
}

impl Cuda {
    /// `relu(sum + b)` for a result `[n, c, hw]` of which `product` writes `split_k` partial sums, one after the other; `b` has
    /// an element per channel. Without a split that is the result itself, so `product` gets the bias and the ReLU.
    pub(in crate::backend::cuda) fn split_k_product(
        &self,
        d: &ChannelDims,
        split_k: u32,
        b: Option<&Buf>,
        relu: bool,
        product: impl FnOnce(Option<&Buf>, bool, &mut Buf),
    ) -> Buf {
        let len = d.n as usize * d.c as usize * d.hw as usize;
        let mut y = self.alloc(len);
        if split_k == 1 {
            product(b, relu, &mut y);
            return y;
        }
        let mut partials = self.alloc(split_k as usize * len);
        product(None, false, &mut partials);
        let (grid, groups) = tuning::sum_partials(len, split_k);
        // SAFETY: `partials` has `split_k` times the elements of `y`, which are those of `d`; `b` has its channels.
        unsafe { launch::sum_partials(self, grid, *d, split_k, groups, &partials, b, relu.into(), &mut y) };
        y
    }
}

/// Lengths of `x`, `w` and `y`.
fn lengths(d: &LinearDims) -> [usize; 3] {
    let (n, f_in, f_out) = (d.n as usize, d.f_in as usize, d.f_out as usize);
    [n * f_in, f_out * f_in, n * f_out]
}

impl Linear for Cuda {
    fn linear_fwd(&self, d: &LinearDims, x: &Buf, w: &Buf, b: Option<&Buf>, relu: bool) -> Buf {
        let [x_len, w_len, _] = lengths(d);
        assert!(x.len() == x_len && w.len() == w_len && b.is_none_or(|b| b.len() == d.f_out as usize));
        let config = tuning::linear_fwd(d);
        let of = ChannelDims { n: d.n, c: d.f_out, hw: 1 };
        self.split_k_product(&of, config.split_k, b, relu, |b, relu, y| {
            // SAFETY: `x`, `w` and `b` are as long as `d` says, `y` has `config.split_k` outputs.
            unsafe { launch::linear_fwd(self, config.tile, config.grid, *d, x, w, b, relu.into(), y) };
        })
    }

    fn linear_bwd_input(&self, d: &LinearDims, dy: &Buf, w: &Buf) -> Buf {
        let [_, w_len, y_len] = lengths(d);
        assert!(dy.len() == y_len && w.len() == w_len);
        let config = tuning::linear_bwd_input(d);
        let of = ChannelDims { n: d.n, c: d.f_in, hw: 1 };
        self.split_k_product(&of, config.split_k, None, false, |_, _, dx| {
            // SAFETY: `dy` and `w` are as long as `d` says, `dx` has `config.split_k` inputs.
            unsafe { launch::linear_bwd_input(self, config.tile, config.grid, *d, dy, w, dx) };
        })
    }

    fn linear_bwd_weight(&self, d: &LinearDims, x: &Buf, dy: &Buf) -> Buf {
        let [x_len, _, y_len] = lengths(d);
        assert!(x.len() == x_len && dy.len() == y_len);
        let config = tuning::linear_bwd_weight(d);
        let of = ChannelDims { n: d.f_out, c: d.f_in, hw: 1 };
        self.split_k_product(&of, config.split_k, None, false, |_, _, dw| {
            // SAFETY: `x` and `dy` are as long as `d` says, `dw` has `config.split_k` weights.
            unsafe { launch::linear_bwd_weight(self, config.tile, config.grid, *d, x, dy, dw) };
        })
    }
}
