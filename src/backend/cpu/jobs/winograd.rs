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
//! Convolutional Neural Networks*, CVPR 2016. For each of the 16 points `xi` of a transformed tile, the sum over the
//! input channels is a matrix product `M[xi] = U[xi] V[xi]`:
//!
//! ```text
//! U  transformed filters   [c_out / 16][xi][c_in (+1)][16]        64 bytes per filter
//! V  transformed inputs    [xi][c_in][TILES] (+1) vectors         4 KiB per channel of a strip of 4 tiles
//! M  transformed outputs   [xi][c_out][TILES] (+1) vectors        4 KiB per channel of a strip of 4 tiles
//! ```
//!
//! A vector is one pixel of [`LANES`] images. `U` is made once for each version of the weight; `V` and `M` hold one strip
//! of tiles and stay in the caches of a core. The `+1` keeps the 16 points of one tile out of the same cache set.
//!
//! **Numerics.** The transforms only add, and halve filters. The error is about that of the direct sum, the bound (the
//! sums are of larger terms) about twice. A filter of zeros transforms to zeros, so it adds exactly nothing. NaN in an
//! image reaches every output that the tiles it belongs to produce: those of the direct sum and some neighbours.

use crate::backend::Activation;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::sizes::Sizes;

/// Points of a transformed tile.
pub const POINTS: usize = 16;

/// Tiles of a strip: what the product has in registers at once.
pub const TILES: usize = 4;

/// A convolution of images `[c_in, h, w]` to images `[c_out, h, w]`.
#[derive(Clone, Copy)]
pub struct Conv3x3 {
    /// Channels of the input and of the output.
    pub c_in: usize,
    pub c_out: usize,
    pub h: usize,
    pub w: usize,
    /// Whether it is the input gradient of a convolution in the other direction: then filters are `[c_in][c_out][3][3]`, not
    /// `[c_out][c_in][3][3]`, and turned by 180°.
    pub transposed: bool,
}

impl Conv3x3 {
    /// The forward pass of a layer, if it has stride 1 and padding 1 and 3×3 filters.
    pub fn fwd(s: &Sizes) -> Option<Self> {
        let conv = Conv3x3 { c_in: s.c_in, c_out: s.c_out, h: s.h_in, w: s.w_in, transposed: false };
        ((s.k, s.stride, s.pad) == (3, 1, 1)).then_some(conv)
    }

    /// The input gradient: the same convolution from the outputs to the inputs.
    pub fn bwd_input(s: &Sizes) -> Option<Self> {
        let fwd = Conv3x3::fwd(s)?;
        Some(Conv3x3 { c_in: s.c_out, c_out: s.c_in, transposed: true, ..fwd })
    }

    /// Tiles of one block of images.
    pub fn tiles(&self) -> usize {
        self.h.div_ceil(2) * self.w.div_ceil(2)
    }
}

/// Elements of `V` or `M` for so many channels.
pub fn transformed_len(channels: usize, tiles: usize) -> usize {
    POINTS * point_stride(channels, tiles) * LANES
}

/// Vectors between the points of `V` or `M`. The product writes whole register tiles, of at most [`LANES`] channels.
pub const fn point_stride(channels: usize, tiles: usize) -> usize {
    channels.next_multiple_of(LANES) * tiles + 1
}

/// The transform of the filters of [`LANES`] output channels, to `[xi][c_in (+1)][LANES]`.
pub struct WinogradFilters<'a, T> {
    pub conv: Conv3x3,
    pub w: &'a [T],
    /// Number of these output channels among all such groups.
    pub panel: usize,
    pub u: &'a mut [[T; LANES]],
}

/// The convolution of some blocks of images by their transforms, strip by strip.
pub struct WinogradStrips<'a, T> {
    pub conv: Conv3x3,
    pub bias: Option<&'a [T]>,
    pub activation: Activation,
    pub u: &'a [[T; LANES]],
    /// A row of an image.
    pub zeros: &'a [[T; LANES]],
    pub x: &'a [[T; LANES]],
    pub v: &'a mut [[T; LANES]],
    pub m: &'a mut [[T; LANES]],
    pub y: &'a mut [[T; LANES]],
    /// Tiles of a strip, [`TILES`] or 1.
    pub tiles: usize,
}
