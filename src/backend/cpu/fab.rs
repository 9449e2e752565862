//! The steps of the Fast Adaptive Boundary attack.

use pulp::{Simd, WithSimd};

use super::projection::{clamp, larger, smaller};
use super::samples::{Pixel, for_blocks, in_lanes};
use super::{Buf, Cpu, LANES, Real, lanes, lanes_mut};
use crate::backend::{Fab, FabStep};

/// More rounds than are ever needed but by rounding.
const MOST_ROUNDS: usize = 64;
/// Least length of a change, where two are compared.
const LEAST: f32 = 1e-8;

/// [`Fab::fab_step`] for one block.
struct Step<'a, T> {
    eta: T,
    alpha_max: T,
    values: Pixel<T>,
    clean: &'a [Pixel<T>],
    dx: &'a [Pixel<T>],
    x: &'a mut [Pixel<T>],
}

/// The smallest l-infinity change that brings a point `t` in [0, 1] onto a hyperplane with normal `w`, from which it is `value`
/// away: every pixel changes by `length` in its direction, or by its slack.
struct Projection<T> {
    /// 1 or -1: the sign of the value.
    sign: Pixel<T>,
    value: Pixel<T>,
    length: Pixel<T>,
}

impl<T: Real> Projection<T> {
    #[inline(always)]
    fn new(value: Pixel<T>) -> Self {
        let sign = value.map(|v| if v >= T::zero() { T::one() } else { -T::one() });
        Projection { sign, value: value.map(|v| v.abs()), length: [T::zero(); LANES] }
    }

    /// How far a pixel can go.
    #[inline(always)]
    fn slack(&self, l: usize, w: T, t: T) -> T {
        if w * self.sign[l] > T::zero() { t } else { T::one() - t }
    }

    /// By how much it goes.
    #[inline(always)]
    fn by(&self, l: usize, w: T, t: T) -> T {
        let by = smaller(self.length[l], self.slack(l, w, t));
        let signed = if w * self.sign[l] > T::zero() { -by } else { by };
        if w == T::zero() { T::zero() } else { signed }
    }

    /// One round of Newton's method for the length λ at which `Σ |w| min(λ, slack)` reaches the value. The sum is concave
    /// and piecewise linear in λ: from 0 each round goes up, and when the pixels that have slack left are the same as
    /// before, λ is the solution. Returns whether any image is not there yet.
    #[inline(always)]
    fn newton(&mut self, w: &[Pixel<T>], points: &[Pixel<T>]) -> bool {
        let zero = [T::zero(); LANES];
        // Of the pixels that are at their end, and of the others.
        let (mut full, mut slope) = (zero, zero);
        for (w, t) in w.iter().zip(points) {
            for l in 0..LANES {
                let (slack, weight) = (self.slack(l, w[l], t[l]), w[l].abs());
                let free = slack > self.length[l];
                full[l] += if free { T::zero() } else { weight * slack };
                slope[l] += if free { weight } else { T::zero() };
            }
        }
        let mut moved = false;
        for l in 0..LANES {
            let next = if slope[l] > T::zero() { (self.value[l] - full[l]) / slope[l] } else { self.length[l] };
            if next > self.length[l] {
                self.length[l] = next;
                moved = true;
            }
        }
        moved
    }

    /// Finds the length; returns how far the pixel goes that goes farthest, which is less if the hyperplane is out of
    /// reach.
    #[inline(always)]
    fn solve(&mut self, w: &[Pixel<T>], points: &[Pixel<T>]) -> Pixel<T> {
        for _ in 0..MOST_ROUNDS {
            if !self.newton(w, points) {
                break;
            }
        }
        let mut most = [LEAST; LANES].map(T::of);
        for (w, t) in w.iter().zip(points) {
            for l in 0..LANES {
                most[l] = larger(self.by(l, w[l], t[l]).abs(), most[l]);
            }
        }
        most
    }
}

impl<T: Real> WithSimd for Step<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // The linearised function at the clean image.
        let mut at_clean = self.values;
        for ((w, x), clean) in self.dx.iter().zip(self.x.iter()).zip(self.clean) {
            for l in 0..LANES {
                at_clean[l] += w[l] * (clean[l] - x[l]);
            }
        }
        let (mut own, mut other) = (Projection::new(self.values), Projection::new(at_clean));
        let (own_most, other_most) = (own.solve(self.dx, self.x), other.solve(self.dx, self.clean));
        let mut alpha = [T::zero(); LANES];
        for l in 0..LANES {
            alpha[l] = smaller(own_most[l] / (own_most[l] + other_most[l]), self.alpha_max);
        }
        for ((x, clean), w) in self.x.iter_mut().zip(self.clean).zip(self.dx) {
            for l in 0..LANES {
                let from_x = x[l] + self.eta * own.by(l, w[l], x[l]);
                let from_clean = clean[l] + self.eta * other.by(l, w[l], clean[l]);
                x[l] = clamp(from_x * (T::one() - alpha[l]) + from_clean * alpha[l]);
            }
        }
    }
}

/// [`Fab::interpolate`] for one block.
struct Interpolate<'a, T> {
    t: Pixel<T>,
    clean: &'a [Pixel<T>],
    x: &'a mut [Pixel<T>],
}

impl<T: Real> WithSimd for Interpolate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, clean) in self.x.iter_mut().zip(self.clean) {
            for l in 0..LANES {
                let y = clean[l] + self.t[l] * (x[l] - clean[l]);
                x[l] = if self.t[l] == T::one() { x[l] } else { y };
            }
        }
    }
}

impl<T: Real> Fab for Cpu<T> {
    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &Buf<T>, dx: &Buf<T>, x: &mut Buf<T>) {
        for_blocks(values, clean.len(), |values, at| {
            self.arch.dispatch(Step {
                eta: T::of(step.eta),
                alpha_max: T::of(step.alpha_max),
                values: in_lanes(values, T::zero(), |&v| T::of(v)),
                clean: lanes(&clean[at.clone()]),
                dx: lanes(&dx[at.clone()]),
                x: lanes_mut(&mut x[at]),
            });
        });
    }

    fn interpolate(&self, t: &[f32], clean: &Buf<T>, x: &mut Buf<T>) {
        for_blocks(t, clean.len(), |t, at| {
            let t = in_lanes(t, T::one(), |&t| T::of(t));
            let (clean, x) = (lanes(&clean[at.clone()]), lanes_mut(&mut x[at]));
            self.arch.dispatch(Interpolate { t, clean, x });
        });
    }
}
