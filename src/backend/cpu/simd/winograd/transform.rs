//! The transforms `G g Gᵀ` of filters, `Bᵀ d B` of inputs and `Aᵀ m A` of outputs, each a vector of images or of output
//! channels at a time.
#![allow(clippy::out_of_bounds_indexing, reason = "`unroll!` leaves the steps beyond its bound as dead branches")]

use pulp::Simd;

use crate::backend::Activation;
use crate::backend::cpu::jobs::{Conv3x3, POINTS, WinogradFilters, WinogradStrips, point_stride};
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::simd::{activate, per_pixel, registers, registers_mut};

/// Pixels of a filter.
const TAPS: usize = 9;

impl pulp::WithSimd for WinogradFilters<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let WinogradFilters { conv, w, panel, u } = self;
        let outputs = LANES.min(conv.c_out - panel * LANES);
        // Channels that fill the last panel stay zero.
        let mut filters = [[[0.0; LANES]; TAPS]; LANES];
        for first in (0..conv.c_in).step_by(LANES) {
            let inputs = LANES.min(conv.c_in - first);
            gather(&conv, w, panel * LANES, outputs, first, inputs, &mut filters);
            for (input, filter) in filters[..inputs].iter().enumerate() {
                let filter = registers::<S>(filter);
                for half in 0..per_pixel::<S>() {
                    let mut g = [simd.splat_f32s(0.0); TAPS];
                    unroll!(I < TAPS, { g[I] = filter[I * per_pixel::<S>() + half] });
                    let out = filter_transform(simd, g);
                    unroll!(XI < POINTS, {
                        registers_mut::<S>(&mut u[XI * (conv.c_in + 1) + first + input..][..1])[half] = out[XI];
                    });
                }
            }
        }
    }
}

/// Filters from `inputs` channels to `outputs` channels, to `[input][tap][output]`.
#[inline(always)]
fn gather(
    conv: &Conv3x3,
    w: &[f32],
    first_output: usize,
    outputs: usize,
    first_input: usize,
    inputs: usize,
    to: &mut [[[f32; LANES]; TAPS]; LANES],
) {
    let weights = w.as_chunks::<TAPS>().0;
    if conv.transposed {
        for (input, to) in to[..inputs].iter_mut().enumerate() {
            let filters = &weights[(first_input + input) * conv.c_out + first_output..][..outputs];
            for (output, filter) in filters.iter().enumerate() {
                unroll!(I < TAPS, { to[I][output] = filter[TAPS - 1 - I] });
            }
        }
    } else {
        for output in 0..outputs {
            let filters = &weights[(first_output + output) * conv.c_in + first_input..][..inputs];
            for (filter, to) in filters.iter().zip(to.iter_mut()) {
                unroll!(I < TAPS, { to[I][output] = filter[I] });
            }
        }
    }
}

/// `G g Gᵀ`.
#[inline(always)]
fn filter_transform<S: Simd>(simd: S, g: [S::f32s; TAPS]) -> [S::f32s; POINTS] {
    let mut rows = [simd.splat_f32s(0.0); 12];
    unroll!(COL < 3, {
        let out = filter_transform_1d(simd, [g[COL], g[3 + COL], g[6 + COL]]);
        unroll!(ROW < 4, { rows[ROW * 3 + COL] = out[ROW] });
    });
    let mut all = [simd.splat_f32s(0.0); POINTS];
    unroll!(ROW < 4, {
        let out = filter_transform_1d(simd, [rows[ROW * 3], rows[ROW * 3 + 1], rows[ROW * 3 + 2]]);
        unroll!(COL < 4, { all[ROW * 4 + COL] = out[COL] });
    });
    all
}

/// `G g`.
#[inline(always)]
fn filter_transform_1d<S: Simd>(simd: S, g: [S::f32s; 3]) -> [S::f32s; 4] {
    let half = simd.splat_f32s(0.5);
    let (outer, middle) = (simd.mul_f32s(half, simd.add_f32s(g[0], g[2])), simd.mul_f32s(half, g[1]));
    [g[0], simd.add_f32s(outer, middle), simd.sub_f32s(outer, middle), g[2]]
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
fn span(conv: &Conv3x3, start: usize, first: usize, count: usize) -> Span {
    let cols = conv.w.div_ceil(2);
    let (block, tile) = ((start + first) / conv.tiles(), (start + first) % conv.tiles());
    let (row, col) = (tile / cols, tile % cols);
    Span { block, row, col, first, len: (cols - col).min(count - first) }
}

/// `V` of the `count` tiles from tile `start` of all.
#[inline(always)]
pub fn inputs<S: Simd>(simd: S, strips: &mut WinogradStrips<'_, f32>, start: usize, count: usize) {
    let (conv, pixel) = (strips.conv, per_pixel::<S>());
    let plane = conv.h * conv.w;
    // Slices of one length, so that one comparison checks a tile's index into all of them.
    let step = point_stride(conv.c_in, strips.tiles) * pixel;
    let mut points: [&mut [S::f32s]; POINTS] = Default::default();
    let mut rest = registers_mut::<S>(strips.v);
    unroll!(XI < POINTS, { (points[XI], rest) = rest.split_at_mut(step) });
    debug_assert!(rest.is_empty());
    let mut done = 0;
    while done < count {
        let span = span(&conv, start, done, count);
        let x = &strips.x[span.block * conv.c_in * plane..][..conv.c_in * plane];
        for (c, x) in x.chunks_exact(plane).enumerate() {
            // Rows outside the image are zeros.
            let mut rows = [registers::<S>(strips.zeros); 4];
            unroll!(ROW < 4, {
                let row = 2 * span.row + ROW;
                if (1..=conv.h).contains(&row) {
                    rows[ROW] = registers::<S>(&x[(row - 1) * conv.w..][..conv.w]);
                }
            });
            for half in 0..pixel {
                input_span(simd, rows, &span, half, (c * strips.tiles + span.first) * pixel + half, &mut points);
            }
        }
        done += span.len;
    }
}

/// The transformed tiles of one span in one channel, from register `at` of each point, [`per_pixel`] registers apart.
/// Neighbouring tiles share two of their four columns.
#[inline(always)]
fn input_span<S: Simd>(
    simd: S,
    rows: [&[S::f32s]; 4],
    span: &Span,
    half: usize,
    at: usize,
    points: &mut [&mut [S::f32s]; POINTS],
) {
    let pixel = per_pixel::<S>();
    let mut a = input_column(simd, rows, (2 * span.col).wrapping_sub(1), half);
    let mut b = input_column(simd, rows, 2 * span.col, half);
    for i in 0..span.len {
        let c = input_column(simd, rows, 2 * (span.col + i) + 1, half);
        let d = input_column(simd, rows, 2 * (span.col + i) + 2, half);
        let at = at + i * pixel;
        unroll!(ROW < 4, {
            let out = input_transform_1d(simd, [a[ROW], b[ROW], c[ROW], d[ROW]]);
            unroll!(COL < 4, { points[ROW * 4 + COL][at] = out[COL] });
        });
        (a, b) = (c, d);
    }
}

/// `Bᵀ d` of one column, zero outside the image.
#[inline(always)]
fn input_column<S: Simd>(simd: S, rows: [&[S::f32s]; 4], col: usize, half: usize) -> [S::f32s; 4] {
    let at = col.wrapping_mul(per_pixel::<S>()).wrapping_add(half);
    let mut d = [simd.splat_f32s(0.0); 4];
    if at < rows[0].len() {
        unroll!(ROW < 4, { d[ROW] = rows[ROW][at] });
    }
    input_transform_1d(simd, d)
}

/// `Bᵀ d`.
#[inline(always)]
fn input_transform_1d<S: Simd>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
    [simd.sub_f32s(d[0], d[2]), simd.add_f32s(d[1], d[2]), simd.sub_f32s(d[2], d[1]), simd.sub_f32s(d[1], d[3])]
}

/// `y` of the `count` tiles from tile `start` of all.
#[inline(always)]
pub fn outputs<S: Simd>(simd: S, strips: &mut WinogradStrips<'_, f32>, start: usize, count: usize) {
    let (conv, pixel) = (strips.conv, per_pixel::<S>());
    let plane = conv.h * conv.w;
    let step = point_stride(conv.c_out, strips.tiles) * pixel;
    let mut points = [&[] as &[S::f32s]; POINTS];
    unroll!(XI < POINTS, { points[XI] = &registers::<S>(strips.m)[XI * step..][..step] });
    let mut done = 0;
    while done < count {
        let span = span(&conv, start, done, count);
        let y = &mut strips.y[span.block * conv.c_out * plane..][..conv.c_out * plane];
        for (c, y) in y.chunks_exact_mut(plane).enumerate() {
            let bias = simd.splat_f32s(strips.bias.map_or(0.0, |b| b[c]));
            // An image of odd height has half a tile at the bottom, whose second row would be the next channel's.
            let rows = registers_mut::<S>(&mut y[2 * span.row * conv.w..]);
            let (upper, lower) = rows.split_at_mut(conv.w * pixel);
            let lower = if lower.is_empty() { lower } else { &mut lower[..conv.w * pixel] };
            for i in 0..span.len {
                for half in 0..pixel {
                    let m = (c * strips.tiles + span.first + i) * pixel + half;
                    let mut sums = [simd.splat_f32s(0.0); 8];
                    unroll!(COL < 4, {
                        let column = [points[COL][m], points[4 + COL][m], points[8 + COL][m], points[12 + COL][m]];
                        [sums[COL], sums[4 + COL]] = output_transform_1d(simd, column);
                    });
                    let at = 2 * (span.col + i) * pixel + half;
                    output_row(simd, &sums, 0, bias, strips.activation, at, upper);
                    output_row(simd, &sums, 4, bias, strips.activation, at, lower);
                }
            }
        }
        done += span.len;
    }
}

/// Writes what of two neighbouring pixels lies in the image; `sums[first..]` is the row of `Aᵀ m`.
#[inline(always)]
fn output_row<S: Simd>(
    simd: S,
    sums: &[S::f32s; 8],
    first: usize,
    bias: S::f32s,
    activation: Activation,
    at: usize,
    row: &mut [S::f32s],
) {
    let out = output_transform_1d(simd, [sums[first], sums[first + 1], sums[first + 2], sums[first + 3]]);
    unroll!(I < 2, {
        let out = simd.add_f32s(out[I], bias);
        if let Some(y) = row.get_mut(at + I * per_pixel::<S>()) {
            *y = activate(simd, activation, out);
        }
    });
}

/// `Aᵀ m`.
#[inline(always)]
fn output_transform_1d<S: Simd>(simd: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
    let (sum, difference) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    [simd.add_f32s(m[0], sum), simd.sub_f32s(difference, m[3])]
}
