//! The transform `Aᵀ m A` of outputs with bias and activation, and pooling if it is asked for, a vector of images at a time.

use std::ops::Range;

use pulp::Simd;

use super::{one_dimension, span};
use crate::backend::cpu::jobs::{Output, WinogradStrips, entry_stride};
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::simd::pool::maximum;
use crate::backend::cpu::simd::{activate, per_pixel, registers, registers_mut};

/// Entries of the largest transformed tile.
const ENTRIES: usize = 36;

/// The `count` tiles from tile `start` of all, of the channels of some panels, for tiles of M×M outputs and N×N entries.
#[inline(always)]
pub fn all<S: Simd, const M: usize, const N: usize>(
    simd: S,
    strips: &mut WinogradStrips<'_, f32>,
    start: usize,
    count: usize,
    panels: Range<usize>,
) {
    let (conv, pixel) = (strips.conv, per_pixel::<S>());
    let step = entry_stride(strips.panels * LANES, strips.strip) * pixel;
    // Slices of one length, so that one comparison checks an index into all of them.
    let mut entries = [&[] as &[S::f32s]; ENTRIES];
    unroll!(ROW < N, at most 8, {
        unroll!(COL < N, at most 8, {
            entries[ROW * N + COL] = &registers::<S>(strips.m)[(ROW * N + COL) * step..][..step];
        });
    });
    let first_channel = panels.start * LANES;
    let all = strips.channels.clone();
    let channels = first_channel.max(all.start)..(panels.end * LANES).min(all.end);
    let mut done = 0;
    while done < count {
        let span = span(&conv, start, done, count);
        for c in channels.clone() {
            let bias = simd.splat_f32s(strips.bias.map_or(0.0, |b| b[c]));
            let m = ((c - first_channel) * strips.strip + span.first) * pixel;
            for i in 0..span.len * pixel {
                let mut tile = tile::<S, M, N>(simd, &entries, m + i);
                for out in tile.as_flattened_mut() {
                    *out = activate(simd, strips.activation, simd.add_f32s(*out, bias));
                }
                let (channel, col) = (span.block * all.len() + c - all.start, span.col + i / pixel);
                let place = Place { channel, row: span.row, col, half: i % pixel };
                match &mut strips.output {
                    Output::Images { y, accumulate } => {
                        place.write::<S, M>(simd, tile, [conv.h, conv.w], registers_mut::<S>(y), *accumulate);
                    }
                    Output::Pooled { y, indices } => {
                        let at = place.window::<S>(conv.h, conv.w);
                        let pixels = [tile[0][0], tile[0][1], tile[1][0], tile[1][1]];
                        (registers_mut::<S>(y)[at], registers_mut::<S>(indices)[at]) = maximum(simd, pixels);
                    }
                }
            }
        }
        done += span.len;
    }
}

/// `Aᵀ m A` of the tile at register `at` of every entry.
#[inline(always)]
fn tile<S: Simd, const M: usize, const N: usize>(
    simd: S,
    entries: &[&[S::f32s]; ENTRIES],
    at: usize,
) -> [[S::f32s; M]; M] {
    let zero = simd.splat_f32s(0.0);
    let mut columns = [[zero; M]; N];
    unroll!(COL < N, at most 8, {
        let mut m = [zero; N];
        unroll!(ROW < N, at most 8, { m[ROW] = entries[ROW * N + COL][at] });
        columns[COL] = one_dimension::output(simd, m);
    });
    let mut rows = [[zero; M]; M];
    unroll!(ROW < M, at most 8, {
        let mut m = [zero; N];
        unroll!(COL < N, at most 8, { m[COL] = columns[COL][ROW] });
        rows[ROW] = one_dimension::output(simd, m);
    });
    rows
}

/// Where a tile belongs.
struct Place {
    /// Its channel among those of all blocks.
    channel: usize,
    /// Row and column, in tiles.
    row: usize,
    col: usize,
    /// Which register of a pixel.
    half: usize,
}

impl Place {
    /// Writes or adds what of the tile lies in the image, whose size is `h`×`w`.
    #[inline(always)]
    fn write<S: Simd, const M: usize>(
        &self,
        simd: S,
        tile: [[S::f32s; M]; M],
        [h, w]: [usize; 2],
        y: &mut [S::f32s],
        accumulate: bool,
    ) {
        let (row, col) = (M * self.row, M * self.col);
        let first = (self.channel * h + row) * w;
        unroll!(ROW < M, at most 8, {
            if row + ROW < h {
                let y = &mut y[(first + ROW * w) * per_pixel::<S>()..][..w * per_pixel::<S>()];
                unroll!(COL < M, at most 8, {
                    if let Some(y) = y.get_mut((col + COL) * per_pixel::<S>() + self.half) {
                        *y = if accumulate { simd.add_f32s(*y, tile[ROW][COL]) } else { tile[ROW][COL] };
                    }
                });
            }
        });
    }

    /// The register of its window, where a tile is a window of an image whose size is `h`×`w`.
    #[inline(always)]
    fn window<S: Simd>(&self, h: usize, w: usize) -> usize {
        ((self.channel * (h / 2) + self.row) * (w / 2) + self.col) * per_pixel::<S>() + self.half
    }
}
