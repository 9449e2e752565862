//! [`Gemm`] with a register tile of sums.
//!
//! `ROWS × COLS` sums stay in registers, where a column is a register of images: per input, `COLS` loads, `ROWS` broadcasts and
//! `ROWS × COLS` multiply-adds. With AVX-512 a broadcast is an operand of its multiply-add, so that 16 rows of one block are as
//! fast as the processor multiplies; two blocks at a time read every weight once for both.

use pulp::Simd;

use super::{activate, per_pixel, prefetch, registers, registers_mut};
use crate::backend::cpu::jobs::{Gemm, PANEL};

/// Inputs whose weights are fetched in advance, 4 KiB: those of a wide layer come from the third-level cache, which the
/// processor's own prefetching does not keep up with.
const AHEAD: usize = 64;

impl pulp::WithSimd for Gemm<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let depth = self.packing.depth;
        let blocks = self.y.len() / self.rows.len();
        for (first, panels) in self.packing.pieces(self.a) {
            let rows = self.rows.clone().step_by(PANEL);
            for (row, a) in rows.zip(panels.skip(self.rows.start / PANEL)) {
                let part = Part { a, first, row, last: first + a.len() == depth };
                let mut block = 0;
                while block < blocks {
                    block += match (S::REGISTER_COUNT >= 32, per_pixel::<S>(), blocks - block) {
                        (true, 1, 2..) => panel_of::<S, 8, 2, 2, 16>(simd, &mut self, &part, block),
                        (true, 1, _) => panel_of::<S, 16, 1, 1, 16>(simd, &mut self, &part, block),
                        (_, 2, _) => panel_of::<S, 4, 2, 1, 8>(simd, &mut self, &part, block),
                        _ => unreachable!("LANES is one or two registers"),
                    };
                }
            }
        }
    }
}

/// A panel and its place: `a[i]` are the weights of input `first + i` in the rows from `row` on.
struct Part<'a> {
    a: &'a [[f32; PANEL]],
    first: usize,
    row: usize,
    /// Whether its inputs are the last ones.
    last: bool,
}

/// The products of a panel with `BLOCKS` blocks from `block` on, whose images are `COLS` registers. Returns `BLOCKS`.
#[inline(always)]
fn panel_of<S: Simd, const ROWS: usize, const COLS: usize, const BLOCKS: usize, const SUMS: usize>(
    simd: S,
    gemm: &mut Gemm<'_, f32>,
    part: &Part<'_>,
    block: usize,
) -> usize {
    unroll!(TILE < PANEL / ROWS, {
        if part.row + TILE * ROWS < gemm.rows.end {
            register_tile::<S, ROWS, COLS, BLOCKS, SUMS>(simd, gemm, part, block, TILE * ROWS);
        }
    });
    BLOCKS
}

/// The sums of `ROWS` rows from number `row` of the panel on. `SUMS` is `ROWS * COLS`, the sums of one column after the other.
#[inline(always)]
fn register_tile<S: Simd, const ROWS: usize, const COLS: usize, const BLOCKS: usize, const SUMS: usize>(
    simd: S,
    gemm: &mut Gemm<'_, f32>,
    part: &Part<'_>,
    block: usize,
    row: usize,
) {
    let (pixel, depth, rows) = (per_pixel::<S>(), gemm.packing.depth, gemm.rows.len());
    // Slices of one length, so that no index is checked.
    let n = part.a.len();
    let mut x = [&[] as &[S::f32s]; BLOCKS];
    unroll!(B < BLOCKS, {
        x[B] = &registers::<S>(&gemm.x[(block + B) * depth + part.first..][..n])[..n * pixel];
    });
    // Rows of the tile that the matrix has.
    let real = (gemm.rows.end - part.row - row).min(ROWS);
    let y_first = block * rows + part.row - gemm.rows.start + row;
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    let y = registers_mut::<S>(gemm.y);
    unroll!(I < SUMS, {
        let (r, at) = (I % ROWS, I / ROWS);
        if r < real {
            sums[I] = match (part.first, gemm.bias) {
                (0, None) => simd.splat_f32s(0.0),
                (0, Some(bias)) => simd.splat_f32s(bias[part.row + row + r]),
                _ => y[(y_first + at / pixel * rows + r) * pixel + at % pixel],
            };
        }
    });
    for i in 0..n {
        let weights = &part.a[i][row..][..ROWS];
        prefetch(part.a, i + AHEAD);
        unroll!(I < SUMS, {
            let x = x[I / ROWS / (COLS / BLOCKS)][i * (COLS / BLOCKS) + I / ROWS % (COLS / BLOCKS)];
            sums[I] = simd.mul_add_f32s(x, simd.splat_f32s(weights[I % ROWS]), sums[I]);
        });
    }
    unroll!(I < SUMS, {
        let (r, at) = (I % ROWS, I / ROWS);
        if r < real {
            let sum = if part.last { activate(simd, gemm.activation, sums[I]) } else { sums[I] };
            y[(y_first + at / pixel * rows + r) * pixel + at % pixel] = sum;
        }
    });
}
