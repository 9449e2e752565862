//! Convolutions: products of matrices, cut as [`tuning`] says.

use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::{Grid, kernels};
use crate::backend::cuda::tuning;
use crate::backend::cuda::tuning::{BiasCut, Taps};
use crate::backend::cuda::{Context, Cuda, F32};
use crate::backend::{Activation, Conv};
use crate::base::dims::{ChannelDims, Conv2dDims};

kernels! { "f32/conv":
    conv2d_fwd_k3_c8(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_k3_c16(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_k3_c32(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_k3_c64(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_k5_c8(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_k5_c32(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_k5_c64(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_any_c8(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_any_c32(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_fwd_any_c64(
        d: Conv2dDims, x: &Device<f32>, w: &Device<f32>, b: Option<&Device<f32>>, apply_relu: u32, y: &mut Device<f32>,
    );
    conv2d_bwd_input_k3_c8(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_k3_c16(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_k3_c32(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_k3_c64(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_k5_c8(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_k5_c32(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_k5_c64(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_any_c8(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_any_c32(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_input_any_c64(d: Conv2dDims, dy: &Device<f32>, w: &Device<f32>, dx: &mut Device<f32>);
    conv2d_bwd_weight_c8(d: Conv2dDims, x: &Device<f32>, dy: &Device<f32>, dw: &mut Device<f32>);
    conv2d_bwd_weight_c32(d: Conv2dDims, x: &Device<f32>, dy: &Device<f32>, dw: &mut Device<f32>);
    conv2d_bwd_weight_c64(d: Conv2dDims, x: &Device<f32>, dy: &Device<f32>, dw: &mut Device<f32>);
    bias_bwd(
        d: ChannelDims, lanes: u32, dy: &Device<f32>, partials: Option<&mut Device<f64>>, db: Option<&mut Device<f32>>,
    );
    bias_bwd_finish(c: u32, parts: u32, partials: &Device<f64>, db: &mut Device<f32>);
    bias_bwd_columns(d: ChannelDims, dy: &Device<f32>, db: &mut Device<f32>);
}

/// A kernel of [`Conv::conv2d_fwd`].
type Fwd =
    unsafe fn(&Context, Grid, Conv2dDims, &Device<f32>, &Device<f32>, Option<&Device<f32>>, u32, &mut Device<f32>);
/// A kernel of one of its gradients.
type Bwd = unsafe fn(&Context, Grid, Conv2dDims, &Device<f32>, &Device<f32>, &mut Device<f32>);

/// The kernels in the order of their tiles.
const fn fwd_kernels(taps: Taps) -> &'static [Fwd] {
    const K3: &[Fwd] =
        &[launch::conv2d_fwd_k3_c8, launch::conv2d_fwd_k3_c16, launch::conv2d_fwd_k3_c32, launch::conv2d_fwd_k3_c64];
    const K5: &[Fwd] = &[launch::conv2d_fwd_k5_c8, launch::conv2d_fwd_k5_c32, launch::conv2d_fwd_k5_c64];
    const ANY: &[Fwd] = &[launch::conv2d_fwd_any_c8, launch::conv2d_fwd_any_c32, launch::conv2d_fwd_any_c64];
    match taps {
        Taps::K3 => K3,
        Taps::K5 => K5,
        Taps::Any => ANY,
    }
}

/// The kernels in the order of their tiles.
const fn bwd_input_kernels(taps: Taps) -> &'static [Bwd] {
    const K3: &[Bwd] = &[
        launch::conv2d_bwd_input_k3_c8,
        launch::conv2d_bwd_input_k3_c16,
        launch::conv2d_bwd_input_k3_c32,
        launch::conv2d_bwd_input_k3_c64,
    ];
    const K5: &[Bwd] =
        &[launch::conv2d_bwd_input_k5_c8, launch::conv2d_bwd_input_k5_c32, launch::conv2d_bwd_input_k5_c64];
    const ANY: &[Bwd] =
        &[launch::conv2d_bwd_input_any_c8, launch::conv2d_bwd_input_any_c32, launch::conv2d_bwd_input_any_c64];
    match taps {
        Taps::K3 => K3,
        Taps::K5 => K5,
        Taps::Any => ANY,
    }
}

/// The kernels in the order of their tiles.
const BWD_WEIGHT: [Bwd; 3] =
    [launch::conv2d_bwd_weight_c8, launch::conv2d_bwd_weight_c32, launch::conv2d_bwd_weight_c64];

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
        let (taps, cut) = tuning::conv2d_fwd(d);
        let kernel = fwd_kernels(taps)[cut.tile];
        let of = ChannelDims::new(d.y());
        self.sum_of_parts(&of, cut.parts, b, activation, |b, activation, y| {
            // SAFETY: `x`, `w` and `b` are as long as `d` says, `y` has `cut.parts` outputs.
            unsafe { kernel(self, cut.grid, *d, x, w, b, activation.code(), y) };
        })
    }

    fn conv2d_bwd_input(&self, d: &Conv2dDims, _x: &Device<f32>, dy: &Device<f32>, w: &Device<f32>) -> Device<f32> {
        let [_, w_len, y_len] = lengths(d);
        assert!(dy.len() == y_len && w.len() == w_len);
        let (taps, cut) = tuning::conv2d_bwd_input(d);
        let kernel = bwd_input_kernels(taps)[cut.tile];
        let of = ChannelDims::new(d.x());
        self.sum_of_parts(&of, cut.parts, None, Activation::Identity, |_, _, dx| {
            // SAFETY: `dy` and `w` are as long as `d` says, `dx` has `cut.parts` inputs.
            unsafe { kernel(self, cut.grid, *d, dy, w, dx) };
        })
    }

    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Device<f32>, dy: &Device<f32>) -> Device<f32> {
        let [x_len, _, y_len] = lengths(d);
        assert!(x.len() == x_len && dy.len() == y_len);
        let cut = tuning::conv2d_bwd_weight(d);
        let of = ChannelDims::new(d.w());
        self.sum_of_parts(&of, cut.parts, None, Activation::Identity, |_, _, dw| {
            // SAFETY: `x` and `dy` are as long as `d` says, `dw` has `cut.parts` weights.
            unsafe { BWD_WEIGHT[cut.tile](self, cut.grid, *d, x, dy, dw) };
        })
    }

    fn bias_bwd(&self, d: &ChannelDims, dy: &Device<f32>) -> Device<f32> {
        assert_eq!(dy.len(), d.n as usize * d.c as usize * d.hw as usize);
        let mut db = self.alloc(d.c as usize);
        match tuning::bias_bwd(d) {
            // SAFETY: `dy` is as long as `d` says, `db` has its channels.
            BiasCut::Columns(grid) => unsafe { launch::bias_bwd_columns(self, grid, *d, dy, &mut db) },
            // SAFETY: the same; with one part `partials` is not touched.
            BiasCut::Rows { grid, lanes, parts: 1 } => unsafe {
                launch::bias_bwd(self, grid, *d, lanes, dy, None, Some(&mut db));
            },
            BiasCut::Rows { grid, lanes, parts } => {
                let mut partials = self.alloc(parts as usize * d.c as usize);
                // SAFETY: the same; `partials` has `parts` times the channels, and the first kernel leaves `db` alone.
                unsafe {
                    launch::bias_bwd(self, grid, *d, lanes, dy, Some(&mut partials), None);
                    launch::bias_bwd_finish(self, tuning::bias_bwd_finish(d.c), d.c, parts, &partials, &mut db);
                }
            }
        }
        db
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The convolutions of a ResNet-18 of this width, a batch of `n`.
    fn convolutions(n: usize, w: usize) -> Vec<Conv2dDims> {
        let mut all = vec![Conv2dDims::new([n, 3, 32, 32], 4 * w, 3, 1, 1).unwrap()];
        for (stage, side) in [32, 32, 16, 8].into_iter().enumerate() {
            let (c_in, c_out) = ((4 * w) << stage.saturating_sub(1), (4 * w) << stage);
            let stride = if stage == 0 { 1 } else { 2 };
            all.push(Conv2dDims::new([n, c_in, side, side], c_out, 3, stride, 1).unwrap());
            all.push(Conv2dDims::new([n, c_in, side, side], c_out, 1, stride, 0).unwrap());
            all.push(Conv2dDims::new([n, c_out, side / stride, side / stride], c_out, 3, 1, 1).unwrap());
        }
        all
    }

    #[test]
    fn tiles_are_as_narrow_as_the_network() {
        for d in convolutions(128, 1) {
            let ((taps, fwd), (gradient_taps, bwd)) = (tuning::conv2d_fwd(&d), tuning::conv2d_bwd_input(&d));
            assert!(fwd.tile + 1 < fwd_kernels(taps).len() && bwd.tile + 1 < bwd_input_kernels(gradient_taps).len());
            assert!(tuning::conv2d_bwd_weight(&d).tile + 1 < BWD_WEIGHT.len());
        }
        // In its wide layers, a wide network has 64 channels a tile.
        let d = Conv2dDims::new([128, 512, 4, 4], 512, 3, 1, 1).unwrap();
        let (taps, cut) = tuning::conv2d_fwd(&d);
        assert_eq!((taps, cut.tile + 1), (Taps::K3, fwd_kernels(taps).len()));
    }

    #[test]
    fn sums_are_short_and_grids_are_small_enough() {
        for (n, w) in [(1, 1), (128, 1), (128, 16), (512, 4), (10_000, 2)] {
            for d in convolutions(n, w) {
                let cuts = [tuning::conv2d_fwd(&d).1, tuning::conv2d_bwd_input(&d).1, tuning::conv2d_bwd_weight(&d)];
                assert!(cuts.iter().all(|cut| cut.grid.blocks[1] <= 65_535), "{d:?}: {cuts:?}");
                let pixels = d.n as usize * d.h_out as usize * d.w_out as usize;
                assert!(pixels.div_ceil(cuts[2].parts as usize) <= 2560, "{d:?}: {cuts:?}");
            }
        }
    }
}
