//! Fully connected layers: convolutions of images of one pixel; the weight gradient is a matrix product.

use super::layout::sizes::Sizes;
use super::{Buf, Cpu, Kernel, LANES, Real, blocks};
use crate::backend::{Activation, Linear};
use crate::base::dims::LinearDims;

/// Rows of the weight gradient that one thread computes at a time.
const ROWS: usize = 32;

/// The layer as a convolution of images of one pixel.
fn sizes(d: &LinearDims) -> Sizes {
    let (n, c_in, c_out) = (d.n as usize, d.f_in as usize, d.f_out as usize);
    Sizes { n, c_in, h_in: 1, w_in: 1, c_out, h_out: 1, w_out: 1, k: 1, stride: 1, pad: 0 }
}

impl<T: Real> Linear for Cpu<T> {
    fn linear_fwd(&self, d: &LinearDims, x: &Buf<T>, w: &Buf<T>, b: Option<&Buf<T>>, activation: Activation) -> Buf<T> {
        self.count(Kernel::LinearFwd);
        self.correlate_fwd(&sizes(d), x, w, b, activation)
    }

    fn linear_bwd_input(&self, d: &LinearDims, dy: &Buf<T>, w: &Buf<T>) -> Buf<T> {
        self.count(Kernel::LinearBwdInput);
        self.correlate_bwd_input(&sizes(d), dy, w)
    }

    fn linear_bwd_weight(&self, d: &LinearDims, x: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.count(Kernel::LinearBwdWeight);
        let (f_in, f_out) = (d.f_in as usize, d.f_out as usize);
        let mut dw = self.alloc(f_out * f_in);
        self.for_chunks(&mut dw, ROWS * f_in, |chunk, dw| {
            for block in 0..blocks(d.n as usize) {
                let dy = &dy[(block * f_out + chunk * ROWS) * LANES..];
                let x = &x[block * f_in * LANES..][..f_in * LANES];
                add_outer_products(dw, f_in, dy, x, block > 0);
            }
        });
        dw
    }
}

/// `dw (+)= dy xᵀ` for one block of images: `dy` is `[rows][LANES]`, `x` is `[f_in][LANES]`.
fn add_outer_products<T: Real>(dw: &mut [T], f_in: usize, dy: &[T], x: &[T], accumulate: bool) {
    let rows = dw.len() / f_in;
    assert!(dy.len() >= rows * LANES && x.len() == f_in * LANES);
    // SAFETY: `dw` is rows × f_in row-major; the left operand reads rows × LANES elements of `dy`, the right one
    // LANES × f_in elements of `x` (transposed by its strides), both inside the lengths asserted above; `dw` is
    // borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            rows,
            f_in,
            LANES,
            dw.as_mut_ptr(),
            1,
            f_in as isize,
            accumulate,
            dy.as_ptr(),
            1,
            LANES as isize,
            x.as_ptr(),
            LANES as isize,
            1,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
