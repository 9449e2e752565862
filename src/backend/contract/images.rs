//! Data sets on the device.

use super::Memory;
use crate::base::rng::Rng;

/// Random crop after zero padding, and horizontal flip: which one, for the sample at a position of a training step.
#[derive(Clone, Copy, Debug)]
pub struct CropFlip {
    /// Numbers of the training step.
    pub rng: Rng,
    /// Zero pixels on each side.
    pub pad: u32,
}

impl CropFlip {
    /// Row and column offset of the crop in the padded image, and whether to flip it.
    pub fn of(&self, position: usize) -> (usize, usize, bool) {
        let at = |k: u64, n: u32| self.rng.below_at(4 * position as u64 + k, n);
        (at(0, 2 * self.pad + 1) as usize, at(1, 2 * self.pad + 1) as usize, at(2, 2) == 1)
    }
}

/// A data set on the device.
pub trait Images: Memory {
    /// The images of a data set, as bytes.
    type Resident<'a>: Sync;

    /// Puts `n × c × h × w` bytes on the device.
    fn resident<'a>(&self, shape: [usize; 3], images: &'a [u8]) -> Self::Resident<'a>;
    /// The batch of the images at `indices`, pixels divided by 255, cropped and flipped if asked.
    fn gather(&self, images: &Self::Resident<'_>, indices: &[u32], augment: Option<&CropFlip>) -> Self::Batch;
}
