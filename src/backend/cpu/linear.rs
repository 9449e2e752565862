//! Fully connected layers: a correlation whose image is one pixel; the weight gradient is a matrix product.

use super::correlate::{Correlate, Tap};
use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::Linear;
use crate::base::dims::LinearDims;

/// Rows of the weight gradient that one thread computes at a time.
const ROWS: usize = 32;

impl<T: Real> Cpu<T> {
    /// `y[o] = b[o] + Σ_i w[o * w_out + i * w_in] x[i]` for `f_in` inputs and `f_out` outputs.
    #[allow(clippy::too_many_arguments)]
    fn matrix_product(
        &self,
        n: usize,
        (f_in, w_in): (usize, usize),
        (f_out, w_out): (usize, usize),
        x: &[T],
        w: &[T],
        bias: Option<&[T]>,
        relu: bool,
    ) -> Buf<T> {
        let taps: Vec<Tap> = (0..f_in).map(|i| Tap { x: i as u32, w: (i * w_in) as u32 }).collect();
        let mut y = self.alloc(blocks(n) * f_out * LANES);
        self.for_chunks(&mut y, f_out * LANES, |block, y| {
            let job = Correlate {
                taps: &taps,
                x: &lanes(x)[block * f_in..],
                x_row: 1,
                x_col: 1,
                w,
                w_channel: w_out,
                bias,
                relu,
                channels: f_out,
                rows: 1,
                cols: 1,
                y: lanes_mut(y),
                y_first: 0,
                y_channel: 1,
                y_row: 1,
                y_col: 1,
            };
            T::correlate(self.arch, job);
        });
        y
    }
}

impl<T: Real> Linear for Cpu<T> {
    fn linear_fwd(&self, d: &LinearDims, x: &Buf<T>, w: &Buf<T>, b: Option<&Buf<T>>, relu: bool) -> Buf<T> {
        self.count(Kernel::LinearFwd);
        let (f_in, f_out) = (d.f_in as usize, d.f_out as usize);
        self.matrix_product(d.n as usize, (f_in, 1), (f_out, f_in), x, w, b.map(|b| &**b), relu)
    }

    fn linear_bwd_input(&self, d: &LinearDims, dy: &Buf<T>, w: &Buf<T>) -> Buf<T> {
        self.count(Kernel::LinearBwdInput);
        let (f_in, f_out) = (d.f_in as usize, d.f_out as usize);
        self.matrix_product(d.n as usize, (f_out, f_in), (f_in, 1), dy, w, None, false)
    }

    fn linear_bwd_weight(&self, d: &LinearDims, x: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.count(Kernel::LinearBwdWeight);
        let (f_in, f_out) = (d.f_in as usize, d.f_out as usize);
        let mut dw = self.alloc(f_out * f_in);
        self.for_chunks(&mut dw, ROWS * f_in, |tile, dw| {
            for block in 0..blocks(d.n as usize) {
                let dy = &dy[(block * f_out + tile * ROWS) * LANES..];
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
