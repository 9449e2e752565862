//! The input gradient of a convolution whose output goes through 2×2 max pooling, from the pooled gradient.
//!
//! Of the four outputs under a window only the largest has a gradient, so scattering it first and correlating then
//! multiplies by zero three times out of four. Here, an input pixel sums over the *windows* that reach it, each with the
//! weight that belongs to the index of its largest output:
//!
//! ```text
//! dx[c, i, j] = Σ_(channel, r, s) g[channel, r, s] * w[channel, c, i + pad - 2r - index/2, j + pad - 2s - index%2]
//! ```
//!
//! where `w` is zero outside. For the four pixels of a 2×2 patch of the input the same windows matter (at a 5×5 kernel
//! 3×3 of them, so 9 multiply-adds a pixel instead of 25), and what differs is a table of four weights.

use super::pool::index_of;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::Element;
use crate::backend::cpu::layout::sizes::{Padding, Sizes};
use crate::base::dims::Pool2dDims;

/// Which windows reach a patch, for a convolution that this method can do.
pub struct Patches {
    /// Windows from the first that reaches a patch, and how many there are, per direction.
    first: isize,
    reach: usize,
    /// Rows and columns of patches.
    pub rows: usize,
    pub cols: usize,
}

impl Patches {
    /// `None` unless stride, pooling and sizes are those that the method is for: everything even.
    pub fn of(s: &Sizes, p: &Pool2dDims) -> Option<Self> {
        let covered = |conv: usize, pooled: u32| conv == 2 * pooled as usize;
        let fits = s.stride == 1
            && (p.k, p.stride) == (2, 2)
            && covered(s.h_out, p.h_out)
            && covered(s.w_out, p.w_out)
            && s.h_in.is_multiple_of(2)
            && s.w_in.is_multiple_of(2);
        // Window `r` reaches patch `i` where `0 <= 2 (i - r) + pad + {-1, 0, 1} <= k - 1`.
        let (k, pad) = (s.k as isize, s.pad as isize);
        let (nearest, farthest) = (-((1 + pad) / 2), (k - pad).div_euclid(2));
        fits.then(|| Patches {
            first: -farthest,
            reach: (farthest - nearest + 1) as usize,
            rows: s.h_in / 2,
            cols: s.w_in / 2,
        })
    }

    /// Zeros around the pooled gradient, for that many windows and patches.
    pub fn padding(&self, windows: usize, patches: usize) -> Padding {
        let last = self.first + self.reach as isize - 1 + patches as isize;
        Padding { before: (-self.first).max(0) as usize, after: (last - windows as isize).max(0) as usize }
    }

    /// The windows of a patch as offsets, for rows of `width` windows.
    pub fn windows(&self, width: usize) -> Vec<u32> {
        let skipped = (self.first.max(0) as usize) * (width + 1);
        let n = self.reach;
        (0..n * n).map(|i| (skipped + i / n * width + i % n) as u32).collect()
    }

    /// Elements of the tables of one pair of channels.
    pub fn table(&self) -> usize {
        16 * self.reach * self.reach
    }

    /// The weights by input channel, output channel, window, pixel of the patch and index of the largest output.
    pub fn fill_tables<T: Element>(&self, s: &Sizes, w: &[T], tables: &mut [T]) {
        let kk = s.k * s.k;
        // One pair's kernel with zeros around it; row and column `a` of the kernel are `a + margin` here.
        let (n, margin) = (self.reach, 2);
        let side = 2 * margin + s.k;
        let mut kernel = vec![T::zero(); side * side];
        for (pair, tables) in tables.chunks_exact_mut(self.table()).enumerate() {
            let (c, channel) = (pair / s.c_out, pair % s.c_out);
            for (a, row) in w[(channel * s.c_in + c) * kk..][..kk].chunks_exact(s.k).enumerate() {
                kernel[(a + margin) * side + margin..][..s.k].copy_from_slice(row);
            }
            let mut tables = tables.as_chunks_mut::<4>().0.iter_mut();
            // Where the kernel is met from the first window: further from it, the later ones are nearer.
            let start = (margin as isize - 2 * self.first + s.pad as isize) as usize;
            for r in 0..n {
                for t in 0..n {
                    for pixel in 0..4 {
                        let at = (start + pixel / 2 - 2 * r) * side + start + pixel % 2 - 2 * t;
                        if let Some(table) = tables.next() {
                            *table = [kernel[at], kernel[at - 1], kernel[at - side], kernel[at - side - 1]];
                        }
                    }
                }
            }
        }
    }
}

/// The job for one block of images.
pub struct Conv2dPoolBwdInput<'a, T> {
    /// Offsets of the windows that reach a patch.
    pub windows: &'a [u32],
    /// `[channels][channels of g][windows][4]`, by index of the largest output.
    pub tables: &'a [[T; 4]],
    /// Pooled gradient and indices with their padding, `[channels of g][height][width]`.
    pub g: &'a [[T; LANES]],
    pub indices: &'a [[T; LANES]],
    pub plane: usize,
    pub width: usize,
    /// Input channels, and rows and columns of patches.
    pub channels: usize,
    pub rows: usize,
    pub cols: usize,
    /// `[channels][2 rows][2 cols]`.
    pub dx: &'a mut [[T; LANES]],
}

impl<T: Element> Conv2dPoolBwdInput<'_, T> {
    /// The definition, term by term.
    pub fn plain(self) {
        let (channels, reach) = (self.g.len() / self.plane, self.windows.len());
        for (i, dx) in self.dx.iter_mut().enumerate() {
            let (y, x) = (i / (2 * self.cols), i % (2 * self.cols));
            let (c, row, col, pixel) = (y / (2 * self.rows), y / 2 % self.rows, x / 2, y % 2 * 2 + x % 2);
            *dx = [T::zero(); LANES];
            for channel in 0..channels {
                for (t, &window) in self.windows.iter().enumerate() {
                    let at = channel * self.plane + row * self.width + col + window as usize;
                    let table = &self.tables[((c * channels + channel) * reach + t) * 4 + pixel];
                    for l in 0..LANES {
                        dx[l] += self.g[at][l] * table[index_of(self.indices[at][l])];
                    }
                }
            }
        }
    }
}
