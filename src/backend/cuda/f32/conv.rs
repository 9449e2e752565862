//! Convolutions: matrix products in the tiles that [`tuning`] chooses.

use crate::backend::cuda::activation::code;
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::tuning;
use crate::backend::cuda::tuning::{BiasConfig, CONV_BWD_WEIGHT_TILES, CONV_TILES};
use crate::backend::cuda::{Cuda, F32};
use crate::backend::{Activation, Conv};
use crate::base::dims::{ChannelDims, Conv2dDims};

kernels! { "f32/conv":
    conv2d_fwd[CONV_TILES](
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, activation: u32, y: &mut Device<f32>,
    );
    conv2d_bwd_input[CONV_TILES](d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_weight[CONV_BWD_WEIGHT_TILES](d: Conv2dDims, x: &Device<f32>, dy: &Device<f32>, dw: &mut Device<f32>);
    bias_bwd(
        d: ChannelDims, lanes: u32, dy: &Device<f32>, partials: Option<&mut Device<f64>>, db: Option<&mut Device<f32>>,
    );
    bias_bwd_finish(c: u32, splits: u32, partials: &Device<f64>, db: &mut Device<f32>);
    bias_bwd_columns(d: ChannelDims, dy: &Device<f32>, db: &mut Device<f32>);
}

/// Lengths of `x`, `w` and `y`.
fn lengths(d: &Conv2dDims) -> [usize; 3] {
    [d.x(), d.w(), d.y()].map(|sizes| sizes.iter().product())
}

impl Conv for Cuda<F32> {
    fn conv2d_fwd(
        &self,
        d: &Conv2dDims,
        x: &Device<f32>,
        w: &Device<f32>,
        b: Option<&Device<f32>>,
        activation: Activation,
    ) -> Device<f32> {
        let [x_len, w_len, _] = lengths(d);
        assert!(x.len() == x_len && w.len() == w_len && b.is_none_or(|b| b.len() == d.c_out as usize));
        let config = tuning::conv2d_fwd(d);
        let of = ChannelDims::new(d.y());
        self.split_k_product(&of, config.split_k, b, activation, |b, activation, y| {
            // SAFETY: `x`, `w` and `b` are as long as `d` says, `y` has `config.split_k` outputs.
            unsafe { launch::conv2d_fwd(self, config.tile, config.grid, *d, x, w, b, code(activation), y) };
        })
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, _x: &Device<f32>, dy: &Device<f32>, w: &Device<f32>) -> Device<f32> {
        let [_, w_len, y_len] = lengths(d);
        assert!(dy.len() == y_len && w.len() == w_len);
        let config = tuning::conv2d_bwd_input(d);
        let of = ChannelDims::new(d.x());
        self.split_k_product(&of, config.split_k, None, Activation::Identity, |_, _, dx| {
            // SAFETY: `dy` and `w` are as long as `d` says, `dx` has `config.split_k` inputs.
            unsafe { launch::conv2d_bwd_input(self, config.tile, config.grid, *d, dy, w, dx) };
        })
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Device<f32>, dy: &Device<f32>) -> Device<f32> {
        let [x_len, _, y_len] = lengths(d);
        assert!(x.len() == x_len && dy.len() == y_len);
        let config = tuning::conv2d_bwd_weight(d);
        let of = ChannelDims::new(d.w());
        self.split_k_product(&of, config.split_k, None, Activation::Identity, |_, _, dw| {
            // SAFETY: `x` and `dy` are as long as `d` says, `dw` has `config.split_k` weights.
            unsafe { launch::conv2d_bwd_weight(self, config.tile, config.grid, *d, x, dy, dw) };
        })
    }

    fn bias_bwd(&self, d: &ChannelDims, dy: &Device<f32>) -> Device<f32> {
        assert_eq!(dy.len(), d.elements());
        let mut db = self.alloc(d.c as usize);
        match tuning::bias_bwd(d) {
            // SAFETY: `dy` is as long as `d` says, `db` has its channels.
            BiasConfig::Columns(grid) => unsafe { launch::bias_bwd_columns(self, grid, *d, dy, &mut db) },
            // SAFETY: the same; without a split `partials` is not touched.
            BiasConfig::Rows { grid, lanes, splits: 1 } => unsafe {
                launch::bias_bwd(self, grid, *d, lanes, dy, None, Some(&mut db));
            },
            BiasConfig::Rows { grid, lanes, splits } => {
                let mut partials = self.alloc(splits as usize * d.c as usize);
                // SAFETY: the same; `partials` has `splits` times the channels, and the first kernel leaves `db` alone.
                unsafe {
                    launch::bias_bwd(self, grid, *d, lanes, dy, Some(&mut partials), None);
                    launch::bias_bwd_finish(self, tuning::bias_bwd_finish(d.c), d.c, splits, &partials, &mut db);
                }
            }
        }
        db
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::tuning::resnet18_convolutions;

    #[test]
    fn tiles_are_as_narrow_as_the_network() {
        let widest = |tile: usize| CONV_TILES[tile].name.ends_with("_c64");
        for d in resnet18_convolutions(128, 4) {
            assert!(!widest(tuning::conv2d_fwd(&d).tile) && !widest(tuning::conv2d_bwd_input(&d).tile), "{d:?}");
            assert!(tuning::conv2d_bwd_weight(&d).tile + 1 < CONV_BWD_WEIGHT_TILES.len());
        }
        // In its wide layers, a wide network has 64 channels a tile.
        let d = Conv2dDims::new([128, 512, 4, 4], 512, 3, 1, 1).unwrap();
        assert_eq!(CONV_TILES[tuning::conv2d_fwd(&d).tile].name, "k3_c64");
    }

    #[test]
    fn sums_are_short_and_grids_are_small_enough() {
        for (n, w) in [(1, 1), (128, 1), (128, 16), (512, 4), (10_000, 2)] {
            for d in resnet18_convolutions(n, 4 * w) {
                let configs = [tuning::conv2d_fwd(&d), tuning::conv2d_bwd_input(&d), tuning::conv2d_bwd_weight(&d)];
                assert!(configs.iter().all(|config| config.grid.blocks[1] <= 65_535), "{d:?}: {configs:?}");
                let pixels = d.n as usize * d.h_out as usize * d.w_out as usize;
                assert!(pixels.div_ceil(configs[2].split_k as usize) <= 2560, "{d:?}: {configs:?}");
            }
        }
    }
}
