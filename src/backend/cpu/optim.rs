//! Parameter updates, in PyTorch's order of operations.
//!
//! The loops are structs rather than closures, for the reason that [`super::elementwise`] gives.

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

/// [`SgdStep`] in `T`.
#[derive(Clone, Copy)]
struct SgdConstants<T> {
    lr: T,
    momentum: T,
    decay: T,
}

/// The chunk of a parameter that begins at element `first`.
struct SgdChunk<'a, T: Real> {
    s: SgdConstants<T>,
    constraint: &'a Constraint<'a, Buf<T>>,
    first: usize,
    g: &'a [T],
    v: &'a mut [T],
    w: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for SgdChunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let SgdChunk { s: SgdConstants { lr, momentum, decay }, constraint, first, g, v, w } = self;
        let v = &mut v[..w.len()];
        for_each(
            constraint,
            first,
            g,
            w,
            #[inline(always)]
            |i, g, w, keep| {
                let velocity = momentum * v[i] + (g + decay * *w);
                let moved = *w - lr * velocity;
                (v[i], *w) = if keep { (velocity, moved) } else { (T::zero(), T::zero()) };
            },
        );
    }
}

/// [`AdamStep`] in `T`, with the step and the root that the bias corrections make of it.
#[derive(Clone, Copy)]
struct AdamConstants<T> {
    step: T,
    root: T,
    beta1: T,
    beta2: T,
    eps: T,
    decay: T,
}

/// The chunk of a parameter that begins at element `first`.
struct AdamChunk<'a, T: Real> {
    s: AdamConstants<T>,
    constraint: &'a Constraint<'a, Buf<T>>,
    first: usize,
    g: &'a [T],
    m: &'a mut [T],
    v: &'a mut [T],
    w: &'a mut [T],
}

impl<T: Real> pulp::WithSimd for AdamChunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let AdamChunk { s, constraint, first, g, m, v, w } = self;
        let AdamConstants { step, root, beta1, beta2, eps, decay } = s;
        let (m, v) = (&mut m[..w.len()], &mut v[..w.len()]);
        for_each(
            constraint,
            first,
            g,
            w,
            #[inline(always)]
            |i, g, w, keep| {
                let g = g + decay * *w;
                let mean = m[i] + (T::one() - beta1) * (g - m[i]);
                let square = beta2 * v[i] + (T::one() - beta2) * g * g;
                let moved = *w - step * mean / (square.sqrt() / root + eps);
                let zero = T::zero();
                (m[i], v[i], *w) = if keep { (mean, square, moved) } else { (zero, zero, zero) };
            },
        );
    }
}

impl<T: Real> Cpu<T> {
    fn sgd_param(&self, s: &SgdStep, param: &mut SgdParam<'_, Buf<T>>) {
        let SgdParam { constraint, g, v, w } = param;
        let (constraint, g) = (&*constraint, &**g);
        assert!(g.len() == w.len() && v.len() == w.len());
        let s = SgdConstants { lr: T::of(s.lr), momentum: T::of(s.momentum), decay: T::of(s.weight_decay) };
        self.for_items(5 * g.len(), w.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK)), |i, (w, v)| {
            self.arch.dispatch(SgdChunk { s, constraint, first: i * CHUNK, g, v, w });
        });
    }

    fn adam_param(&self, s: &AdamStep, param: &mut AdamParam<'_, Buf<T>>) {
        let AdamParam { constraint, g, m, v, w } = param;
        let (constraint, g) = (&*constraint, &**g);
        assert!(g.len() == w.len() && m.len() == w.len() && v.len() == w.len());
        let (step, root) = s.step_and_root();
        let s = AdamConstants {
            step: T::of_f64(step),
            root: T::of_f64(root),
            beta1: T::of(s.beta1),
            beta2: T::of(s.beta2),
            eps: T::of(s.eps),
            decay: T::of(s.weight_decay),
        };
        let chunks = w.chunks_mut(CHUNK).zip(m.chunks_mut(CHUNK)).zip(v.chunks_mut(CHUNK));
        self.for_items(7 * g.len(), chunks, |i, ((w, m), v)| {
            self.arch.dispatch(AdamChunk { s, constraint, first: i * CHUNK, g, m, v, w });
        });
    }
}

/// Calls `update(index, gradient with the penalty, weight, kept)` for every element of `w`, the chunk of a parameter that
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
