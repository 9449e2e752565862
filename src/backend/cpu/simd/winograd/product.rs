//! The 16 matrix products `M[xi] = U[xi] V[xi]` of a strip of tiles.
//!
//! `CHANNELS × COLS` sums stay in registers: per input channel, `COLS` loads, `CHANNELS` broadcasts and
//! `CHANNELS × COLS` multiply-adds.

use pulp::Simd;

use crate::backend::cpu::jobs::{POINTS, WinogradStrips, point_stride};
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::simd::{registers, registers_mut};

/// Input channels whose `V` stays in the first-level cache (32 KiB) while all output channels use it.
const DEPTH: usize = 128;

/// `ROW`: registers of a strip, a multiple of `COLS`. `SUMS` is `CHANNELS * COLS`.
#[inline(always)]
pub fn all<S: Simd, const ROW: usize, const CHANNELS: usize, const COLS: usize, const SUMS: usize>(
    simd: S,
    strips: &mut WinogradStrips<'_, f32>,
) {
    let (c_in, c_out) = (strips.conv.c_in, strips.conv.c_out);
    let (v_stride, m_stride) = (point_stride(c_in, strips.tiles), point_stride(c_out, strips.tiles));
    for xi in 0..POINTS {
        let v = registers::<S>(&strips.v[xi * v_stride..][..c_in * strips.tiles]);
        let m = registers_mut::<S>(&mut strips.m[xi * m_stride..][..m_stride]);
        for first in (0..c_in).step_by(DEPTH) {
            let last = (first + DEPTH).min(c_in);
            let v = &v.as_chunks::<ROW>().0[first..last];
            for (panel, m) in m.chunks_mut(LANES * ROW).enumerate().take(c_out.div_ceil(LANES)) {
                let u = &strips.u[(panel * POINTS + xi) * (c_in + 1)..][first..last];
                let m = m.as_chunks_mut::<ROW>().0;
                // Register tiles of the panel that have a real channel.
                let used = (c_out - panel * LANES).div_ceil(CHANNELS);
                unroll!(TILE < LANES / CHANNELS, {
                    if TILE < used {
                        let m = &mut m[TILE * CHANNELS..][..CHANNELS];
                        unroll!(COL < ROW / COLS, {
                            register_tile::<S, ROW, CHANNELS, COLS, SUMS>(
                                simd,
                                u,
                                v,
                                TILE * CHANNELS,
                                COL * COLS,
                                first > 0,
                                m,
                            );
                        });
                    }
                });
            }
        }
    }
}

/// One register tile: `m[channel][col..]`, the sums so far if `more`, plus `Σ u[c][channel] v[c][col..]`.
#[inline(always)]
fn register_tile<S: Simd, const ROW: usize, const CHANNELS: usize, const COLS: usize, const SUMS: usize>(
    simd: S,
    u: &[[f32; LANES]],
    v: &[[S::f32s; ROW]],
    channel: usize,
    col: usize,
    more: bool,
    m: &mut [[S::f32s; ROW]],
) {
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    if more {
        unroll!(I < SUMS, { sums[I] = m[I % CHANNELS][col + I / CHANNELS] });
    }
    for (u, v) in u.iter().zip(v) {
        let mut weights = [simd.splat_f32s(0.0); CHANNELS];
        unroll!(C < CHANNELS, { weights[C] = simd.splat_f32s(u[channel + C]) });
        unroll!(I < SUMS, {
            sums[I] = simd.mul_add_f32s(v[col + I / CHANNELS], weights[I % CHANNELS], sums[I]);
        });
    }
    unroll!(I < SUMS, { m[I % CHANNELS][col + I / CHANNELS] = sums[I] });
}
