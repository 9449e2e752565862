//! Parameter updates, in PyTorch's order of operations.

use super::{Buf, Cpu, Real};
use crate::backend::{AdamStep, Constraint, Optim, SgdStep};

impl<T: Real> Optim for Cpu<T> {
    fn sgd_step(&self, s: &SgdStep, c: Constraint<'_, Buf<T>>, g: &Buf<T>, v: &mut Buf<T>, w: &mut Buf<T>) {
        assert!(g.len() == w.len() && v.len() == w.len());
        let (lr, momentum, decay) = (T::of(s.lr), T::of(s.momentum), T::of(s.weight_decay));
        let update = |g: T, v: &mut T, w: &mut T| {
            *v = momentum * *v + (g + decay * *w);
            *w -= lr * *v;
        };
        for_each(c, g, w, |i, g, w, keep| {
            update(g, &mut v[i], w);
            if !keep {
                (v[i], *w) = (T::zero(), T::zero());
            }
        });
    }

    fn adam_step(
        &self,
        s: &AdamStep,
        c: Constraint<'_, Buf<T>>,
        g: &Buf<T>,
        m: &mut Buf<T>,
        v: &mut Buf<T>,
        w: &mut Buf<T>,
    ) {
        assert!(g.len() == w.len() && m.len() == w.len() && v.len() == w.len());
        let (beta1, beta2, decay) = (T::of(s.beta1), T::of(s.beta2), T::of(s.weight_decay));
        // The corrections are powers close to 1: in f32 they would lose the digits that matter.
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(s.t as i32);
        let step = T::of_f64(f64::from(s.lr) / correction(s.beta1));
        let root = T::of_f64(correction(s.beta2).sqrt());
        let eps = T::of(s.eps);
        for_each(c, g, w, |i, g, w, keep| {
            let g = g + decay * *w;
            let mean = m[i];
            m[i] = mean + (T::one() - beta1) * (g - mean);
            v[i] = beta2 * v[i] + (T::one() - beta2) * g * g;
            *w -= step * m[i] / (v[i].sqrt() / root + eps);
            if !keep {
                (m[i], v[i], *w) = (T::zero(), T::zero(), T::zero());
            }
        });
    }
}

/// Calls `update(index, gradient with the penalty, weight, kept)` for every element.
fn for_each<T: Real>(
    c: Constraint<'_, Buf<T>>,
    g: &Buf<T>,
    w: &mut Buf<T>,
    mut update: impl FnMut(usize, T, &mut T, bool),
) {
    let weights = g.iter().zip(w.iter_mut()).enumerate();
    match c {
        Constraint::Free => weights.for_each(|(i, (&g, w))| update(i, g, w, true)),
        Constraint::Mask(mask) => {
            assert!(mask.len() == g.len());
            weights.for_each(|(i, (&g, w))| update(i, g, w, mask[i] != T::zero()));
        }
        Constraint::Penalty { rho, z, u } => {
            assert!(z.len() == g.len() && u.len() == g.len());
            let rho = T::of(rho);
            weights.for_each(|(i, (&g, w))| update(i, g + rho * (*w - z[i] + u[i]), w, true));
        }
    }
}
