//! Element by element.

use super::real::relu;
use super::{Buf, Cpu, Real};
use crate::backend::Elementwise;

/// Elements one thread works on at a time.
const CHUNK: usize = 1 << 14;

impl<T: Real> Cpu<T> {
    /// `y[i] = f(a[i], b[i])`.
    pub(super) fn zip(&self, a: &Buf<T>, b: &Buf<T>, f: impl Fn(T, T) -> T + Sync) -> Buf<T> {
        assert_eq!(a.len(), b.len());
        let mut y = self.alloc(a.len());
        self.for_chunks(&mut y, CHUNK, |i, y| {
            let (a, b) = (&a[i * CHUNK..][..y.len()], &b[i * CHUNK..][..y.len()]);
            self.arch.dispatch(|| {
                for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                    *y = f(a, b);
                }
            });
        });
        y
    }
}

impl<T: Real> Elementwise for Cpu<T> {
    fn add(&self, a: &Buf<T>, b: &Buf<T>) -> Buf<T> {
        self.zip(a, b, |a, b| a + b)
    }

    fn axpy(&self, a: f32, x: &Buf<T>, y: &mut Buf<T>) {
        assert_eq!(x.len(), y.len());
        self.for_chunks(y, CHUNK, |i, y| {
            let x = &x[i * CHUNK..][..y.len()];
            self.arch.dispatch(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y += T::of(a) * x));
        });
    }

    fn scale_by(&self, s: &Buf<T>, x: &Buf<T>) -> Buf<T> {
        let mut y = self.buffer(x);
        y.iter_mut().for_each(|y| *y *= s[0]);
        y
    }

    fn relu_fwd(&self, x: &Buf<T>) -> Buf<T> {
        self.zip(x, x, |x, _| relu(x))
    }

    fn relu_bwd(&self, y: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.zip(y, dy, |y, dy| if y <= T::zero() { T::zero() } else { dy })
    }
}
