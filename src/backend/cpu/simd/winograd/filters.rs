//! The transform `G g Gᵀ` of filters, a vector of output channels at a time.

use pulp::Simd;

use super::one_dimension;
use crate::backend::cpu::jobs::{Minimal, WinogradConv, WinogradFilters};
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::simd::{per_pixel, registers, registers_mut};

/// Entries of the largest filter.
const TAPS: usize = 25;

impl pulp::WithSimd for WinogradFilters<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.conv.minimal {
            Minimal::F2x3 => panel::<S, 3, 4>(simd, self),
            Minimal::F4x3 => panel::<S, 3, 6>(simd, self),
            Minimal::F2x5 => panel::<S, 5, 6>(simd, self),
        }
    }
}

#[inline(always)]
fn panel<S: Simd, const R: usize, const N: usize>(simd: S, job: WinogradFilters<'_, f32>) {
    let WinogradFilters { conv, w, panel, u } = job;
    let outputs = LANES.min(conv.c_out - panel * LANES);
    let pixel = per_pixel::<S>();
    for input in 0..conv.c_in {
        // Channels that fill the last panel stay zero.
        let mut filter = [[0.0; LANES]; TAPS];
        for output in 0..outputs {
            gather(&conv, w, input, panel * LANES + output, output, &mut filter);
        }
        let filter = registers::<S>(&filter);
        for half in 0..pixel {
            // By columns, then by rows.
            let mut columns = [[simd.splat_f32s(0.0); N]; R];
            for (col, column) in columns.iter_mut().enumerate() {
                let mut g = [simd.splat_f32s(0.0); R];
                unroll!(ROW < R, at most 8, { g[ROW] = filter[(ROW * R + col) * pixel + half] });
                *column = one_dimension::filter(simd, g);
            }
            for row in 0..N {
                let mut g = [simd.splat_f32s(0.0); R];
                unroll!(COL < R, at most 8, { g[COL] = columns[COL][row] });
                let out: [S::f32s; N] = one_dimension::filter(simd, g);
                for (col, &out) in out.iter().enumerate() {
                    registers_mut::<S>(&mut u[(row * N + col) * (conv.c_in + 1) + input..][..1])[half] = out;
                }
            }
        }
    }
}

/// The filter from one channel to another, to lane `lane` of all entries of `to`.
#[inline(always)]
fn gather(conv: &WinogradConv, w: &[f32], input: usize, output: usize, lane: usize, to: &mut [[f32; LANES]; TAPS]) {
    let taps = conv.minimal.filter().pow(2);
    if conv.transposed {
        let filter = &w[(input * conv.c_out + output) * taps..][..taps];
        filter.iter().rev().zip(to).for_each(|(&w, to)| to[lane] = w);
    } else {
        let filter = &w[(output * conv.c_in + input) * taps..][..taps];
        filter.iter().zip(to).for_each(|(&w, to)| to[lane] = w);
    }
}
