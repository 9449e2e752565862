//! The l-infinity attack's own steps.

use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{Counts, Pgd};
use crate::base::rng::Rng;

/// The random start of one block of images.
pub struct RandomStart<'a, T> {
    pub rng: &'a Rng,
    /// Position of the block's first image among the random numbers.
    pub first: u64,
    pub images: usize,
    pub eps: f32,
    pub x: &'a mut [[T; LANES]],
}

impl<T: Real> RandomStart<'_, T> {
    /// The definition, pixel by pixel.
    pub fn plain(self) {
        let features = self.x.len() as u64;
        for l in 0..self.images {
            let base = (self.first + l as u64) * features;
            for (feature, x) in self.x.iter_mut().enumerate() {
                let noise = self.eps * (2.0 * self.rng.uniform_at(base + feature as u64) - 1.0);
                x[l] = (x[l] + T::of(noise)).max(T::zero()).min(T::one());
            }
        }
    }
}

/// One step for one block of images.
pub struct SignStep<'a, T> {
    pub eps: T,
    pub step: T,
    pub clean: &'a [[T; LANES]],
    pub dx: &'a [[T; LANES]],
    pub x: &'a mut [[T; LANES]],
}

impl<T: Real> SignStep<'_, T> {
    /// The definition, pixel by pixel. Returns how many elements of the gradient were zero, per lane.
    pub fn plain(self) -> [u32; LANES] {
        let (zero, one) = (T::zero(), T::one());
        let mut zeros = [0; LANES];
        for ((x, clean), g) in self.x.iter_mut().zip(self.clean).zip(self.dx) {
            for l in 0..LANES {
                let rising = if g[l] > zero { self.step } else { zero };
                let direction = if g[l] < zero { -self.step } else { rising };
                zeros[l] += u32::from(g[l] == zero);
                let ball = (x[l] + direction).max(clean[l] - self.eps).min(clean[l] + self.eps);
                x[l] = ball.max(zero).min(one);
            }
        }
        zeros
    }
}

impl<T: Real> Pgd for Cpu<T> {
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &Buf<T>) -> Buf<T> {
        let mut x = self.buffer(clean);
        self.for_chunks(&mut x, features * LANES, |block, x| {
            let first = first + (block * LANES) as u64;
            let images = (n - block * LANES).min(LANES);
            T::random_start(self.arch, RandomStart { rng, first, images, eps, x: lanes_mut(x) });
        });
        x
    }

    fn pgd_step(&self, n: usize, eps: f32, step: f32, clean: &Buf<T>, dx: &Buf<T>, x: &mut Buf<T>, tally: &mut Counts) {
        self.count(Kernel::PgdStep);
        let len = x.len() / blocks(n);
        let mut zeros = 0;
        for (block, x) in x.chunks_exact_mut(len).enumerate() {
            let part = T::sign_step(
                self.arch,
                SignStep {
                    eps: T::of(eps),
                    step: T::of(step),
                    clean: lanes(&clean[block * len..][..len]),
                    dx: lanes(&dx[block * len..][..len]),
                    x: lanes_mut(x),
                },
            );
            let images = (n - block * LANES).min(LANES);
            zeros += part[..images].iter().map(|&z| u64::from(z)).sum::<u64>();
        }
        tally.gradients += (n * len / LANES) as u64;
        tally.zero_gradients += zeros;
    }
}
