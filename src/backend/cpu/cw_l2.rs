//! The change of variables of Carlini & Wagner's l2 attack.

use super::{Buf, Cpu, Real};
use crate::backend::{AdamParam, AdamStep, Constraint, CwL2, Optim};

impl<T: Real> CwL2 for Cpu<T> {
    fn tanh_space(&self, x: &Buf<T>) -> Buf<T> {
        let (one, two, inside) = (T::one(), T::of(2.0), T::of_f64(0.999_999));
        self.zip(x, x, |x, _| ((x * two - one) * inside).atanh())
    }

    fn tanh_image(&self, w: &Buf<T>) -> Buf<T> {
        self.zip(w, w, |w, _| (w.tanh() + T::one()) * T::of(0.5))
    }

    fn adam_step_batch(&self, s: &AdamStep, g: &Buf<T>, m: &mut Buf<T>, v: &mut Buf<T>, w: &mut Buf<T>) {
        self.adam_step(s, &mut [AdamParam { constraint: Constraint::Free, g, m, v, w }]);
    }

    fn tanh_image_bwd(&self, clean: &Buf<T>, x: &Buf<T>, dx: &Buf<T>) -> Buf<T> {
        let two = T::of(2.0);
        let mut y = self.zip(x, clean, |x, clean| two * (x - clean));
        y.iter_mut().zip(x.iter().zip(dx.iter())).for_each(|(y, (&x, &dx))| *y = two * x * (T::one() - x) * (*y + dx));
        y
    }
}
