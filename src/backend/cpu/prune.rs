//! Selection of what to keep, and ADMM's variables.
//!
//! Norms are summed in f64, in [`SUMS`] interleaved sums that fill vector registers; their order is always the same.

use std::cmp::Ordering;

use super::{Buf, Cpu, Real};
use crate::backend::{AdmmParam, Prune, Residuals};

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

    fn top_k_masks(&self, selections: &[(usize, &Buf<T>)]) -> Vec<Option<Buf<T>>> {
        selections.iter().map(|&(k, x)| self.top_k_mask(k, x)).collect()
    }

    fn broadcast_rows(&self, rows: usize, cols: usize, mask: &Buf<T>) -> Buf<T> {
        assert!(mask.len() == rows);
        let mut y = self.alloc(rows * cols);
        y.chunks_exact_mut(cols).zip(mask.iter()).for_each(|(row, &m)| row.fill(m));
        y
    }

    fn broadcast_columns(&self, rows: usize, cols: usize, mask: &Buf<T>) -> Buf<T> {
        assert!(mask.len() == cols);
        let mut y = self.alloc(rows * cols);
        y.chunks_exact_mut(cols).for_each(|row| row.copy_from_slice(mask));
        y
    }

    fn masked_copy(&self, mask: &Buf<T>, x: &Buf<T>) -> Buf<T> {
        self.zip(mask, x, |m, x| if m == T::zero() { T::zero() } else { x })
    }

    fn apply_mask(&self, mask: &Buf<T>, x: &mut Buf<T>) {
        assert_eq!(mask.len(), x.len());
        x.iter_mut().zip(mask.iter()).filter(|(_, m)| **m == T::zero()).for_each(|(x, _)| *x = T::zero());
    }

    fn admm_update(&self, params: &mut [AdmmParam<'_, Buf<T>>]) -> Vec<Residuals> {
        params.iter_mut().map(|p| self.admm_update_one(p.mask, p.w, p.z, p.u)).collect()
    }
}

impl<T: Real> Cpu<T> {
    /// [`Prune::top_k_masks`] of one.
    fn top_k_mask(&self, k: usize, x: &Buf<T>) -> Option<Buf<T>> {
        assert!(k <= x.len());
        let Threshold { magnitude, mut surplus } = threshold(k, x)?;
        let mut mask = self.alloc(x.len());
        self.arch.dispatch(|| {
            for (mask, x) in mask.iter_mut().zip(x.iter()) {
                *mask = if x.abs() >= magnitude { T::one() } else { T::zero() };
            }
        });
        for (mask, x) in mask.iter_mut().zip(x.iter()).rev() {
            if surplus == 0 {
                break;
            }
            if x.abs() == magnitude {
                *mask = T::zero();
                surplus -= 1;
            }
        }
        Some(mask)
    }

    /// [`Prune::admm_update`] of one parameter.
    fn admm_update_one(&self, mask: &Buf<T>, w: &Buf<T>, z: &mut Buf<T>, u: &mut Buf<T>) -> Residuals {
        let n = w.len();
        assert!(mask.len() == n && z.len() == n && u.len() == n);
        let mut sums = [[0.0; SUMS]; 3];
        self.arch.dispatch(|| {
            let ((mask, mask_rest), (w, w_rest)) = (mask.as_chunks::<SUMS>(), w.as_chunks::<SUMS>());
            let ((z, z_rest), (u, u_rest)) = (z.as_chunks_mut::<SUMS>(), u.as_chunks_mut::<SUMS>());
            for i in 0..w.len() {
                admm_update(&mask[i], &w[i], &mut z[i], &mut u[i], &mut sums);
            }
            admm_update(mask_rest, w_rest, z_rest, u_rest, &mut sums);
        });
        let [primal, dual, weight] = sums.map(|sums| sums.iter().sum::<f64>().sqrt());
        Residuals { primal, dual, weight }
    }
}

/// Where the kept magnitudes end.
struct Threshold<T> {
    /// The smallest magnitude that is kept.
    magnitude: T,
    /// How many of that magnitude are too many.
    surplus: usize,
}

/// Magnitudes are counted by the upper 16 bits of an f32 without its sign, which grow with it.
const BUCKETS: usize = 1 << 15;

#[inline(always)]
fn bucket<T: Real>(x: T) -> usize {
    (x.as_f32().abs().to_bits() >> 16) as usize
}

/// The threshold of the `k` largest magnitudes; `None` if there is a NaN.
///
/// Counting finds the bucket that the threshold is in; only what is in there, mostly less than a hundredth, is compared.
fn threshold<T: Real>(k: usize, x: &[T]) -> Option<Threshold<T>> {
    let mut counts = vec![0_u32; BUCKETS];
    let mut nan = false;
    for &x in x {
        counts[bucket(x)] += 1;
        nan |= x.is_nan();
    }
    if nan {
        return None;
    }
    if k == 0 {
        // Only infinities reach this one, and they are too many.
        return Some(Threshold { magnitude: T::infinity(), surplus: x.iter().filter(|x| x.is_infinite()).count() });
    }
    // How many are needed of the bucket and those below.
    let (mut needed, mut at) = (k, BUCKETS - 1);
    while (counts[at] as usize) < needed {
        needed -= counts[at] as usize;
        at -= 1;
    }
    let mut candidates = Vec::with_capacity(counts[at] as usize);
    candidates.extend(x.iter().filter(|&&x| bucket(x) == at).map(|x| x.abs()));
    let descending = |a: &T, b: &T| b.partial_cmp(a).unwrap_or(Ordering::Equal);
    let (_, &mut magnitude, _) = candidates.select_nth_unstable_by(needed - 1, descending);
    let not_smaller = candidates.iter().filter(|&&m| m >= magnitude).count();
    Some(Threshold { magnitude, surplus: not_smaller - needed })
}

/// The update of some elements; the squares of what its residuals are norms of are added to `sums`.
#[inline(always)]
fn admm_update<T: Real>(mask: &[T], w: &[T], z: &mut [T], u: &mut [T], sums: &mut [[f64; SUMS]; 3]) {
    for i in 0..w.len() {
        // `w + u`.
        let sum = u[i];
        let new = if mask[i] == T::zero() { T::zero() } else { sum };
        sums[0][i] += square(w[i] - new);
        sums[1][i] += square(new - z[i]);
        sums[2][i] += square(w[i]);
        // Not u + (w - z), which would leave rounding errors of w where the weight is kept.
        (z[i], u[i]) = (new, sum - new);
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
