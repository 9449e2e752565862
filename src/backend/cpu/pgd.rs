//! Projected gradient descent.

use super::jobs::{PgdStep, RandomStart};
use super::{Buf, Cpu, Kernel, LANES, Real, Work, blocks, lanes, lanes_mut};
use crate::backend::{Metrics, Pgd};
use crate::base::rng::Rng;

impl<T: Real> Pgd for Cpu<T> {
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &Buf<T>) -> Buf<T> {
        let mut x = self.buffer(clean);
        self.for_chunks(Work::Elements(2 * clean.len()), &mut x, features * LANES, |block, x| {
            let first = first + (block * LANES) as u64;
            let images = (n - block * LANES).min(LANES);
            T::random_start(self.arch, RandomStart { rng, first, images, eps, x: lanes_mut(x) });
        });
        x
    }

    fn pgd_step(
        &self,
        n: usize,
        eps: f32,
        step: f32,
        clean: &Buf<T>,
        dx: &Buf<T>,
        x: &mut Buf<T>,
        metrics: &mut Metrics,
    ) {
        self.count(Kernel::PgdStep);
        let len = x.len() / blocks(n);
        let mut zeros = 0;
        for (block, x) in x.chunks_exact_mut(len).enumerate() {
            let job = PgdStep {
                eps: T::of(eps),
                step: T::of(step),
                clean: lanes(&clean[block * len..][..len]),
                dx: lanes(&dx[block * len..][..len]),
                x: lanes_mut(x),
            };
            let in_lanes = T::pgd_step(self.arch, job);
            let images = (n - block * LANES).min(LANES);
            zeros += in_lanes[..images].iter().map(|&z| u64::from(z)).sum::<u64>();
        }
        metrics.gradients += (n * len / LANES) as u64;
        metrics.zero_gradients += zeros;
    }
}
