//! The sizes of a convolution.

use crate::base::dims::Conv2dDims;

/// Zero pixels before and after the rows or columns of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    pub before: usize,
    pub after: usize,
}

/// The fields of [`Conv2dDims`] as `usize`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub n: usize,
    pub c_in: usize,
    pub h_in: usize,
    pub w_in: usize,
    pub c_out: usize,
    pub h_out: usize,
    pub w_out: usize,
    pub k: usize,
    pub stride: usize,
    pub pad: usize,
}

impl Sizes {
    pub fn of(d: &Conv2dDims) -> Self {
        let ([n, c_in, h_in, w_in], [_, c_out, h_out, w_out]) = (d.x(), d.y());
        let (k, stride, pad) = (d.k as usize, d.stride as usize, d.pad as usize);
        Sizes { n, c_in, h_in, w_in, c_out, h_out, w_out, k, stride, pad }
    }

    /// Pixels of a row and of a channel of the padded input.
    pub fn padded_x(&self) -> (usize, usize) {
        let width = self.w_in + 2 * self.pad;
        (width, (self.h_in + 2 * self.pad) * width)
    }

    /// Zeros around the rows and columns of `dy`, so that every tap of the input gradient falls inside.
    pub fn dy_padding(&self) -> [Padding; 2] {
        [(self.h_in, self.h_out), (self.w_in, self.w_out)].map(|(size, positions)| {
            let before = (self.k - 1).saturating_sub(self.pad).div_ceil(self.stride);
            let after = ((size - 1 + self.pad) / self.stride + 1).saturating_sub(positions);
            Padding { before, after }
        })
    }

    /// Pixels of a row and of a channel of the padded `dy`.
    pub fn padded_dy(&self) -> (usize, usize) {
        let [rows, cols] = self.dy_padding();
        let width = cols.before + self.w_out + cols.after;
        (width, (rows.before + self.h_out + rows.after) * width)
    }
}
