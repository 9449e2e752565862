//! Selection of what to keep, and ADMM's variables.

use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::{Context, Cuda, Device, Precision, tuning};
use crate::backend::{AdmmParam, Memory, Prune, Residuals};
use crate::base::layout::layout;

kernels! { "f32/prune":
    row_norms(cols: u32, first: u32, x: &Device<f32>, sums: &mut Device<f64>, norms: &mut Device<f32>);
    column_norms(rows: u32, cols: u32, x: &Device<f32>, norms: &mut Device<f32>);
    top_k_start(s: Segments, counts: &mut Device<u32>, selections: &mut Device<Selection>);
    top_k_count(
        count: u32,
        s: Segments,
        shift: u32,
        bits: u32,
        selections: &Device<Selection>,
        counts: &mut Device<u32>,
    );
    top_k_digit(shift: u32, counts: &mut Device<u32>, selections: &mut Device<Selection>);
    top_k_ties(count: u32, s: Segments, selections: &Device<Selection>, ties: &mut Device<u32>);
    top_k_end(s: Segments, ties: &Device<u32>, selections: &mut Device<Selection>);
    top_k_mask(count: u32, s: Segments, selections: &mut Device<Selection>);
    broadcast_rows(n: u32, cols: u32, mask: &Device<f32>, y: &mut Device<f32>);
    broadcast_columns(n: u32, cols: u32, mask: &Device<f32>, y: &mut Device<f32>);
    masked_copy(n: u32, mask: &Device<f32>, x: &Device<f32>, y: &mut Device<f32>);
    apply_mask(n: u32, mask: &Device<f32>, x: &mut Device<f32>);
    admm_update(
        n: u32,
        mask: &Device<f32>,
        w: &Device<f32>,
        z: &mut Device<f32>,
        u: &mut Device<f32>,
        partials: &mut Device<f64>,
    );
    admm_norms(blocks: u32, first: u32, partials: &Device<f64>, norms: &mut Device<f64>);
}

/// Where a selection of the largest is; the kernels say what the fields mean.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Selection {
    border: u32,
    needed: u32,
    end: u32,
    nan: u32,
}

/// Tensors that are selected from in the same launches: so many that the layers of a ResNet-18 fit, and that the table is no
/// larger than the 4 KB that a launch may carry.
const SEGMENTS: usize = 64;

/// The tensors of one launch by their addresses, and the first block of each.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Segments {
    x: [u64; SEGMENTS],
    mask: [u64; SEGMENTS],
    n: [u32; SEGMENTS],
    k: [u32; SEGMENTS],
    first: [u32; SEGMENTS],
}

layout!(Selection { border, needed, end, nan });
layout!(Segments { x, mask, n, k, first });
by_value!(Segments);

/// Bins of a histogram of digits.
const BINS: usize = 2048;
/// The digits of a magnitude's 31 bits, the most significant one first: shift and number of bits.
const DIGITS: [(u32, u32); 3] = [(20, 11), (10, 10), (0, 10)];

impl<P: Precision> Prune for Cuda<P> {
    fn row_norms(&self, rows: usize, members: &[&P::Buf]) -> P::Buf {
        if rows == 0 || members.is_empty() {
            return self.zeros(rows);
        }
        let (mut sums, mut norms) = (self.alloc(rows), self.alloc(rows));
        for (i, x) in members.iter().map(|x| x.f32()).enumerate() {
            assert!(x.len().is_multiple_of(rows));
            let (cols, first) = ((x.len() / rows) as u32, u32::from(i == 0));
            // SAFETY: `x` is rows × cols, the others have `rows` elements, and there is a block a row; the first launch
            // writes the sums that the others read.
            unsafe { launch::row_norms(self, tuning::row_norms(rows), cols, first, x, &mut sums, &mut norms) };
        }
        norms.into()
    }

    fn column_norms(&self, cols: usize, x: &P::Buf) -> P::Buf {
        let (x, mut norms) = (x.f32(), self.alloc(cols));
        if cols > 0 {
            assert!(x.len().is_multiple_of(cols));
            let rows = (x.len() / cols) as u32;
            // SAFETY: `x` is rows × cols, `norms` has `cols` elements.
            unsafe { launch::column_norms(self, tuning::column_norms(cols), rows, cols as u32, x, &mut norms) };
        }
        norms.into()
    }

    fn top_k_masks(&self, selections: &[(usize, &P::Buf)]) -> Vec<Option<P::Buf>> {
        let plain: Vec<(usize, &Device<f32>)> = selections.iter().map(|&(k, x)| (k, x.f32())).collect();
        let masks = plain.chunks(SEGMENTS).flat_map(|chunk| self.top_k_masks_of_a_table(chunk));
        masks.map(|mask| mask.map(P::Buf::from)).collect()
    }

    fn broadcast_rows(&self, rows: usize, cols: usize, mask: &P::Buf) -> P::Buf {
        let mask = mask.f32();
        assert_eq!(mask.len(), rows);
        let (n, mut y) = (rows * cols, self.alloc(rows * cols));
        // SAFETY: `y` has n = rows × cols elements, `mask` one a row.
        unsafe { launch::broadcast_rows(self, tuning::elements(n, 4), n as u32, cols as u32, mask, &mut y) };
        y.into()
    }

    fn broadcast_columns(&self, rows: usize, cols: usize, mask: &P::Buf) -> P::Buf {
        let mask = mask.f32();
        assert_eq!(mask.len(), cols);
        let (n, mut y) = (rows * cols, self.alloc(rows * cols));
        // SAFETY: `y` has n = rows × cols elements, `mask` one a column.
        unsafe { launch::broadcast_columns(self, tuning::elements(n, 4), n as u32, cols as u32, mask, &mut y) };
        y.into()
    }

    fn masked_copy(&self, mask: &P::Buf, x: &P::Buf) -> P::Buf {
        let [mask, x] = [mask, x].map(PlainBuf::f32);
        assert_eq!(mask.len(), x.len());
        let mut y = self.alloc(x.len());
        // SAFETY: all three have as many elements.
        unsafe { launch::masked_copy(self, tuning::elements(x.len(), 4), x.len() as u32, mask, x, &mut y) };
        y.into()
    }

    fn apply_mask(&self, mask: &P::Buf, x: &mut P::Buf) {
        let (mask, x) = (mask.f32(), x.f32_mut());
        assert_eq!(mask.len(), x.len());
        let (grid, n) = (tuning::elements(x.len(), 4), x.len() as u32);
        // SAFETY: both have n elements.
        unsafe { launch::apply_mask(self, grid, n, mask, x) };
    }

    fn admm_update(&self, params: &mut [AdmmParam<'_, P::Buf>]) -> Vec<Residuals> {
        let mut norms = self.alloc(3 * params.len());
        for (i, AdmmParam { mask, w, z, u }) in params.iter_mut().enumerate() {
            let ([mask, w], z, u) = ([*mask, *w].map(PlainBuf::f32), z.f32_mut(), u.f32_mut());
            let n = w.len();
            assert!(mask.len() == n && z.len() == n && u.len() == n);
            let grid = tuning::elements(n, 4);
            let blocks = grid.blocks[0];
            let mut partials = self.alloc(3 * blocks as usize);
            // SAFETY: the four have n elements; each block writes its three partial sums; three norms are this parameter's.
            unsafe {
                launch::admm_update(self, grid, n as u32, mask, w, z, u, &mut partials);
                launch::admm_norms(self, tuning::admm_norms(), blocks, 3 * i as u32, &partials, &mut norms);
            }
        }
        let norms: Vec<f64> = self.download_slice(&norms);
        norms.chunks_exact(3).map(|of| Residuals { primal: of[0], dual: of[1], weight: of[2] }).collect()
    }
}

impl Context {
    /// [`Prune::top_k_masks`] of so many as a table holds.
    fn top_k_masks_of_a_table(&self, of: &[(usize, &Device<f32>)]) -> Vec<Option<Device<f32>>> {
        let mut s = Segments {
            x: [0; SEGMENTS],
            mask: [0; SEGMENTS],
            n: [0; SEGMENTS],
            k: [0; SEGMENTS],
            first: [0; SEGMENTS],
        };
        let masks: Vec<Device<f32>> = of.iter().map(|(_, x)| self.alloc(x.len())).collect();
        let mut blocks = 0;
        for (i, ((k, x), mask)) in of.iter().zip(&masks).enumerate() {
            assert!(*k <= x.len());
            (s.x[i], s.mask[i], s.n[i], s.k[i]) = (x.address(), mask.address(), x.len() as u32, *k as u32);
            s.first[i] = blocks;
            blocks += tuning::selection_shares(x.len());
        }
        let count = of.len() as u32;
        let (mut counts, mut selections) = (self.alloc(BINS * of.len()), self.alloc(of.len()));
        let mut ties = self.alloc(blocks as usize);
        let (one, each) = (tuning::blocks(count), tuning::blocks(blocks));
        // SAFETY: the table's addresses are of buffers of n elements each, which live until the download below; there are bins, a
        // selection and a block for each, and a block and a count of ties for each share. What a kernel reads of them was
        // written by those before it.
        unsafe {
            launch::top_k_start(self, one, s, &mut counts, &mut selections);
            for (shift, bits) in DIGITS {
                launch::top_k_count(self, each, count, s, shift, bits, &selections, &mut counts);
                launch::top_k_digit(self, one, shift, &mut counts, &mut selections);
            }
            launch::top_k_ties(self, each, count, s, &selections, &mut ties);
            launch::top_k_end(self, one, s, &ties, &mut selections);
            launch::top_k_mask(self, each, count, s, &mut selections);
        }
        let selections = self.download_slice(&selections);
        masks.into_iter().zip(selections).map(|(mask, selection)| (selection.nan == 0).then_some(mask)).collect()
    }
}
