//! Parameter updates, in PyTorch's order of operations.

use super::{Buf, Cpu, Real};
use crate::backend::{AdamStep, Optim, SgdStep};

impl<T: Real> Optim for Cpu<T> {
    fn sgd_step(&self, s: &SgdStep, g: &Buf<T>, v: &mut Buf<T>, w: &mut Buf<T>) {
        assert!(g.len() == w.len() && v.len() == w.len());
        let (lr, momentum, decay) = (T::of(s.lr), T::of(s.momentum), T::of(s.weight_decay));
        for ((w, v), &g) in w.iter_mut().zip(v.iter_mut()).zip(g.iter()) {
            *v = momentum * *v + (g + decay * *w);
            *w -= lr * *v;
        }
    }

    fn adam_step(&self, s: &AdamStep, g: &Buf<T>, m: &mut Buf<T>, v: &mut Buf<T>, w: &mut Buf<T>) {
        assert!(g.len() == w.len() && m.len() == w.len() && v.len() == w.len());
        let (beta1, beta2, decay) = (T::of(s.beta1), T::of(s.beta2), T::of(s.weight_decay));
        // The corrections are powers close to 1: in f32 they would lose the digits that matter.
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(s.t as i32);
        let step = T::of_f64(f64::from(s.lr) / correction(s.beta1));
        let root = T::of_f64(correction(s.beta2).sqrt());
        let eps = T::of(s.eps);
        for (((w, m), v), &g) in w.iter_mut().zip(m.iter_mut()).zip(v.iter_mut()).zip(g.iter()) {
            let g = g + decay * *w;
            *m += (T::one() - beta1) * (g - *m);
            *v = beta2 * *v + (T::one() - beta2) * g * g;
            *w -= step * *m / (v.sqrt() / root + eps);
        }
    }
}
