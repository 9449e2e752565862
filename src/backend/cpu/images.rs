//! Batches from a data set of bytes.

use super::{Buf, Cpu, LANES, Real, blocks};
use crate::backend::{CropFlip, Images, Memory};

/// A data set's bytes, where they are.
pub struct Resident<'a> {
    shape: [usize; 3],
    images: &'a [u8],
}

impl<T: Real> Images for Cpu<T> {
    type Resident<'a> = Resident<'a>;

    fn resident<'a>(&self, shape: [usize; 3], images: &'a [u8]) -> Resident<'a> {
        Resident { shape, images }
    }

    fn gather(&self, images: &Resident<'_>, indices: &[u32], augment: Option<&CropFlip>) -> Buf<T> {
        let [c, h, w] = images.shape;
        let features = c * h * w;
        let scale: [T; 256] = std::array::from_fn(|byte| T::of(byte as f32 / 255.0));
        let mut batch = self.zeros(blocks(indices.len()) * features * LANES);
        for (sample, &index) in indices.iter().enumerate() {
            let image = &images.images[index as usize * features..][..features];
            let lane = &mut batch[sample / LANES * features * LANES + sample % LANES..];
            match augment {
                None => image.iter().enumerate().for_each(|(f, &byte)| lane[f * LANES] = scale[usize::from(byte)]),
                Some(crop) => {
                    let source = cropped(crop, sample, h, w);
                    for channel in 0..c {
                        for (pixel, from) in source.iter().enumerate() {
                            let byte = from.map_or(0, |from| image[channel * h * w + from]);
                            lane[(channel * h * w + pixel) * LANES] = scale[usize::from(byte)];
                        }
                    }
                }
            }
        }
        batch
    }
}

/// For each pixel of the cropped and flipped image, the pixel it comes from; `None` in the zero padding.
fn cropped(crop: &CropFlip, sample: usize, h: usize, w: usize) -> Vec<Option<usize>> {
    let (top, left, flip) = crop.of(sample);
    let pad = crop.pad as usize;
    let inside = |at: usize, size: usize| at.checked_sub(pad).filter(|&v| v < size);
    (0..h * w)
        .map(|i| {
            let (row, col) = (i / w, if flip { w - 1 - i % w } else { i % w });
            Some(inside(row + top, h)? * w + inside(col + left, w)?)
        })
        .collect()
}
