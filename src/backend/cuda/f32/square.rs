//! The proposals of the Square attack.

use super::samples::features;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{Square, SquareUpdate};

kernels! { "f32/square":
    square_update(
        features: u32,
        h: u32,
        w: u32,
        eps: f32,
        updates: &Device<SquareUpdate>,
        clean: &Device<f32>,
        x: &Device<f32>,
        y: &mut Device<f32>,
    );
}

impl<P: Precision> Square for Cuda<P> {
    fn square_update(
        &self,
        shape: [usize; 3],
        eps: f32,
        updates: &[SquareUpdate],
        clean: &P::Batch,
        x: &P::Batch,
    ) -> P::Batch {
        let clean = &*P::cast_f32(self, clean);
        let x = &*P::cast_f32(self, x);
        let [c, h, w] = shape;
        let features = features(updates.len(), [clean, x]);
        assert_eq!(features, c * h * w);
        let mut y = self.alloc(x.len());
        let (grid, updates) = (tuning::pixels(updates.len(), features), self.upload_slice(updates));
        // SAFETY: there is a row of blocks for each update, and all batches have `features` elements for each.
        unsafe {
            launch::square_update(self, grid, features as u32, h as u32, w as u32, eps, &updates, clean, x, &mut y);
        }
        y.into()
    }
}
