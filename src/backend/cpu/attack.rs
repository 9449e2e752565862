//! The l-infinity attack's own steps.

use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lane_index};
use crate::backend::{Attack, Counts};
use crate::rng::{Rng, unit_interval};

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
        let (eps, step, zero, one) = (T::of(eps), T::of(step), T::zero(), T::one());
        let len = x.len() / blocks(n);
        let mut zeros = [0u32; LANES];
        for (block, x) in x.chunks_exact_mut(len).enumerate() {
            let (clean, dx) = (&clean[block * len..][..len], &dx[block * len..][..len]);
            let mut part = [0u32; LANES];
            self.arch.dispatch(|| {
                let pixels = x.as_chunks_mut::<LANES>().0.iter_mut();
                for ((x, clean), g) in pixels.zip(clean.as_chunks::<LANES>().0).zip(dx.as_chunks::<LANES>().0) {
                    for l in 0..LANES {
                        let up = if g[l] > zero { step } else { zero };
                        let down = if g[l] < zero { step } else { zero };
                        let moved = x[l] + (up - down);
                        let projected = moved.max(clean[l] - eps).min(clean[l] + eps);
                        x[l] = projected.max(zero).min(one);
                        part[l] += u32::from(g[l] == zero);
                    }
                }
            });
            let images = (n - block * LANES).min(LANES);
            zeros[..images].iter_mut().zip(part).for_each(|(z, p)| *z += p);
        }
        tally.gradients += (n * len / LANES) as u64;
        tally.zero_gradients += zeros.iter().map(|&z| u64::from(z)).sum::<u64>();
    }
}
