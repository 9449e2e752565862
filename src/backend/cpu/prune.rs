//! Selection of what to keep, and ADMM's variables.
//!
//! Norms are summed in f64, in [`SUMS`] interleaved sums that fill vector registers; their order is always the same.

use std::cmp::Ordering;

use super::{Buf, Cpu, Real};
use crate::backend::{Memory, Prune, Residuals};

/// Partial sums of a norm.
const SUMS: usize = 8;

impl<T: Real> Prune for Cpu<T> {
    fn row_norms(&self, rows: usize, members: &[&Buf<T>]) -> Buf<T> {
        let mut norms = self.alloc(rows);
        self.arch.dispatch(|| {
            for (r, norm) in norms.iter_mut().enumerate() {
                let mut sum = 0.0;
                for x in members {
                    let cols = x.len() / rows;
                    sum += sum_of_squares(&x[r * cols..][..cols]);
                }
                *norm = T::of_f64(sum.sqrt());
            }
        });
        norms
    }

    fn column_norms(&self, cols: usize, x: &Buf<T>) -> Buf<T> {
        let mut sums = vec![0.0; cols];
        self.arch.dispatch(|| {
            for row in x.chunks_exact(cols) {
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum += square(*x);
                }
            }
        });
        let mut norms = self.alloc(cols);
        norms.iter_mut().zip(sums).for_each(|(norm, sum)| *norm = T::of_f64(sum.sqrt()));
        norms
    }

    fn top_k_mask(&self, k: usize, x: &Buf<T>) -> Option<Buf<T>> {
        assert!(k <= x.len());
        let mut magnitudes = self.alloc(x.len());
        let mut nan = false;
        for (magnitude, x) in magnitudes.iter_mut().zip(x.iter()) {
            *magnitude = x.abs();
            nan |= x.is_nan();
        }
        if nan {
            return None;
        }
        let mut mask = self.zeros(x.len());
        if k == 0 {
            return Some(mask);
        }
        let descending = |a: &T, b: &T| b.partial_cmp(a).unwrap_or(Ordering::Equal);
        let (larger, &mut smallest, _) = magnitudes.select_nth_unstable_by(k - 1, descending);
        let mut ties = k - larger.iter().filter(|&&m| m > smallest).count();
        for (mask, x) in mask.iter_mut().zip(x.iter()) {
            let magnitude = x.abs();
            if magnitude > smallest {
                *mask = T::one();
            } else if magnitude == smallest && ties > 0 {
                *mask = T::one();
                ties -= 1;
            }
        }
        Some(mask)
    }

    fn spread_rows(&self, rows: usize, cols: usize, mask: &Buf<T>) -> Buf<T> {
        assert!(mask.len() == rows);
        let mut spread = self.alloc(rows * cols);
        spread.chunks_exact_mut(cols).zip(mask.iter()).for_each(|(row, &m)| row.fill(m));
        spread
    }

    fn spread_columns(&self, rows: usize, cols: usize, mask: &Buf<T>) -> Buf<T> {
        assert!(mask.len() == cols);
        let mut spread = self.alloc(rows * cols);
        spread.chunks_exact_mut(cols).for_each(|row| row.copy_from_slice(mask));
        spread
    }

    fn masked_copy(&self, mask: &Buf<T>, x: &Buf<T>) -> Buf<T> {
        self.zip(mask, x, |m, x| if m == T::zero() { T::zero() } else { x })
    }

    fn admm_update(&self, mask: &Buf<T>, w: &Buf<T>, z: &mut Buf<T>, u: &mut Buf<T>) -> Residuals {
        let n = w.len();
        assert!(mask.len() == n && z.len() == n && u.len() == n);
        let mut sums = [[0.0; SUMS]; 3];
        self.arch.dispatch(|| {
            for first in (0..n).step_by(SUMS) {
                let len = SUMS.min(n - first);
                let (mask, w) = (&mask[first..][..len], &w[first..][..len]);
                let (z, u) = (&mut z[first..][..len], &mut u[first..][..len]);
                for i in 0..len {
                    let sum = w[i] + u[i];
                    let new = if mask[i] == T::zero() { T::zero() } else { sum };
                    sums[0][i] += square(w[i] - new);
                    sums[1][i] += square(new - z[i]);
                    sums[2][i] += square(w[i]);
                    // Not u + (w - z), which would leave rounding errors of w where the weight is kept.
                    (z[i], u[i]) = (new, sum - new);
                }
            }
        });
        let [primal, dual, weight] = sums.map(|sums| sums.iter().sum::<f64>().sqrt());
        Residuals { primal, dual, weight }
    }
}

#[inline(always)]
fn square<T: Real>(x: T) -> f64 {
    x.as_f64() * x.as_f64()
}

#[inline(always)]
fn sum_of_squares<T: Real>(x: &[T]) -> f64 {
    let mut sums = [0.0; SUMS];
    let (chunks, rest) = x.as_chunks::<SUMS>();
    for chunk in chunks {
        for l in 0..SUMS {
            sums[l] += square(chunk[l]);
        }
    }
    for l in 0..rest.len() {
        sums[l] += square(rest[l]);
    }
    sums.iter().sum()
}
