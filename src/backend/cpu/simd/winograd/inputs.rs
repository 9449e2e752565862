//! The transform `Bᵀ d B` of inputs, a vector of images at a time.

use pulp::Simd;

use super::{Span, one_dimension, span};
use crate::backend::cpu::jobs::{FIRST_INDEX, Input, WinogradStrips, entry_stride};
use crate::backend::cpu::simd::{per_pixel, prefetch, registers, registers_mut};

/// Entries of the largest transformed tile.
const ENTRIES: usize = 36;

/// `V` of the `count` tiles from tile `start` of all, for F(M×M, R×R) with tiles of N×N inputs. `POOLED`: the input is a gradient
/// of pooled outputs.
#[inline(always)]
pub fn all<S: Simd, const M: usize, const R: usize, const N: usize, const POOLED: bool>(
    simd: S,
    strips: &mut WinogradStrips<'_, f32>,
    start: usize,
    count: usize,
) {
    let (conv, pixel) = (strips.conv, per_pixel::<S>());
    let pool = if POOLED { 2 } else { 1 };
    let (h, w) = (conv.h / pool, conv.w / pool);
    // Slices of one length, so that one comparison checks a tile's index into all of them.
    let step = entry_stride(conv.c_in, strips.strip) * pixel;
    let mut entries: [&mut [S::f32s]; ENTRIES] = std::array::from_fn(|_| Default::default());
    let mut rest = registers_mut::<S>(strips.v);
    for entry in &mut entries[..N * N] {
        (*entry, rest) = rest.split_at_mut(step);
    }
    let (x, indices) = match strips.input {
        Input::Images(x) => (x, x),
        Input::Pooled { g, indices } => (g, indices),
    };
    let zeros = registers::<S>(&strips.zeros[..w]);
    let mut done = 0;
    while done < count {
        let span = span(&conv, start, done, count);
        for c in 0..conv.c_in {
            let plane = (span.block * conv.c_in + c) * h * w;
            // Rows outside the image are zeros, and the index zero is none.
            let mut source = Source { x: [zeros; N], next: h * w * pixel, indices: [zeros; N] };
            for i in 0..N / pool {
                let row = M / pool * span.row + i;
                let outside = (R - 1) / 2 / pool;
                if (outside..outside + h).contains(&row) {
                    let at = plane + (row - outside) * w;
                    source.x[i] = registers::<S>(&x[at..][..w]);
                    source.indices[i] = registers::<S>(&indices[at..][..w]);
                }
            }
            for half in 0..pixel {
                let at = (c * strips.strip + span.first) * pixel + half;
                spanned::<S, M, R, N, POOLED>(simd, &source, &span, half, at, &mut entries);
            }
        }
        done += span.len;
    }
}

/// The rows of an image that a row of tiles needs, and if it is pooled, the indices.
struct Source<'a, V, const N: usize> {
    x: [&'a [V]; N],
    /// Registers from a pixel to that of the next channel.
    next: usize,
    indices: [&'a [V]; N],
}

/// The transformed tiles of one span in one channel, to register `at` of each entry and on, [`per_pixel`] registers apart.
/// Neighbouring tiles share columns.
#[inline(always)]
fn spanned<S: Simd, const M: usize, const R: usize, const N: usize, const POOLED: bool>(
    simd: S,
    source: &Source<'_, S::f32s, N>,
    span: &Span,
    half: usize,
    at: usize,
    entries: &mut [&mut [S::f32s]; ENTRIES],
) {
    // Column `COL` of tile `i` of the span is number `(M * i + COL) % N`, so that none has to be moved.
    let mut columns = [[simd.splat_f32s(0.0); N]; N];
    let period = if N == 2 * M { 2 } else { 3 };
    let first = (M * span.col).wrapping_sub((R - 1) / 2);
    unroll!(COL < N - M, at most 8, {
        columns[COL] = column::<S, N, POOLED>(simd, source, first.wrapping_add(COL), half);
    });
    for tiles in (0..span.len).step_by(period) {
        unroll!(TILE < period, at most 8, {
            if tiles + TILE < span.len {
                unroll!(COL < M, at most 8, {
                    let col = first.wrapping_add(M * (tiles + TILE) + N - M + COL);
                    columns[(M * TILE + N - M + COL) % N] = column::<S, N, POOLED>(simd, source, col, half);
                });
                let at = at + (tiles + TILE) * per_pixel::<S>();
                unroll!(ROW < N, at most 8, {
                    let mut d = [simd.splat_f32s(0.0); N];
                    unroll!(COL < N, at most 8, { d[COL] = columns[(M * TILE + COL) % N][ROW] });
                    let out = one_dimension::input(simd, d);
                    unroll!(COL < N, at most 8, { entries[ROW * N + COL][at] = out[COL] });
                });
            }
        });
    }
}

/// `Bᵀ d` of one column, zero outside the image.
#[inline(always)]
fn column<S: Simd, const N: usize, const POOLED: bool>(
    simd: S,
    source: &Source<'_, S::f32s, N>,
    col: usize,
    half: usize,
) -> [S::f32s; N] {
    let zero = simd.splat_f32s(0.0);
    let mut d = [zero; N];
    // In pixels of the source: a negative column is a large number here.
    let at = (if POOLED { col / 2 } else { col }).wrapping_mul(per_pixel::<S>()).wrapping_add(half);
    if at < source.x[0].len() {
        unroll!(ROW < N, at most 8, {
            if POOLED {
                let index = simd.splat_f32s(FIRST_INDEX + (ROW % 2 * 2 + col % 2) as f32);
                let here = simd.equal_f32s(source.indices[ROW / 2][at], index);
                d[ROW] = simd.select_f32s(here, source.x[ROW / 2][at], zero);
            } else {
                d[ROW] = source.x[ROW][at];
                prefetch(source.x[ROW], at + source.next);
            }
        });
    }
    one_dimension::input(simd, d)
}
