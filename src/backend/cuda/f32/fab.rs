//! The steps of the Fast Adaptive Boundary attack.

use super::samples::features;
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{Fab, FabStep};

kernels! { "f32/fab":
    fab_step(
        features: u32,
        step: FabStep,
        values: &Device<f32>,
        clean: &Device<f32>,
        dx: &Device<f32>,
        x: &mut Device<f32>,
    );
    interpolate(features: u32, t: &Device<f32>, clean: &Device<f32>, x: &mut Device<f32>);
}

by_value!(FabStep);

impl<P: Precision> Fab for Cuda<P> {
    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &P::Batch, dx: &P::Batch, x: &mut P::Batch) {
        let clean = &*P::cast_f32(self, clean);
        let dx = &*P::cast_f32(self, dx);
        let x = P::f32_mut(self, x);
        let features = features(values.len(), [clean, dx, x]) as u32;
        let (grid, values) = (tuning::whole_images(values.len()), self.upload_slice(values));
        // SAFETY: there is a block for each value, and all batches have `features` elements for each.
        unsafe { launch::fab_step(self, grid, features, *step, &values, clean, dx, x) };
    }

    fn interpolate(&self, t: &[f32], clean: &P::Batch, x: &mut P::Batch) {
        let clean = &*P::cast_f32(self, clean);
        let x = P::f32_mut(self, x);
        let features = features(t.len(), [clean, x]);
        let (grid, t) = (tuning::pixels(t.len(), features), self.upload_slice(t));
        // SAFETY: there is a row of blocks for each element of `t`, and both batches have `features` elements for each.
        unsafe { launch::interpolate(self, grid, features as u32, &t, clean, x) };
    }
}
