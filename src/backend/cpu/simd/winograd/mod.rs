//! Winograd's convolution on vector registers: strip by strip, transform, product, transform back.

mod product;
mod transform;

use pulp::Simd;

use super::per_pixel;
use crate::backend::cpu::jobs::{TILES, WinogradStrips};

impl pulp::WithSimd for WinogradStrips<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let all = self.conv.tiles() * (self.x.len() / (self.conv.c_in * self.conv.h * self.conv.w));
        for first in (0..all).step_by(self.tiles) {
            let count = self.tiles.min(all - first);
            transform::inputs::<S>(simd, &mut self, first, count);
            match (S::REGISTER_COUNT >= 32, per_pixel::<S>(), self.tiles) {
                (true, 1, TILES) => product::all::<S, 4, 4, 4, 16>(simd, &mut self),
                (true, 1, _) => product::all::<S, 1, 16, 1, 16>(simd, &mut self),
                (_, 2, TILES) => product::all::<S, 8, 4, 2, 8>(simd, &mut self),
                (_, 2, _) => product::all::<S, 2, 4, 2, 8>(simd, &mut self),
                _ => unreachable!("LANES is one or two registers"),
            }
            transform::outputs::<S>(simd, &mut self, first, count);
        }
    }
}
