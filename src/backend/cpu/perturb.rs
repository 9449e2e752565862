//! Moves of the attacks beyond PGD. Each is a loop over the pixels of one block of images, compiled for the vector
//! instructions in use: all that differs between the images of a block is in arrays of [`LANES`].

use std::slice;

use pulp::{Simd, WithSimd};

use super::{Buf, Cpu, LANES, Real, lane_index, lanes, lanes_mut};
use crate::backend::{
    AdamParam, AdamStep, ApgdMove, ApgdPoints, Constraint, Distance, FabStep, Optim, Perturb, Window,
};

/// A pixel of every image of a block.
type Pixel<T> = [T; LANES];

#[inline(always)]
fn larger<T: Real>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller<T: Real>(a: T, b: T) -> T {
    if a < b { a } else { b }
}

/// `x` in the eps-ball around `clean` and in [0, 1].
#[inline(always)]
fn project<T: Real>(x: T, clean: T, eps: T) -> T {
    let ball = smaller(larger(x, clean - eps), clean + eps);
    smaller(larger(ball, T::zero()), T::one())
}

/// One value an image of a block, `fill` in lanes without an image.
fn in_lanes<S, T: Copy>(values: &[S], fill: T, of: impl Fn(&S) -> T) -> Pixel<T> {
    let mut lanes = [fill; LANES];
    lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane = of(value));
    lanes
}

/// Some lanes of a block: all bits of these are 1, all others 0.
struct Chosen<T>(Pixel<T>);

impl<T: Real> Chosen<T> {
    fn new<S>(values: &[S], of: impl Fn(&S) -> bool) -> Self {
        let mut lanes = [T::zero(); LANES];
        for (lane, _) in lanes.iter_mut().zip(values).filter(|(_, value)| of(value)) {
            bytemuck::bytes_of_mut(lane).fill(255);
        }
        Chosen(lanes)
    }

    fn any(&self) -> bool {
        bytemuck::bytes_of(&self.0).contains(&255)
    }

    /// `to = from` in these lanes. With masks in registers, because of conditions that are the same at every pixel the
    /// compiler makes branches, or gathers.
    #[inline(always)]
    fn copy<S: Simd>(&self, simd: S, from: &[Pixel<T>], to: &mut [Pixel<T>]) {
        let (mask, _) = S::as_simd_u32s(bytemuck::cast_slice(&self.0));
        let (from, _) = S::as_simd_u32s(bytemuck::cast_slice(from));
        let (to, _) = S::as_mut_simd_u32s(bytemuck::cast_slice_mut(to));
        for (to, from) in to.chunks_exact_mut(mask.len()).zip(from.chunks_exact(mask.len())) {
            for ((to, from), mask) in to.iter_mut().zip(from).zip(mask) {
                *to = simd.xor_u32s(*to, simd.and_u32s(simd.xor_u32s(*to, *from), *mask));
            }
        }
    }
}

/// [`Perturb::apgd_step`] for one block.
struct ApgdStep<'a, T> {
    eps: T,
    momentum: T,
    steps: Pixel<T>,
    improved: Chosen<T>,
    restart: Chosen<T>,
    clean: &'a [Pixel<T>],
    dx: &'a [Pixel<T>],
    x: &'a mut [Pixel<T>],
    previous: &'a mut [Pixel<T>],
    best: &'a mut [Pixel<T>],
    best_dx: &'a mut [Pixel<T>],
}

impl<T: Real> WithSimd for ApgdStep<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ApgdStep { eps, momentum, steps, improved, restart, .. } = self;
        if improved.any() {
            improved.copy(simd, self.x, self.best);
            improved.copy(simd, self.dx, self.best_dx);
        }
        let restarts = restart.any();
        if restarts {
            restart.copy(simd, self.best, self.x);
        }
        let (zero, rest) = (T::zero(), T::one() - momentum);
        let pixels = self.x.iter_mut().zip(self.previous).zip(self.clean.iter().zip(self.dx));
        for (((x, previous), (clean, dx)), best_dx) in pixels.zip(self.best_dx.iter()) {
            let (from, mut dx) = (*x, *dx);
            if restarts {
                restart.copy(simd, slice::from_ref(best_dx), slice::from_mut(&mut dx));
            }
            for l in 0..LANES {
                let rising = if dx[l] > zero { steps[l] } else { zero };
                let direction = if dx[l] < zero { -steps[l] } else { rising };
                let z = project(from[l] + direction, clean[l], eps);
                let y = from[l] + (z - from[l]) * momentum + (from[l] - previous[l]) * rest;
                x[l] = project(y, clean[l], eps);
                previous[l] = from[l];
            }
        }
    }
}

/// [`Perturb::fab_step`] for one block.
struct Fab<'a, T> {
    eta: T,
    alpha_max: T,
    values: Pixel<T>,
    clean: &'a [Pixel<T>],
    dx: &'a [Pixel<T>],
    x: &'a mut [Pixel<T>],
}

/// The smallest l-infinity move of a point `t` in [0, 1] onto a hyperplane with normal `w`, from which it is `value`
/// away: every pixel moves by `length` in its direction, or as far as it has room.
struct Move<T> {
    /// 1 or -1: the sign of the value.
    sign: Pixel<T>,
    value: Pixel<T>,
    length: Pixel<T>,
}

impl<T: Real> Move<T> {
    #[inline(always)]
    fn new(value: Pixel<T>) -> Self {
        let sign = value.map(|v| if v >= T::zero() { T::one() } else { -T::one() });
        Move { sign, value: value.map(|v| v.abs()), length: [T::zero(); LANES] }
    }

    /// How far a pixel can go.
    #[inline(always)]
    fn room(&self, l: usize, w: T, t: T) -> T {
        if w * self.sign[l] > T::zero() { t } else { T::one() - t }
    }

    /// By how much it goes.
    #[inline(always)]
    fn by(&self, l: usize, w: T, t: T) -> T {
        let by = smaller(self.length[l], self.room(l, w, t));
        let signed = if w * self.sign[l] > T::zero() { -by } else { by };
        if w == T::zero() { T::zero() } else { signed }
    }

    /// One round of Newton's method for the length λ at which `Σ |w| min(λ, room)` reaches the value. The sum is concave
    /// and piecewise linear in λ: from 0 each round goes up, and when the pixels that have room left are the same as
    /// before, λ is the solution. Returns whether any image is not there yet.
    #[inline(always)]
    fn newton(&mut self, w: &[Pixel<T>], points: &[Pixel<T>]) -> bool {
        let zero = [T::zero(); LANES];
        // Of the pixels that are at their end, and of the others.
        let (mut full, mut slope) = (zero, zero);
        for (w, t) in w.iter().zip(points) {
            for l in 0..LANES {
                let (room, weight) = (self.room(l, w[l], t[l]), w[l].abs());
                let free = room > self.length[l];
                full[l] += if free { T::zero() } else { weight * room };
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

/// More rounds than are ever needed but by rounding.
const MOST_ROUNDS: usize = 64;
/// Least length of a move, where two are compared.
const LEAST: f32 = 1e-8;

impl<T: Real> WithSimd for Fab<'_, T> {
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
        let (mut own, mut other) = (Move::new(self.values), Move::new(at_clean));
        let (own_most, other_most) = (own.solve(self.dx, self.x), other.solve(self.dx, self.clean));
        let mut alpha = [T::zero(); LANES];
        for l in 0..LANES {
            alpha[l] = smaller(own_most[l] / (own_most[l] + other_most[l]), self.alpha_max);
        }
        for ((x, clean), w) in self.x.iter_mut().zip(self.clean).zip(self.dx) {
            for l in 0..LANES {
                let from_x = x[l] + self.eta * own.by(l, w[l], x[l]);
                let from_clean = clean[l] + self.eta * other.by(l, w[l], clean[l]);
                let y = from_x * (T::one() - alpha[l]) + from_clean * alpha[l];
                x[l] = smaller(larger(y, T::zero()), T::one());
            }
        }
    }
}

/// [`Perturb::copy_samples`] for one block.
struct CopySamples<'a, T> {
    chosen: Chosen<T>,
    from: &'a [Pixel<T>],
    to: &'a mut [Pixel<T>],
}

impl<T: Real> WithSimd for CopySamples<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.chosen.copy(simd, self.from, self.to);
    }
}

/// [`Perturb::towards`] for one block.
struct Towards<'a, T> {
    t: Pixel<T>,
    clean: &'a [Pixel<T>],
    x: &'a mut [Pixel<T>],
}

impl<T: Real> WithSimd for Towards<'_, T> {
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

/// Largest absolute value and sum of squares of `a - b`, per lane.
struct Distances<'a, T> {
    a: &'a [Pixel<T>],
    b: &'a [Pixel<T>],
}

impl<T: Real> WithSimd for Distances<'_, T> {
    type Output = (Pixel<T>, Pixel<f64>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (Pixel<T>, Pixel<f64>) {
        let (mut largest, mut squares) = ([T::zero(); LANES], [0.0; LANES]);
        for (a, b) in self.a.iter().zip(self.b) {
            for l in 0..LANES {
                let difference = (a[l] - b[l]).abs();
                // NaN counts as the largest: no number is larger than it.
                let larger = difference > largest[l] || difference.is_nan();
                largest[l] = if larger { difference } else { largest[l] };
                squares[l] += difference.as_f64() * difference.as_f64();
            }
        }
        (largest, squares)
    }
}

/// Calls `f` for every block of a batch with as many images as `values` has elements: their elements, and the range of
/// the block's pixels.
fn for_blocks<V>(values: &[V], len: usize, mut f: impl FnMut(&[V], std::ops::Range<usize>)) {
    let block = len / values.len().div_ceil(LANES);
    for (b, values) in values.chunks(LANES).enumerate() {
        f(values, b * block..(b + 1) * block);
    }
}

impl<T: Real> Perturb for Cpu<T> {
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        moves: &[ApgdMove],
        clean: &Buf<T>,
        dx: &Buf<T>,
        points: ApgdPoints<'_, Buf<T>>,
    ) {
        for_blocks(moves, clean.len(), |moves, at| {
            self.arch.dispatch(ApgdStep {
                eps: T::of(eps),
                momentum: T::of(momentum),
                steps: in_lanes(moves, T::zero(), |m| T::of(m.step)),
                improved: Chosen::new(moves, |m| m.improved != 0),
                restart: Chosen::new(moves, |m| m.restart != 0),
                clean: lanes(&clean[at.clone()]),
                dx: lanes(&dx[at.clone()]),
                x: lanes_mut(&mut points.x[at.clone()]),
                previous: lanes_mut(&mut points.previous[at.clone()]),
                best: lanes_mut(&mut points.best[at.clone()]),
                best_dx: lanes_mut(&mut points.best_dx[at]),
            });
        });
    }

    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &Buf<T>, dx: &Buf<T>, x: &mut Buf<T>) {
        for_blocks(values, clean.len(), |values, at| {
            self.arch.dispatch(Fab {
                eta: T::of(step.eta),
                alpha_max: T::of(step.alpha_max),
                values: in_lanes(values, T::zero(), |&v| T::of(v)),
                clean: lanes(&clean[at.clone()]),
                dx: lanes(&dx[at.clone()]),
                x: lanes_mut(&mut x[at]),
            });
        });
    }

    fn windows(&self, shape: [usize; 3], eps: f32, windows: &[Window], clean: &Buf<T>, x: &Buf<T>) -> Buf<T> {
        let [c, h, w] = shape;
        let (mut y, eps, features) = (self.buffer(x), T::of(eps), c * h * w);
        for (sample, window) in windows.iter().enumerate() {
            let [top, left, side] = [window.top, window.left, window.side].map(|v| v as usize);
            for channel in 0..c {
                let delta = if window.up >> channel & 1 == 1 { eps } else { -eps };
                for row in top..top + side {
                    for column in left..left + side {
                        let at = lane_index(sample, (channel * h + row) * w + column, features);
                        y[at] = smaller(larger(clean[at] + delta, T::zero()), T::one());
                    }
                }
            }
        }
        y
    }

    fn copy_samples(&self, chosen: &[bool], from: &Buf<T>, to: &mut Buf<T>) {
        for_blocks(chosen, from.len(), |chosen, at| {
            if chosen.contains(&true) {
                let (from, to) = (lanes(&from[at.clone()]), lanes_mut(&mut to[at]));
                self.arch.dispatch(CopySamples { chosen: Chosen::new(chosen, |&c| c), from, to });
            }
        });
    }

    fn towards(&self, t: &[f32], clean: &Buf<T>, x: &mut Buf<T>) {
        for_blocks(t, clean.len(), |t, at| {
            let t = in_lanes(t, T::one(), |&t| T::of(t));
            let (clean, x) = (lanes(&clean[at.clone()]), lanes_mut(&mut x[at]));
            self.arch.dispatch(Towards { t, clean, x });
        });
    }

    fn distances(&self, n: usize, distance: Distance, a: &Buf<T>, b: &Buf<T>) -> Vec<f64> {
        let mut distances = Vec::with_capacity(n);
        for_blocks(&vec![(); n], a.len(), |images, at| {
            let (largest, squares) = self.arch.dispatch(Distances { a: lanes(&a[at.clone()]), b: lanes(&b[at]) });
            distances.extend((0..images.len()).map(|l| match distance {
                Distance::LInf => largest[l].as_f64(),
                Distance::L2 => squares[l].sqrt(),
            }));
        });
        distances
    }

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
