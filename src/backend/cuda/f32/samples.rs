//! Ops on single images of a batch.

use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{Distance, Samples};

kernels! { "f32/samples":
    copy_samples(features: u32, chosen: &Device<u32>, from: &Device<f32>, to: &mut Device<f32>);
    distances(features: u32, euclidean: u32, a: &Device<f32>, b: &Device<f32>, y: &mut Device<f64>);
}

/// Pixels of each of `n` images, in batches of equal size.
pub(super) fn features<const BATCHES: usize>(n: usize, batches: [&Device<f32>; BATCHES]) -> usize {
    let len = batches[0].len();
    assert!(n > 0 && len.is_multiple_of(n) && batches.iter().all(|batch| batch.len() == len));
    len / n
}

impl<P: Precision> Samples for Cuda<P> {
    fn copy_samples(&self, chosen: &[bool], from: &P::Batch, to: &mut P::Batch) {
        let from = &*P::cast_f32(self, from);
        let to = P::f32_mut(self, to);
        let features = features(chosen.len(), [from, to]);
        if chosen.contains(&true) {
            let flags: Vec<u32> = chosen.iter().map(|&chosen| u32::from(chosen)).collect();
            let (grid, flags) = (tuning::pixels(chosen.len(), features), self.upload_slice(&flags));
            // SAFETY: there is a row of blocks for each flag, and both batches have `features` elements for each.
            unsafe { launch::copy_samples(self, grid, features as u32, &flags, from, to) };
        }
    }

    fn distances(&self, n: usize, distance: Distance, a: &P::Batch, b: &P::Batch) -> Vec<f64> {
        let a = &*P::cast_f32(self, a);
        let b = &*P::cast_f32(self, b);
        let (features, euclidean) = (features(n, [a, b]) as u32, u32::from(distance == Distance::L2));
        let mut y = self.alloc(n);
        // SAFETY: there is a block for each of `n` images, and both batches have `features` elements for each.
        unsafe { launch::distances(self, tuning::whole_images(n), features, euclidean, a, b, &mut y) };
        self.download_slice(&y)
    }
}
