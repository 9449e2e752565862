//! Selection of what to keep, and ADMM's variables.

use super::kernel::kernels;
use super::{Buf, Cuda, Device, tuning};
use crate::backend::{Memory, Prune, Residuals};

kernels! { "prune":
    row_norms(cols: u32, first: u32, x: &Device<f32>, sums: &mut Device<f64>, norms: &mut Device<f32>);
    column_norms(rows: u32, cols: u32, x: &Device<f32>, norms: &mut Device<f32>);
    top_k_start(k: u32, counts: &mut Device<u32>, selection: &mut Device<Selection>);
    top_k_count(
        n: u32,
        shift: u32,
        bits: u32,
        x: &Device<f32>,
        selection: &Device<Selection>,
        counts: &mut Device<u32>,
    );
    top_k_digit(shift: u32, counts: &mut Device<u32>, selection: &mut Device<Selection>);
    top_k_ties(n: u32, x: &Device<f32>, selection: &Device<Selection>, ties: &mut Device<u32>);
    top_k_end(n: u32, x: &Device<f32>, ties: &Device<u32>, selection: &mut Device<Selection>);
    top_k_mask(n: u32, x: &Device<f32>, selection: &mut Device<Selection>, mask: &mut Device<f32>);
    spread_rows(n: u32, cols: u32, mask: &Device<f32>, y: &mut Device<f32>);
    spread_columns(n: u32, cols: u32, mask: &Device<f32>, y: &mut Device<f32>);
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
    admm_norms(blocks: u32, partials: &Device<f64>, norms: &mut Device<f64>);
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

/// Bins of a histogram of digits.
const BINS: usize = 2048;
/// The digits of a magnitude's 31 bits, the most significant one first: shift and number of bits.
const DIGITS: [(u32, u32); 3] = [(20, 11), (10, 10), (0, 10)];

impl Prune for Cuda {
    fn row_norms(&self, rows: usize, members: &[&Buf]) -> Buf {
        if rows == 0 || members.is_empty() {
            return self.zeros(rows);
        }
        let (mut sums, mut norms) = (self.alloc(rows), self.alloc(rows));
        for (i, x) in members.iter().enumerate() {
            assert!(x.len().is_multiple_of(rows));
            let (cols, first) = ((x.len() / rows) as u32, u32::from(i == 0));
            // SAFETY: `x` is rows × cols, the others have `rows` elements, and there is a block a row; the first launch
            // writes the sums that the others read.
            unsafe { launch::row_norms(self, tuning::row_norms(rows), cols, first, x, &mut sums, &mut norms) };
        }
        norms
    }

    fn column_norms(&self, cols: usize, x: &Buf) -> Buf {
        let mut norms = self.alloc(cols);
        if cols > 0 {
            assert!(x.len().is_multiple_of(cols));
            let rows = (x.len() / cols) as u32;
            // SAFETY: `x` is rows × cols, `norms` has `cols` elements.
            unsafe { launch::column_norms(self, tuning::column_norms(cols), rows, cols as u32, x, &mut norms) };
        }
        norms
    }

    fn top_k_mask(&self, k: usize, x: &Buf) -> Option<Buf> {
        assert!(k <= x.len());
        let (n, mut mask) = (x.len() as u32, self.alloc(x.len()));
        if n == 0 {
            return Some(mask);
        }
        let (mut counts, mut selection) = (self.alloc(BINS), self.alloc(1));
        let chunks = tuning::tie_chunks(x.len());
        let mut ties = self.alloc(chunks as usize);
        let (one, each) = (tuning::one_block(), tuning::elements(x.len(), 4));
        // SAFETY: `x` and `mask` have n elements, `ties` one for each chunk of them, `counts` as many as there are bins, and
        // there is one selection. What a kernel reads of them was written by those before it.
        unsafe {
            launch::top_k_start(self, one, k as u32, &mut counts, &mut selection);
            for (shift, bits) in DIGITS {
                launch::top_k_count(self, tuning::histogram(x.len()), n, shift, bits, x, &selection, &mut counts);
                launch::top_k_digit(self, one, shift, &mut counts, &mut selection);
            }
            launch::top_k_ties(self, tuning::ties(chunks), n, x, &selection, &mut ties);
            launch::top_k_end(self, one, n, x, &ties, &mut selection);
            launch::top_k_mask(self, each, n, x, &mut selection, &mut mask);
        }
        (self.download_slice(&selection)[0].nan == 0).then_some(mask)
    }

    fn spread_rows(&self, rows: usize, cols: usize, mask: &Buf) -> Buf {
        assert_eq!(mask.len(), rows);
        let (n, mut y) = (rows * cols, self.alloc(rows * cols));
        // SAFETY: `y` has n = rows × cols elements, `mask` one a row.
        unsafe { launch::spread_rows(self, tuning::elements(n, 4), n as u32, cols as u32, mask, &mut y) };
        y
    }

    fn spread_columns(&self, rows: usize, cols: usize, mask: &Buf) -> Buf {
        assert_eq!(mask.len(), cols);
        let (n, mut y) = (rows * cols, self.alloc(rows * cols));
        // SAFETY: `y` has n = rows × cols elements, `mask` one a column.
        unsafe { launch::spread_columns(self, tuning::elements(n, 4), n as u32, cols as u32, mask, &mut y) };
        y
    }

    fn masked_copy(&self, mask: &Buf, x: &Buf) -> Buf {
        assert_eq!(mask.len(), x.len());
        let mut y = self.alloc(x.len());
        // SAFETY: all three have as many elements.
        unsafe { launch::masked_copy(self, tuning::elements(x.len(), 4), x.len() as u32, mask, x, &mut y) };
        y
    }

    fn apply_mask(&self, mask: &Buf, x: &mut Buf) {
        assert_eq!(mask.len(), x.len());
        let (grid, n) = (tuning::elements(x.len(), 4), x.len() as u32);
        // SAFETY: both have n elements.
        unsafe { launch::apply_mask(self, grid, n, mask, x) };
    }

    fn admm_update(&self, mask: &Buf, w: &Buf, z: &mut Buf, u: &mut Buf) -> Residuals {
        let n = w.len();
        assert!(mask.len() == n && z.len() == n && u.len() == n);
        let grid = tuning::elements(n, 4);
        let blocks = grid.blocks[0];
        let (mut partials, mut norms) = (self.alloc(3 * blocks as usize), self.alloc(3));
        // SAFETY: the four have n elements; each block writes its three partial sums.
        unsafe {
            launch::admm_update(self, grid, n as u32, mask, w, z, u, &mut partials);
            launch::admm_norms(self, tuning::admm_norms(), blocks, &partials, &mut norms);
        }
        let norms: Vec<f64> = self.download_slice(&norms);
        Residuals { primal: norms[0], dual: norms[1], weight: norms[2] }
    }
}
