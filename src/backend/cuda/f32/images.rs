//! Batches from a data set of bytes.

use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{CropFlip, Images};
use crate::base::rng::Rng;

kernels! { "f32/images":
    gather(features: u32, indices: &Device<u32>, images: &Device<u8>, y: &mut Device<f32>);
    gather_cropped(
        features: u32,
        h: u32,
        w: u32,
        pad: u32,
        rng: Rng,
        indices: &Device<u32>,
        images: &Device<u8>,
        y: &mut Device<f32>,
    );
}

/// A data set's bytes on the device.
pub struct Resident {
    shape: [usize; 3],
    images: Device<u8>,
}

impl<P: Precision> Images for Cuda<P> {
    type Resident<'a> = Resident;

    fn resident(&self, shape: [usize; 3], images: &[u8]) -> Resident {
        Resident { shape, images: self.upload_slice(images) }
    }

    fn gather(&self, images: &Resident, indices: &[u32], augment: Option<&CropFlip>) -> P::Batch {
        let [_, h, w] = images.shape;
        let features: usize = images.shape.iter().product();
        let count = images.images.len() / features;
        assert!(indices.iter().all(|&index| (index as usize) < count), "an image that is not in the data set");
        let mut y = self.alloc(indices.len() * features);
        if y.is_empty() {
            return y.into();
        }
        let (grid, features) = (tuning::images(indices.len(), features), features as u32);
        let (indices, images) = (self.upload_slice(indices), &images.images);
        match augment {
            // SAFETY: the grid has a row of blocks for each index, all of which are below the number of images, and `y`
            // has `features` elements for each.
            None => unsafe { launch::gather(self, grid, features, &indices, images, &mut y) },
            // SAFETY: as above, and what falls out of an image of h × w is not read.
            Some(&CropFlip { rng, pad }) => unsafe {
                launch::gather_cropped(self, grid, features, h as u32, w as u32, pad, rng, &indices, images, &mut y);
            },
        }
        y.into()
    }
}
