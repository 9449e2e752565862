//! Square attack.

use super::Memory;
use crate::base::layout::layout;

/// A square-shaped update of one image: all pixels of the square move by the same amount in each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct SquareUpdate {
    /// First row.
    pub top: u32,
    /// First column.
    pub left: u32,
    /// Rows and columns; 0 for no update.
    pub side: u32,
    /// Bit `c`: channel `c` moves up; else down.
    pub up: u32,
}

layout!(SquareUpdate { top, left, side, up });

/// The proposals of the Square attack. Images are in [0, 1].
pub trait Square: Memory {
    /// Returns `x`, but within each image's square `clean ± eps`, clamped to [0, 1]. `shape` is an image's `[c, h, w]`;
    /// `updates` has one element for each image of the batch.
    fn square_update(
        &self,
        shape: [usize; 3],
        eps: f32,
        updates: &[SquareUpdate],
        clean: &Self::Batch,
        x: &Self::Batch,
    ) -> Self::Batch;
}
