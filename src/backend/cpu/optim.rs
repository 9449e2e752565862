//! Parameter updates, in PyTorch's order of operations.
//!
//! The loops are structs rather than closures, for the reason that [`super::elementwise`] gives.

use super::elementwise::CHUNK;
use super::{Buf, Cpu, Real, Work};
use crate::backend::{AdamParam, AdamStep, Constraint, Optim, SgdParam, SgdStep};

impl<T: Real> Optim for Cpu<T> {
    fn sgd_step(&self, s: &SgdStep, params: &mut [SgdParam<'_, Buf<T>>]) {
        params.iter_mut().for_each(|param| self.sgd_param(s, param));
    }

    fn adam_step(&self, s: &AdamStep, params: &mut [AdamParam<'_, Buf<T>>]) {
        params.iter_mut().for_each(|param| self.adam_param(s, param));
    }
}

/// Moments below this are zero. Where no gradient comes any more, a moment would decay to subnormal numbers and make the
/// weights subnormal, with which a core computes ten times as slowly. No update is so small that a weight would notice.
const NEGLIGIBLE: f32 = f32::from_bits(27 << 23);

/// `moment`, or zero if it is negligible; a NaN stays one.
#[inline(always)]
fn decayed<T: Real>(moment: T) -> T {
    if moment.abs() < T::of(NEGLIGIBLE) { T::zero() } else { moment }
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
                let velocity = decayed(momentum * v[i] + (g + decay * *w));
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
                let mean = decayed(m[i] + (T::one() - beta1) * (g - m[i]));
                let square = decayed(beta2 * v[i] + (T::one() - beta2) * g * g);
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
        self.for_items(Work::Elements(5 * g.len()), w.chunks_mut(CHUNK).zip(v.chunks_mut(CHUNK)), |i, (w, v)| {
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
        self.for_items(Work::Elements(7 * g.len()), chunks, |i, ((w, m), v)| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Memory;

    /// Without a gradient moments decay to zero, and neither they nor the weights, which began at zero, ever are subnormal.
    #[test]
    fn moments_end_at_zero_and_not_in_subnormal_numbers() {
        let cpu = Cpu::<f32>::new(1).unwrap();
        let sgd = SgdStep { lr: 1e-3, momentum: 0.9, weight_decay: 0.0 };
        let adam = |t| AdamStep { lr: 1e-3, beta1: 0.9, beta2: 0.9, eps: 1e-8, weight_decay: 0.0, t };
        let [mut v, mut m, mut squares, mut w, mut other] = [(); 5].map(|()| cpu.zeros(3));
        for t in 1..2000 {
            let g = cpu.upload(if t == 1 { &[1.0, -1e-3, 1e-20] } else { &[0.0; 3] });
            let constraint = || Constraint::Free;
            cpu.sgd_step(&sgd, &mut [SgdParam { constraint: constraint(), g: &g, v: &mut v, w: &mut w }]);
            let param = AdamParam { constraint: constraint(), g: &g, m: &mut m, v: &mut squares, w: &mut other };
            cpu.adam_step(&adam(t), &mut [param]);
            let all = [&v, &m, &squares, &w, &other].map(|buf| buf.to_vec()).concat();
            assert!(all.iter().all(|x| !x.is_subnormal()), "step {t}: {all:?}");
        }
        assert_eq!([&v, &m, &squares].map(|buf| buf.to_vec()).concat(), [0.0; 9]);
        assert!(w.iter().chain(other.iter()).all(|w| *w != 0.0), "the first step counts");
    }

    /// 2 to the power of -100.
    #[test]
    fn what_is_negligible_is_far_below_every_update() {
        assert_eq!(NEGLIGIBLE, 2f32.powi(-100));
        assert_eq!([decayed(NEGLIGIBLE), decayed(-NEGLIGIBLE / 2.0), decayed(-1.0)], [NEGLIGIBLE, 0.0, -1.0]);
        assert!(decayed(f32::NAN).is_nan());
    }
}
