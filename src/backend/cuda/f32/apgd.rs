//! The step of Auto-PGD.

use super::samples::features;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{Apgd, ApgdPoints, ApgdStep};

kernels! { "f32/apgd":
    apgd_step(
        features: u32,
        eps: f32,
        momentum: f32,
        steps: &Device<ApgdStep>,
        clean: &Device<f32>,
        dx: &Device<f32>,
        x: &mut Device<f32>,
        previous: &mut Device<f32>,
        best: &mut Device<f32>,
        best_dx: &mut Device<f32>,
    );
}

impl<P: Precision> Apgd for Cuda<P> {
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        steps: &[ApgdStep],
        clean: &P::Batch,
        dx: &P::Batch,
        points: ApgdPoints<'_, P::Batch>,
    ) {
        let clean = &*P::cast_f32(self, clean);
        let dx = &*P::cast_f32(self, dx);
        let ApgdPoints { x, previous, best, best_dx } = points;
        let [x, previous, best, best_dx] = [x, previous, best, best_dx].map(|point| P::f32_mut(self, point));
        let features = features(steps.len(), [clean, dx, x, previous, best, best_dx]);
        let (grid, steps) = (tuning::pixels(steps.len(), features), self.upload_slice(steps));
        // SAFETY: there is a row of blocks for each image, and all batches have `features` elements for each.
        unsafe {
            launch::apgd_step(
                self,
                grid,
                features as u32,
                eps,
                momentum,
                &steps,
                clean,
                dx,
                x,
                previous,
                best,
                best_dx,
            );
        }
    }
}
