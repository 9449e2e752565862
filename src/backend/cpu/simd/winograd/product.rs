//! The matrix products `M[xi] = U[xi] V[xi]` of a strip of tiles, for some panels of output channels.
//!
//! `CHANNELS × COLS` sums stay in registers: per input channel, `COLS` loads, `CHANNELS` broadcasts and
//! `CHANNELS × COLS` multiply-adds.

use std::ops::Range;

use pulp::Simd;

use crate::backend::cpu::jobs::{WinogradStrips, entry_stride};
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::simd::{prefetch, registers, registers_mut};

/// Vectors of a `V[xi]` that stay in the first-level cache (32 KiB) while all output channels use them.
const REUSED: usize = 512;

/// Input channels whose transformed filters are fetched in advance.
const AHEAD: usize = 16;

/// `ROW`: registers of a strip, a multiple of `COLS`. `SUMS` is `CHANNELS * COLS`.
#[inline(always)]
pub fn all<S: Simd, const ROW: usize, const CHANNELS: usize, const COLS: usize, const SUMS: usize>(
    simd: S,
    strips: &mut WinogradStrips<'_, f32>,
    panels: Range<usize>,
) {
    let (c_in, entries) = (strips.conv.c_in, strips.conv.minimal.entries());
    let v_stride = entry_stride(c_in, strips.strip);
    let m_stride = entry_stride(strips.panels * LANES, strips.strip);
    let depth = REUSED / strips.strip;
    for xi in 0..entries {
        let v = registers::<S>(&strips.v[xi * v_stride..][..c_in * strips.strip]);
        let m = registers_mut::<S>(&mut strips.m[xi * m_stride..][..m_stride]);
        for first in (0..c_in).step_by(depth) {
            let last = (first + depth).min(c_in);
            let v = &v.as_chunks::<ROW>().0[first..last];
            for (panel, m) in panels.clone().zip(m.chunks_mut(LANES * ROW)) {
                let u = &strips.u[(panel * entries + xi) * (c_in + 1)..][first..last];
                let m = m.as_chunks_mut::<ROW>().0;
                // Register tiles of the panel that have one of the channels.
                let channels = &strips.channels;
                let first_tile = channels.start.saturating_sub(panel * LANES) / CHANNELS;
                let used = (channels.end - panel * LANES).div_ceil(CHANNELS);
                unroll!(TILE < LANES / CHANNELS, at most 8, {
                    if (first_tile..used).contains(&TILE) {
                        let m = &mut m[TILE * CHANNELS..][..CHANNELS];
                        unroll!(COL < ROW / COLS, at most 8, {
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
    for (i, v) in v.iter().enumerate() {
        prefetch(u, i + AHEAD);
        let mut weights = [simd.splat_f32s(0.0); CHANNELS];
        unroll!(C < CHANNELS, { weights[C] = simd.splat_f32s(u[i][channel + C]) });
        unroll!(I < SUMS, {
            sums[I] = simd.mul_add_f32s(v[col + I / CHANNELS], weights[I % CHANNELS], sums[I]);
        });
    }
    unroll!(I < SUMS, { m[I % CHANNELS][col + I / CHANNELS] = sums[I] });
}
