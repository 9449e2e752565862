//! The step of Auto-PGD.

use std::slice;

use pulp::{Simd, WithSimd};

use super::projection::{project, signed_step};
use super::samples::{Chosen, Pixel, for_blocks, in_lanes};
use super::{Buf, Cpu, LANES, Real, lanes, lanes_mut};
use crate::backend::{Apgd, ApgdPoints, ApgdStep};

/// [`Apgd::apgd_step`] for one block.
struct Step<'a, T> {
    eps: T,
    momentum: T,
    step_sizes: Pixel<T>,
    improved: Chosen<T>,
    restart: Chosen<T>,
    clean: &'a [Pixel<T>],
    dx: &'a [Pixel<T>],
    x: &'a mut [Pixel<T>],
    previous: &'a mut [Pixel<T>],
    best: &'a mut [Pixel<T>],
    best_dx: &'a mut [Pixel<T>],
}

impl<T: Real> WithSimd for Step<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Step { eps, momentum, step_sizes, improved, restart, .. } = self;
        if improved.any() {
            improved.copy(simd, self.x, self.best);
            improved.copy(simd, self.dx, self.best_dx);
        }
        let restarts = restart.any();
        if restarts {
            restart.copy(simd, self.best, self.x);
        }
        let rest = T::one() - momentum;
        let pixels = self.x.iter_mut().zip(self.previous).zip(self.clean.iter().zip(self.dx));
        for (((x, previous), (clean, dx)), best_dx) in pixels.zip(self.best_dx.iter()) {
            let (from, mut dx) = (*x, *dx);
            if restarts {
                restart.copy(simd, slice::from_ref(best_dx), slice::from_mut(&mut dx));
            }
            for l in 0..LANES {
                let z = project(from[l] + signed_step(step_sizes[l], dx[l]), clean[l], eps);
                let y = from[l] + (z - from[l]) * momentum + (from[l] - previous[l]) * rest;
                x[l] = project(y, clean[l], eps);
                previous[l] = from[l];
            }
        }
    }
}

impl<T: Real> Apgd for Cpu<T> {
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        steps: &[ApgdStep],
        clean: &Buf<T>,
        dx: &Buf<T>,
        points: ApgdPoints<'_, Buf<T>>,
    ) {
        for_blocks(steps, clean.len(), |steps, at| {
            self.arch.dispatch(Step {
                eps: T::of(eps),
                momentum: T::of(momentum),
                step_sizes: in_lanes(steps, T::zero(), |s| T::of(s.step_size)),
                improved: Chosen::new(steps, |s| s.improved != 0),
                restart: Chosen::new(steps, |s| s.restart != 0),
                clean: lanes(&clean[at.clone()]),
                dx: lanes(&dx[at.clone()]),
                x: lanes_mut(&mut points.x[at.clone()]),
                previous: lanes_mut(&mut points.previous[at.clone()]),
                best: lanes_mut(&mut points.best[at.clone()]),
                best_dx: lanes_mut(&mut points.best_dx[at]),
            });
        });
    }
}
