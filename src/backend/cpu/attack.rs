//! The l-infinity attack's own steps.

use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lane_index, lanes, lanes_mut};
use crate::backend::{Attack, Counts};
use crate::rng::{Rng, unit_interval};

/// One step for one block of images.
struct SignStep<'a, T> {
    eps: T,
    step: T,
    clean: &'a [[T; LANES]],
    dx: &'a [[T; LANES]],
    x: &'a mut [[T; LANES]],
    zeros: &'a mut [u32; LANES],
}

impl<T: Real> pulp::WithSimd for SignStep<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let mut zeros = [0; LANES];
        for ((x, clean), dx) in self.x.iter_mut().zip(self.clean).zip(self.dx) {
            *x = T::sign_step(simd, *x, *dx, *clean, (self.eps, self.step), &mut zeros);
        }
        *self.zeros = zeros;
    }
}

impl<T: Real> Attack for Cpu<T> {
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &Buf<T>) -> Buf<T> {
        let mut x = self.buffer(clean);
        for sample in 0..n {
            let base = (first + sample as u64) * features as u64;
            let mut block = (u64::MAX, [0; 4]);
            for feature in 0..features {
                let element = base + feature as u64;
                if block.0 != element / 4 {
                    block = (element / 4, rng.block(element / 4));
                }
                let noise = T::of(eps * (2.0 * unit_interval(block.1[(element % 4) as usize]) - 1.0));
                let pixel = &mut x[lane_index(sample, feature, features)];
                *pixel = (*pixel + noise).max(T::zero()).min(T::one());
            }
        }
        x
    }

    fn pgd_step(&self, n: usize, eps: f32, step: f32, clean: &Buf<T>, dx: &Buf<T>, x: &mut Buf<T>, tally: &mut Counts) {
        self.count(Kernel::PgdStep);
        let len = x.len() / blocks(n);
        let mut zeros = 0;
        for (block, x) in x.chunks_exact_mut(len).enumerate() {
            let mut part = [0; LANES];
            self.arch.dispatch(SignStep {
                eps: T::of(eps),
                step: T::of(step),
                clean: lanes(&clean[block * len..][..len]),
                dx: lanes(&dx[block * len..][..len]),
                x: lanes_mut(x),
                zeros: &mut part,
            });
            let images = (n - block * LANES).min(LANES);
            zeros += part[..images].iter().map(|&z| u64::from(z)).sum::<u64>();
        }
        tally.gradients += (n * len / LANES) as u64;
        tally.zero_gradients += zeros;
    }
}
