//! 3×3 convolutions of stride 1 and padding 1 by Winograd's minimal filtering F(2×2, 3×3), forward and input gradient.
//!
//! A tile of 2×2 outputs needs 4×4 inputs `d` and, per pair of channels, 16 multiplications instead of 36:
//!
//! ```text
//! Y = Aᵀ [ Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A
//!
//!      ⎡1  0 -1  0⎤       ⎡ 1   0   0 ⎤
//! Bᵀ = ⎢0  1  1  0⎥   G = ⎢1/2  1/2 1/2⎥   Aᵀ = ⎡1 1  1  0⎤
//!      ⎢0 -1  1  0⎥       ⎢1/2 -1/2 1/2⎥        ⎣0 1 -1 -1⎦
//!      ⎣0  1  0 -1⎦       ⎣ 0   0   1 ⎦
//! ```
//!
//! S. Winograd, *Arithmetic Complexity of Computations*, SIAM 1980; A. Lavin and S. Gray, *Fast Algorithms for
//! Convolutional Neural Networks*, CVPR 2016. For each of the 16 places `xi` of a transformed tile, the sum over the
//! input channels is a matrix product `M[xi] = U[xi] V[xi]`:
//!
//! ```text
//! U  transformed filters   [c_out / 16][xi][c_in (+1)][16]        64 bytes per filter
//! V  transformed inputs    [xi][c_in][TILES] (+1) vectors         4 KiB per channel of a strip of 4 tiles
//! M  transformed outputs   [xi][c_out][TILES] (+1) vectors        4 KiB per channel of a strip of 4 tiles
//! ```
//!
//! A vector is one pixel of [`LANES`] images. `U` is made once a call; `V` and `M` hold one strip of tiles and stay in
//! the caches of a core. The `+1` keeps the 16 places of one tile out of the same cache set.
//!
//! **Numerics.** The transforms only add, and halve filters. The error is about that of the direct sum, the bound (the
//! sums are of larger terms) about twice. A filter of zeros transforms to zeros, so it adds exactly nothing. NaN in an
//! image reaches every output that the tiles it belongs to produce: those of the direct sum and some neighbours.

mod product;
mod transform;

use pulp::{Arch, Simd};

use super::per_pixel;
use crate::backend::cpu::{Buf, Cpu, LANES, blocks, lanes, lanes_mut};

/// Places of a transformed tile.
const PLACES: usize = 16;

/// Least channels of the input, and least product of the channels, from which the transforms cost less than the
/// multiplications they save. With 8 and 8 channels, both ways are equally fast.
const LEAST_C_IN: usize = 8;
const LEAST_CHANNELS: usize = 128;

/// Tiles of a strip: what the product has in registers at once.
const TILES: usize = 4;

/// A convolution of a batch of `n` images `[channels, h, w]`.
pub struct Conv3x3<'a, T> {
    pub n: usize,
    /// Channels of the input and of the output.
    pub c_in: usize,
    pub c_out: usize,
    pub h: usize,
    pub w: usize,
    pub x: &'a [T],
    /// `[c_out][c_in][3][3]`, or if `transposed` `[c_in][c_out][3][3]` with every filter turned by 180°: the input
    /// gradient, where `x` is `dy`.
    pub weight: &'a [T],
    pub transposed: bool,
    pub bias: Option<&'a [T]>,
    pub relu: bool,
}

impl<T> Conv3x3<'_, T> {
    /// Tiles of one block of images.
    fn tiles(&self) -> usize {
        self.h.div_ceil(2) * self.w.div_ceil(2)
    }
}

/// The result, or `None` where the direct sum is faster.
pub fn conv3x3(cpu: &Cpu<f32>, conv: &Conv3x3<'_, f32>) -> Option<Buf<f32>> {
    let arch = cpu.arch;
    let pays = conv.c_in >= LEAST_C_IN && conv.c_in * conv.c_out >= LEAST_CHANNELS;
    if matches!(arch, Arch::Scalar) || !pays {
        return None;
    }
    let panel = PLACES * (conv.c_in + 1) * LANES;
    let mut u = cpu.alloc(conv.c_out.div_ceil(LANES) * panel);
    cpu.for_chunks(&mut u, panel, |panel, u| arch.dispatch(transform::Filters { conv, panel, u: lanes_mut(u) }));

    // Images smaller than a strip share it with those of the next blocks, unless a thread would go without work.
    let per_thread = (blocks(conv.n) / cpu.threads.current_num_threads()).max(1);
    let together = (TILES / conv.tiles()).clamp(1, per_thread);
    let (input, output) = (conv.c_in * conv.h * conv.w * LANES, conv.c_out * conv.h * conv.w * LANES);
    let mut y = cpu.alloc(blocks(conv.n) * output);
    cpu.for_chunks(&mut y, together * output, |chunk, y| {
        let tiles = if conv.tiles() * (y.len() / output) == 1 { 1 } else { TILES };
        let (mut v, mut m) = (cpu.alloc(transformed(conv.c_in, tiles)), cpu.alloc(transformed(conv.c_out, tiles)));
        let mut zeros = cpu.alloc(conv.w * LANES);
        zeros.fill(0.0);
        let x = &conv.x[chunk * together * input..][..y.len() / output * input];
        arch.dispatch(Strips {
            conv,
            u: lanes(&u),
            zeros: lanes(&zeros),
            x: lanes(x),
            v: lanes_mut(&mut v),
            m: lanes_mut(&mut m),
            y: lanes_mut(y),
            tiles,
        });
    });
    Some(y)
}

/// Elements of `V` or `M` for so many channels.
fn transformed(channels: usize, tiles: usize) -> usize {
    PLACES * place(channels, tiles) * LANES
}

/// Vectors between the places of `V` or `M`. The product writes whole tiles of registers, [`product::MOST_CHANNELS`]
/// at most.
const fn place(channels: usize, tiles: usize) -> usize {
    channels.next_multiple_of(product::MOST_CHANNELS) * tiles + 1
}

/// All tiles of some blocks of images.
struct Strips<'a> {
    conv: &'a Conv3x3<'a, f32>,
    u: &'a [[f32; LANES]],
    /// A row of an image.
    zeros: &'a [[f32; LANES]],
    x: &'a [[f32; LANES]],
    v: &'a mut [[f32; LANES]],
    m: &'a mut [[f32; LANES]],
    y: &'a mut [[f32; LANES]],
    /// Tiles of a strip, [`TILES`] or 1.
    tiles: usize,
}

impl pulp::WithSimd for Strips<'_> {
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

/// Consecutive tiles of one row of tiles of an image.
struct Run {
    /// Block of images.
    block: usize,
    /// Row and first column, in tiles.
    row: usize,
    col: usize,
    /// First tile in the strip, and their number.
    first: usize,
    len: usize,
}

/// The next run of a strip of `count` tiles that begins at tile `start` of all; `first` tiles are behind it.
#[inline(always)]
fn run(conv: &Conv3x3<'_, f32>, start: usize, first: usize, count: usize) -> Run {
    let cols = conv.w.div_ceil(2);
    let (block, tile) = ((start + first) / conv.tiles(), (start + first) % conv.tiles());
    let (row, col) = (tile / cols, tile % cols);
    Run { block, row, col, first, len: (cols - col).min(count - first) }
}
