//! Element by element.

use super::layout::element::{activate, activation_gradient};
use super::{Buf, Cpu, Real, Work};
use crate::backend::{Activated, Activation, Elementwise};

/// Elements one thread works on at a time.
pub(super) const CHUNK: usize = 1 << 14;

/// `y[i] = f(a[i], b[i])`. A struct, not a closure that loops: of a closure it is not certain that it is inlined into
/// the function that has the vector instructions, or that the compiler knows that `y` overlaps nothing.
struct Zip<'a, T, F> {
    a: &'a [T],
    b: &'a [T],
    y: &'a mut [T],
    f: F,
}

impl<T: Real, F: Fn(T, T) -> T> pulp::WithSimd for Zip<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for ((y, &a), &b) in self.y.iter_mut().zip(self.a).zip(self.b) {
            *y = (self.f)(a, b);
        }
    }
}

/// `f(x[i], &mut y[i])`.
struct Update<'a, T, F> {
    x: &'a [T],
    y: &'a mut [T],
    f: F,
}

impl<T: Real, F: Fn(T, &mut T)> pulp::WithSimd for Update<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (&x, y) in self.x.iter().zip(self.y) {
            (self.f)(x, y);
        }
    }
}

impl<T: Real> Cpu<T> {
    /// `y[i] = f(a[i], b[i])`.
    pub(super) fn zip(&self, a: &Buf<T>, b: &Buf<T>, f: impl Fn(T, T) -> T + Copy + Sync) -> Buf<T> {
        assert_eq!(a.len(), b.len());
        let mut y = self.alloc(a.len());
        self.for_items(Work::Elements(3 * a.len()), y.chunks_mut(CHUNK), |i, y| {
            let (a, b) = (&a[i * CHUNK..][..y.len()], &b[i * CHUNK..][..y.len()]);
            self.arch.dispatch(Zip { a, b, y, f });
        });
        y
    }

    /// `f(x[i], &mut y[i])`.
    fn update(&self, x: &[T], y: &mut [T], f: impl Fn(T, &mut T) + Copy + Sync) {
        assert_eq!(x.len(), y.len());
        self.for_items(Work::Elements(3 * x.len()), y.chunks_mut(CHUNK), |i, y| {
            self.arch.dispatch(Update { x: &x[i * CHUNK..][..y.len()], y, f });
        });
    }
}

impl<T: Real> Elementwise for Cpu<T> {
    fn add(&self, a: &Buf<T>, b: &Buf<T>) -> Buf<T> {
        self.zip(a, b, |a, b| a + b)
    }

    fn add_assign(&self, x: &Buf<T>, y: &mut Buf<T>) {
        self.update(x, y, |x, y| *y += x);
    }

    fn add_assign_param(&self, x: &Buf<T>, y: &mut Buf<T>) {
        self.add_assign(x, y);
    }

    fn activation_fwd(&self, activation: Activation, x: &Buf<T>) -> Buf<T> {
        let mut y = self.alloc(x.len());
        self.update(x, &mut y, move |x, y| *y = activate(activation, x));
        y
    }

    fn activation_bwd(&self, Activated { activation, y }: Activated<'_, Buf<T>>, dy: &Buf<T>) -> Buf<T> {
        self.zip(y, dy, move |y, dy| activation_gradient(activation, y, dy))
    }
}
