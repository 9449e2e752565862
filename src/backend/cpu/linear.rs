//! Fully connected layers: matrix products.

use super::jobs::{DEPTH, Gemm, PANEL, Packing};
use super::layout::arena::Storage;
use super::layout::sizes::Sizes;
use super::{Buf, Cpu, Kernel, LANES, Real, Work, blocks, lanes, lanes_mut};
use crate::backend::{Activation, Linear};
use crate::base::dims::LinearDims;

/// Rows of the weight gradient that one thread computes at a time.
const ROWS: usize = 32;

/// Blocks of images that a thread multiplies a weight with at a time, at most.
const BLOCKS: usize = 2;

/// The layer as a convolution of images of one pixel, by which its prepared weights are known.
fn sizes(d: &LinearDims) -> Sizes {
    let (n, c_in, c_out) = (d.n as usize, d.f_in as usize, d.f_out as usize);
    Sizes { n, c_in, h_in: 1, w_in: 1, c_out, h_out: 1, w_out: 1, k: 1, stride: 1, pad: 0 }
}

impl<T: Real> Cpu<T> {
    /// The matrix whose element in a row and a column is `at(row, column)`, in the order of the product.
    fn packed(&self, packing: Packing, at: impl Fn(usize, usize) -> T) -> Storage<T> {
        let mut packed = self.arena.take(packing.len());
        packing.pack(&mut packed, at);
        packed
    }

    /// `activation(bias + A x)` of a batch of `n`.
    fn product(
        &self,
        packing: Packing,
        a: &[T],
        n: usize,
        x: &[T],
        bias: Option<&[T]>,
        activation: Activation,
    ) -> Buf<T> {
        let Packing { rows, depth, .. } = packing;
        // Two blocks at a time read every weight once for both, unless a thread would go without work.
        let together = (blocks(n) / self.threads()).clamp(1, BLOCKS);
        let tasks = self.channel_tasks(n, rows, PANEL, rows * depth);
        let mut y = self.alloc(blocks(n) * rows * LANES);
        let work = Work::MultiplyAdds(blocks(n) * rows * depth);
        self.for_chunks(work, &mut y, together * tasks.each * LANES, |task, y| {
            // Either all rows of some blocks, or some of one.
            let (blocks, (group, rows)) = (y.len().div_ceil(rows * LANES), tasks.of(task));
            let job = Gemm {
                packing,
                rows,
                a: a.as_chunks::<PANEL>().0,
                bias,
                activation,
                x: &lanes(x)[group * together * depth..][..blocks * depth],
                y: lanes_mut(y),
            };
            T::gemm(self.arch, job);
        });
        y
    }
}

impl<T: Real> Linear for Cpu<T> {
    fn linear_fwd(&self, d: &LinearDims, x: &Buf<T>, w: &Buf<T>, b: Option<&Buf<T>>, activation: Activation) -> Buf<T> {
        self.count(Kernel::LinearFwd);
        let packing = Packing { rows: d.f_out as usize, depth: d.f_in as usize, piece: DEPTH };
        let at = |row: usize, column: usize| w[row * packing.depth + column];
        let a = w.prepared().fwd_panels.get(&sizes(d), || self.packed(packing, at));
        self.product(packing, &a, d.n as usize, x, b.map(|b| &**b), activation)
    }

    fn linear_bwd_input(&self, d: &LinearDims, dy: &Buf<T>, w: &Buf<T>) -> Buf<T> {
        self.count(Kernel::LinearBwdInput);
        let packing = Packing { rows: d.f_in as usize, depth: d.f_out as usize, piece: DEPTH };
        let at = |row: usize, column: usize| w[column * packing.rows + row];
        let a = w.prepared().bwd_input_panels.get(&sizes(d), || self.packed(packing, at));
        self.product(packing, &a, d.n as usize, dy, None, Activation::Identity)
    }

    fn linear_bwd_weight(&self, d: &LinearDims, x: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.count(Kernel::LinearBwdWeight);
        let (f_in, f_out) = (d.f_in as usize, d.f_out as usize);
        let mut dw = self.alloc(f_out * f_in);
        let work = Work::MultiplyAdds(blocks(d.n as usize) * f_out * f_in);
        self.for_chunks(work, &mut dw, ROWS * f_in, |chunk, dw| {
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
