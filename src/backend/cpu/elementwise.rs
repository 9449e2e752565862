//! Element by element.
//!
//! What `dispatch` is given carries `#[inline(always)]`: the vector instructions are a property of the function that
//! `dispatch` calls, and only what is inlined into it gets them.

use super::real::relu;
use super::{Buf, Cpu, Real};
use crate::backend::Elementwise;

/// Elements one thread works on at a time.
pub(super) const CHUNK: usize = 1 << 14;

impl<T: Real> Cpu<T> {
    /// `y[i] = f(a[i], b[i])`.
    pub(super) fn zip(&self, a: &Buf<T>, b: &Buf<T>, f: impl Fn(T, T) -> T + Sync) -> Buf<T> {
        assert_eq!(a.len(), b.len());
        let mut y = self.alloc(a.len());
        self.for_parts(3 * a.len(), y.chunks_mut(CHUNK), |i, y| {
            let (a, b) = (&a[i * CHUNK..][..y.len()], &b[i * CHUNK..][..y.len()]);
            self.arch.dispatch(
                #[inline(always)]
                || {
                    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                        *y = f(a, b);
                    }
                },
            );
        });
        y
    }

    /// `f(&mut y[i], x[i])`.
    fn zip_mut(&self, x: &[T], y: &mut [T], f: impl Fn(&mut T, T) + Sync) {
        assert_eq!(x.len(), y.len());
        self.for_parts(3 * x.len(), y.chunks_mut(CHUNK), |i, y| {
            let x = &x[i * CHUNK..][..y.len()];
            self.arch.dispatch(
                #[inline(always)]
                || {
                    for (y, &x) in y.iter_mut().zip(x) {
                        f(y, x);
                    }
                },
            );
        });
    }
}

impl<T: Real> Elementwise for Cpu<T> {
    fn add(&self, a: &Buf<T>, b: &Buf<T>) -> Buf<T> {
        self.zip(a, b, |a, b| a + b)
    }

    fn axpy(&self, a: f32, x: &Buf<T>, y: &mut Buf<T>) {
        self.zip_mut(x, y, |y, x| *y += T::of(a) * x);
    }

    fn scale_by(&self, s: &Buf<T>, x: &Buf<T>) -> Buf<T> {
        let (s, mut y) = (s[0], self.alloc(x.len()));
        self.zip_mut(x, &mut y, |y, x| *y = x * s);
        y
    }

    fn relu_fwd(&self, x: &Buf<T>) -> Buf<T> {
        let mut y = self.alloc(x.len());
        self.zip_mut(x, &mut y, |y, x| *y = relu(x));
        y
    }

    fn relu_bwd(&self, y: &Buf<T>, dy: &Buf<T>) -> Buf<T> {
        self.zip(y, dy, |y, dy| if y <= T::zero() { T::zero() } else { dy })
    }
}
