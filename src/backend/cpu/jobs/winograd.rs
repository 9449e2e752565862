//! Convolutions of stride 1 that keep the size of the images by Winograd's minimal filtering, forward and input gradient.
//!
//! F(m×m, r×r) makes a tile of m×m outputs of an r×r filter from n×n inputs `d`, where n = m + r - 1, with n² multiplications per
//! pair of channels instead of m² r²:
//!
//! ```text
//! Y = Aᵀ [ Σ_c (G g_c Gᵀ) ⊙ (Bᵀ d_c B) ] A
//! ```
//!
//! | | multiplications | points |
//! |---|---|---|
//! | F(2×2, 3×3) | 16 instead of 36 | 0, ±1, ∞ |
//! | F(4×4, 3×3) | 36 instead of 144 | 0, ±3/4, ±3/2, ∞ |
//! | F(2×2, 5×5) | 36 instead of 100 | the same, so `B` is the same |
//!
//! `A` and `G` evaluate polynomials at the points: a row of `Aᵀ` is a power of all of them, a row of `G` all powers of one of them
//! over the product of its distances to the others. S. Winograd, *Arithmetic Complexity of Computations*, SIAM 1980; A. Lavin and
//! S. Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016. For each of the n² entries `xi` of a transformed tile,
//! the sum over the input channels is a matrix product `M[xi] = U[xi] V[xi]`:
//!
//! ```text
//! U  transformed filters   [c_out / 16][xi][c_in (+1)][16]
//! V  transformed inputs    [xi][c_in][tiles of a strip] (+1) vectors
//! M  transformed outputs   [xi][c_out of a group][tiles of a strip] (+1) vectors
//! ```
//!
//! A vector is one pixel of [`LANES`] images. `U` is made once for each version of the weight; `V` and `M` hold one strip
//! of tiles. The `+1` keeps the entries of one tile out of the same cache set.
//!
//! **Numerics.** With the points 0, ±1, ∞ the transforms only add, and halve filters: the error is about that of the direct sum.
//! Of tiles of six it is a few times as large, and depends on the points: with the usual ±1 and ±2 it is four times what it is with
//! ±3/4 and ±3/2, whose powers are closer to one. `tests/all/ops/winograd.rs` holds all forms to a bound. A
//! filter of zeros transforms to zeros, so it adds exactly nothing. NaN in an image reaches every output that the tiles
//! it belongs to produce: those of the direct sum and some neighbours.

use std::ops::Range;

use crate::backend::Activation;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::sizes::Sizes;
use crate::base::dims::Pool2dDims;

/// F(m×m, r×r).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minimal {
    /// F(2×2, 3×3)
    F2x3,
    /// F(4×4, 3×3)
    F4x3,
    /// F(2×2, 5×5)
    F2x5,
}

impl Minimal {
    /// Rows and columns of a tile of outputs, m.
    pub fn outputs(self) -> usize {
        match self {
            Minimal::F2x3 | Minimal::F2x5 => 2,
            Minimal::F4x3 => 4,
        }
    }

    /// Rows and columns of a filter, r.
    pub fn filter(self) -> usize {
        match self {
            Minimal::F2x3 | Minimal::F4x3 => 3,
            Minimal::F2x5 => 5,
        }
    }

    /// Entries of a transformed tile, n².
    pub fn entries(self) -> usize {
        (self.outputs() + self.filter() - 1).pow(2)
    }
}

/// A convolution of images `[c_in, h, w]` to images `[c_out, h, w]`.
#[derive(Clone, Copy)]
pub struct WinogradConv {
    pub minimal: Minimal,
    /// Channels of the input and of the output.
    pub c_in: usize,
    pub c_out: usize,
    pub h: usize,
    pub w: usize,
    /// Whether it is the input gradient of a convolution in the other direction: then filters are `[c_in][c_out][r][r]`, not
    /// `[c_out][c_in][r][r]`, and turned by 180°.
    pub transposed: bool,
}

impl WinogradConv {
    /// The forward pass of a layer, if it has stride 1 and keeps the size of its images, by the algorithm with the fewest
    /// multiplications.
    pub fn fwd(s: &Sizes) -> Option<Self> {
        let minimal = match (s.k, s.stride, s.pad) {
            (3, 1, 1) => [Minimal::F2x3, Minimal::F4x3].into_iter().min_by_key(|m| s.tiles(*m) * m.entries())?,
            (5, 1, 2) => Minimal::F2x5,
            _ => return None,
        };
        Some(WinogradConv { minimal, c_in: s.c_in, c_out: s.c_out, h: s.h_in, w: s.w_in, transposed: false })
    }

    /// The input gradient: the same convolution from the outputs to the inputs.
    pub fn bwd_input(s: &Sizes) -> Option<Self> {
        let fwd = WinogradConv::fwd(s)?;
        Some(WinogradConv { c_in: s.c_out, c_out: s.c_in, transposed: true, ..fwd })
    }

    /// `conv`, if pooling by `p` has a window for each of its tiles.
    pub fn pooled(conv: Option<Self>, p: &Pool2dDims) -> Option<Self> {
        let windows = |conv: &Self| {
            let all = [p.h_out, p.w_out].map(|size| 2 * size as usize) == [conv.h, conv.w];
            (p.k, p.stride) == (2, 2) && all && conv.minimal == Minimal::F2x5
        };
        conv.filter(windows)
    }

    /// Tiles of a row of one block of images.
    pub fn tile_cols(&self) -> usize {
        self.w.div_ceil(self.minimal.outputs())
    }

    /// Tiles of one block of images.
    pub fn tiles(&self) -> usize {
        self.h.div_ceil(self.minimal.outputs()) * self.tile_cols()
    }

    /// Tiles of a strip, what the product has in registers at once, where there are that many in all: rows of seven, as in a LeNet,
    /// or else four.
    pub fn strip(&self, tiles: usize) -> usize {
        match (tiles, self.tile_cols() % 7) {
            (1, _) => 1,
            (_, 0) => 7,
            _ => 4,
        }
    }

    /// Multiply-adds of vectors for one block of images.
    pub fn multiply_adds(&self) -> usize {
        self.minimal.entries() * self.tiles() * self.c_in * self.c_out
    }

    /// Elements of `U` for [`LANES`] output channels.
    pub fn panel_len(&self) -> usize {
        self.minimal.entries() * (self.c_in + 1) * LANES
    }
}

impl Sizes {
    fn tiles(&self, minimal: Minimal) -> usize {
        self.h_in.div_ceil(minimal.outputs()) * self.w_in.div_ceil(minimal.outputs())
    }
}

/// Vectors between the entries of `V` or `M`. The product writes whole register tiles, of at most [`LANES`] channels.
pub const fn entry_stride(channels: usize, strip: usize) -> usize {
    channels.next_multiple_of(LANES) * strip + 1
}

/// The transform of the filters of [`LANES`] output channels, to `[xi][c_in (+1)][LANES]`.
pub struct WinogradFilters<'a, T> {
    pub conv: WinogradConv,
    pub w: &'a [T],
    /// Number of these output channels among all such groups.
    pub panel: usize,
    pub u: &'a mut [[T; LANES]],
}

/// What is convolved.
#[derive(Clone, Copy)]
pub enum Input<'a, T> {
    /// Images `[c_in, h, w]`.
    Images(&'a [[T; LANES]]),
    /// The gradient of the output of 2×2 max pooling, `[c_in, h / 2, w / 2]`, each element to be taken to the pixel that its index
    /// says. Only for tiles of 2×2.
    Pooled { g: &'a [[T; LANES]], indices: &'a [[T; LANES]] },
}

/// Where the result goes.
pub enum Output<'a, T> {
    /// Images `[channels, h, w]`, added to what is there if it is to accumulate.
    Images { y: &'a mut [[T; LANES]], accumulate: bool },
    /// Through 2×2 max pooling, a window of which is a tile: `[channels, h / 2, w / 2]`.
    Pooled { y: &'a mut [[T; LANES]], indices: &'a mut [[T; LANES]] },
}

/// The convolution of some blocks of images by their transforms, strip by strip.
pub struct WinogradStrips<'a, T> {
    pub conv: WinogradConv,
    /// The output channels, of those that are transformed.
    pub channels: Range<usize>,
    pub blocks: usize,
    pub bias: Option<&'a [T]>,
    pub activation: Activation,
    pub u: &'a [[T; LANES]],
    /// A row of an image.
    pub zeros: &'a [[T; LANES]],
    pub input: Input<'a, T>,
    pub v: &'a mut [[T; LANES]],
    pub m: &'a mut [[T; LANES]],
    pub output: Output<'a, T>,
    /// Tiles of a strip.
    pub strip: usize,
    /// Groups of [`LANES`] output channels whose `M` there is room for.
    pub panels: usize,
}
