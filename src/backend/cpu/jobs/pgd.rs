//! Projected gradient descent, for one block of images.

use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::Element;
use crate::backend::cpu::projection::signed_step;
use crate::base::rng::Rng;

/// The random start.
pub struct RandomStart<'a, T> {
    pub rng: &'a Rng,
    /// Position of the block's first image among the random numbers.
    pub first: u64,
    pub images: usize,
    pub eps: f32,
    pub x: &'a mut [[T; LANES]],
}

impl<T: Element> RandomStart<'_, T> {
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

/// One step of the attack.
pub struct PgdStep<'a, T> {
    pub eps: T,
    pub step: T,
    pub clean: &'a [[T; LANES]],
    pub dx: &'a [[T; LANES]],
    pub x: &'a mut [[T; LANES]],
}

impl<T: Element> PgdStep<'_, T> {
    /// The definition, pixel by pixel. Returns how many elements of the gradient were zero, per lane.
    pub fn plain(self) -> [u32; LANES] {
        let (zero, one) = (T::zero(), T::one());
        let mut zeros = [0; LANES];
        for ((x, clean), g) in self.x.iter_mut().zip(self.clean).zip(self.dx) {
            for l in 0..LANES {
                zeros[l] += u32::from(g[l] == zero);
                let ball = (x[l] + signed_step(self.step, g[l])).max(clean[l] - self.eps).min(clean[l] + self.eps);
                x[l] = ball.max(zero).min(one);
            }
        }
        zeros
    }
}
