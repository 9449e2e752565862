//! Parameter updates, in PyTorch's order of operations.

use super::elementwise::CHUNK;
use super::{Buf, Cpu, Real};
use crate::backend::{AdamParam, AdamStep, Constraint, Optim, SgdParam, SgdStep};

impl<T: Real> Optim for Cpu<T> {
    fn sgd_step(&self, s: &SgdStep, params: &mut [SgdParam<'_, Buf<T>>]) {
        params.iter_mut().for_each(|param| self.sgd_param(s, param));
    }

    fn adam_step(&self, s: &AdamStep, params: &mut [AdamParam<'_, Buf<T>>]) {
        params.iter_mut().for_each(|param| self.adam_param(s, param));
    }
}

impl<T: Real> Cpu<T> {
    fn sgd_param(&self, s: &SgdStep, param: &mut SgdParam<'_, Buf<T>>) {
        let SgdParam { constraint: c, g, v, w } = param;
        assert!(g.len() == w.len() && v.len() == w.len());
        let (lr, momentum, decay) = (T::of(s.lr), T::of(s.momentum), T::of(s.weight_decay));
        self.for_parts(5 * g.len(), w.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK)), |i, (w, v)| {
            let v = &mut v[..w.len()];
            self.arch.dispatch(
                #[inline(always)]
                || {
                    for_each(c, i * CHUNK, g, w, |i, g, w, keep| {
                        let velocity = momentum * v[i] + (g + decay * *w);
                        let moved = *w - lr * velocity;
                        (v[i], *w) = if keep { (velocity, moved) } else { (T::zero(), T::zero()) };
                    });
                },
            );
        });
    }

    fn adam_param(&self, s: &AdamStep, param: &mut AdamParam<'_, Buf<T>>) {
        let AdamParam { constraint: c, g, m, v, w } = param;
        assert!(g.len() == w.len() && m.len() == w.len() && v.len() == w.len());
        let (beta1, beta2, decay) = (T::of(s.beta1), T::of(s.beta2), T::of(s.weight_decay));
        // The corrections are powers close to 1: in f32 they would lose the digits that matter.
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(s.t as i32);
        let step = T::of_f64(f64::from(s.lr) / correction(s.beta1));
        let root = T::of_f64(correction(s.beta2).sqrt());
        let eps = T::of(s.eps);
        let parts = w.chunks_mut(CHUNK).zip(m.chunks_mut(CHUNK)).zip(v.chunks_mut(CHUNK));
        self.for_parts(7 * g.len(), parts, |i, ((w, m), v)| {
            let (m, v) = (&mut m[..w.len()], &mut v[..w.len()]);
            self.arch.dispatch(
                #[inline(always)]
                || {
                    for_each(c, i * CHUNK, g, w, |i, g, w, keep| {
                        let g = g + decay * *w;
                        let mean = m[i] + (T::one() - beta1) * (g - m[i]);
                        let square = beta2 * v[i] + (T::one() - beta2) * g * g;
                        let moved = *w - step * mean / (square.sqrt() / root + eps);
                        let zero = T::zero();
                        (m[i], v[i], *w) = if keep { (mean, square, moved) } else { (zero, zero, zero) };
                    });
                },
            );
        });
    }
}

/// Calls `update(index, gradient with the penalty, weight, kept)` for every element of `w`, the part of a parameter that
/// begins at element `first`. Slices of one length, known to the compiler, are what it makes vector instructions of.
#[inline(always)]
fn for_each<T: Real>(
    c: &Constraint<'_, Buf<T>>,
    first: usize,
    g: &[T],
    w: &mut [T],
    mut update: impl FnMut(usize, T, &mut T, bool),
) {
    let n = w.len();
    let g = &g[first..][..n];
    match c {
        Constraint::Free => {
            for i in 0..n {
                update(i, g[i], &mut w[i], true);
            }
        }
        Constraint::Mask(mask) => {
            let mask = &mask[first..][..n];
            for i in 0..n {
                update(i, g[i], &mut w[i], mask[i] != T::zero());
            }
        }
        Constraint::Penalty { rho, z, u } => {
            let (rho, z, u) = (T::of(*rho), &z[first..][..n], &u[first..][..n]);
            for i in 0..n {
                let pull = rho * (w[i] - z[i] + u[i]);
                update(i, g[i] + pull, &mut w[i], true);
            }
        }
    }
}
