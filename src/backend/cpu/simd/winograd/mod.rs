//! Winograd's convolutions on vector registers: strip by strip, transform, product, transform back.

mod filters;
mod inputs;
mod one_dimension;
mod outputs;
mod product;

use pulp::Simd;

use super::per_pixel;
use crate::backend::cpu::jobs::{Input, Minimal, Output, WinogradConv, WinogradStrips};
use crate::backend::cpu::layout::LANES;

impl pulp::WithSimd for WinogradStrips<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let all = self.conv.tiles() * self.blocks;
        let (first_panel, panels) = (self.channels.start / LANES, self.channels.end.div_ceil(LANES));
        for first in (0..all).step_by(self.strip) {
            let count = self.strip.min(all - first);
            match (self.conv.minimal, &self.input) {
                (Minimal::F2x3, Input::Images(_)) => inputs::all::<S, 2, 3, 4, false>(simd, &mut self, first, count),
                (Minimal::F4x3, Input::Images(_)) => inputs::all::<S, 4, 3, 6, false>(simd, &mut self, first, count),
                (Minimal::F2x5, Input::Images(_)) => inputs::all::<S, 2, 5, 6, false>(simd, &mut self, first, count),
                (Minimal::F2x5, Input::Pooled { .. }) => inputs::all::<S, 2, 5, 6, true>(simd, &mut self, first, count),
                (Minimal::F2x3 | Minimal::F4x3, Input::Pooled { .. }) => unreachable!("only of 5×5 filters"),
            }
            for group in (first_panel..panels).step_by(self.panels) {
                let group = group..(group + self.panels).min(panels);
                match (S::REGISTER_COUNT >= 32, per_pixel::<S>(), self.strip) {
                    (true, 1, 7) => product::all::<S, 7, 2, 7, 14>(simd, &mut self, group.clone()),
                    (true, 1, 4) => product::all::<S, 4, 4, 4, 16>(simd, &mut self, group.clone()),
                    (true, 1, _) => product::all::<S, 1, 16, 1, 16>(simd, &mut self, group.clone()),
                    (_, 2, 7) => product::all::<S, 14, 4, 2, 8>(simd, &mut self, group.clone()),
                    (_, 2, 4) => product::all::<S, 8, 4, 2, 8>(simd, &mut self, group.clone()),
                    (_, 2, _) => product::all::<S, 2, 4, 2, 8>(simd, &mut self, group.clone()),
                    _ => unreachable!("LANES is one or two registers"),
                }
                match (self.conv.minimal, &self.output) {
                    (Minimal::F2x3, Output::Images { .. }) => {
                        outputs::all::<S, 2, 4>(simd, &mut self, first, count, group)
                    }
                    (Minimal::F4x3, Output::Images { .. }) => {
                        outputs::all::<S, 4, 6>(simd, &mut self, first, count, group)
                    }
                    (Minimal::F2x5, _) => outputs::all::<S, 2, 6>(simd, &mut self, first, count, group),
                    (Minimal::F2x3 | Minimal::F4x3, _) => unreachable!("only of 5×5 filters"),
                }
            }
        }
    }
}

/// Consecutive tiles of one row of tiles of an image.
struct Span {
    /// Block of images.
    block: usize,
    /// Row and first column, in tiles.
    row: usize,
    col: usize,
    /// First tile in the strip, and their number.
    first: usize,
    len: usize,
}

/// The next span of a strip of `count` tiles that begins at tile `start` of all; `first` tiles are behind it.
#[inline(always)]
fn span(conv: &WinogradConv, start: usize, first: usize, count: usize) -> Span {
    let cols = conv.tile_cols();
    let (block, tile) = ((start + first) / conv.tiles(), (start + first) % conv.tiles());
    let (row, col) = (tile / cols, tile % cols);
    Span { block, row, col, first, len: (cols - col).min(count - first) }
}
