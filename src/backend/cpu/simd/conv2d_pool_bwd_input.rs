//! [`Conv2dPoolBwdInput`] with a register tile of patches.
//!
//! The weight that belongs to an index comes out of a register by a permutation inside every four lanes, which the
//! processor does beside the multiply-adds. Per window a tile loads four tables, and per column a gradient and an index,
//! for `4 × COLS` permutations and multiply-adds.

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use super::{per_pixel, registers, registers_mut};
use crate::backend::cpu::jobs::Conv2dPoolBwdInput;

/// Output channels whose windows stay in the first level of the cache while all input channels go by.
const CHUNK: usize = 8;

/// Vector registers with a permutation inside every four lanes.
pub trait Permute: Simd {
    /// The four values, again and again.
    fn repeat4(self, table: &[f32; 4]) -> Self::f32s;
    /// In every lane, of the four values of `table` that it is among, the one that the lowest two bits of `index` number.
    fn permute4(self, table: Self::f32s, index: Self::f32s) -> Self::f32s;
}

#[cfg(target_arch = "x86_64")]
impl Permute for V4 {
    #[inline(always)]
    fn repeat4(self, table: &[f32; 4]) -> Self::f32s {
        bytemuck::cast(self.avx512f._mm512_broadcast_f32x4(bytemuck::cast(*table)))
    }

    #[inline(always)]
    fn permute4(self, table: Self::f32s, index: Self::f32s) -> Self::f32s {
        bytemuck::cast(self.avx512f._mm512_permutevar_ps(bytemuck::cast(table), bytemuck::cast(index)))
    }
}

#[cfg(target_arch = "x86_64")]
impl Permute for V3 {
    #[inline(always)]
    fn repeat4(self, table: &[f32; 4]) -> Self::f32s {
        bytemuck::cast(self.avx._mm256_broadcast_ps(&bytemuck::cast(*table)))
    }

    #[inline(always)]
    fn permute4(self, table: Self::f32s, index: Self::f32s) -> Self::f32s {
        bytemuck::cast(self.avx._mm256_permutevar_ps(bytemuck::cast(table), bytemuck::cast(index)))
    }
}

/// The job on vector registers that permute, which pulp's own dispatch does not ask for.
pub struct Permuting<'a, S>(pub S, pub Conv2dPoolBwdInput<'a, f32>);

impl<S: Permute> pulp::NullaryFnOnce for Permuting<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Permuting(simd, mut job) = self;
        let cols = job.cols * per_pixel::<S>();
        let wasted = |tile: usize| cols.div_ceil(tile) * tile - cols;
        if S::REGISTER_COUNT >= 32 && cols >= 5 && wasted(5) <= wasted(4) {
            register_tiles::<S, 5, 20>(simd, &mut job);
        } else if S::REGISTER_COUNT >= 32 && cols >= 4 {
            register_tiles::<S, 4, 16>(simd, &mut job);
        } else if cols >= 2 {
            register_tiles::<S, 2, 8>(simd, &mut job);
        } else {
            register_tiles::<S, 1, 4>(simd, &mut job);
        }
    }
}

/// Covers the patches with register tiles; the last of a row overlaps the one before where the size does not divide.
#[inline(always)]
fn register_tiles<S: Permute, const COLS: usize, const SUMS: usize>(simd: S, job: &mut Conv2dPoolBwdInput<'_, f32>) {
    let cols = job.cols * per_pixel::<S>();
    let channels = job.g.len() / job.plane;
    for row in 0..job.rows {
        for first in (0..channels).step_by(CHUNK) {
            let chunk = first..(first + CHUNK).min(channels);
            for c in 0..job.channels {
                for col in (0..cols).step_by(COLS) {
                    let start = col.min(cols - COLS);
                    // What an overlapping tile shares with the one before already has this chunk's terms.
                    register_tile::<S, COLS, SUMS>(simd, job, chunk.clone(), c, row, start, col - start);
                }
            }
        }
    }
}

/// Of the patches from register `col` on, those from number `fresh` on. `SUMS` is `4 * COLS`.
#[inline(always)]
fn register_tile<S: Permute, const COLS: usize, const SUMS: usize>(
    simd: S,
    job: &mut Conv2dPoolBwdInput<'_, f32>,
    chunk: std::ops::Range<usize>,
    c: usize,
    row: usize,
    col: usize,
    fresh: usize,
) {
    let pixel = per_pixel::<S>();
    let (reach, channels) = (job.windows.len(), job.g.len() / job.plane);
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    for channel in chunk.clone() {
        let at = (channel * job.plane + row * job.width) * pixel + col;
        let (g, indices) = (&registers::<S>(job.g)[at..], &registers::<S>(job.indices)[at..]);
        let tables = job.tables[(c * channels + channel) * reach * 4..][..reach * 4].as_chunks::<4>().0;
        for (&window, tables) in job.windows.iter().zip(tables) {
            let g = &g[window as usize * pixel..][..COLS];
            let indices = &indices[window as usize * pixel..][..COLS];
            let mut weights = [simd.splat_f32s(0.0); 4];
            unroll!(P < 4, { weights[P] = simd.repeat4(&tables[P]) });
            unroll!(I < SUMS, {
                sums[I] = simd.mul_add_f32s(simd.permute4(weights[I % 4], indices[I / 4]), g[I / 4], sums[I]);
            });
        }
    }
    let (first, width) = (chunk.start == 0, 2 * job.cols);
    let dx = registers_mut::<S>(job.dx);
    unroll!(I < SUMS, {
        let (i, p) = (I / 4, I % 4);
        if i >= fresh {
            let (patch, half) = ((col + i) / pixel, (col + i) % pixel);
            let y = (c * job.rows + row) * 2 + p / 2;
            let to = &mut dx[(y * width + 2 * patch + p % 2) * pixel + half];
            *to = if first { sums[I] } else { simd.add_f32s(*to, sums[I]) };
        }
    });
}
