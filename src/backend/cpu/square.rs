//! The proposals of the Square attack.

use super::projection::clamp;
use super::{Buf, Cpu, Real, lane_index};
use crate::backend::{Square, SquareUpdate};

impl<T: Real> Square for Cpu<T> {
    fn square_update(
        &self,
        shape: [usize; 3],
        eps: f32,
        updates: &[SquareUpdate],
        clean: &Buf<T>,
        x: &Buf<T>,
    ) -> Buf<T> {
        let [c, h, w] = shape;
        let (mut y, eps, features) = (self.buffer(x), T::of(eps), c * h * w);
        let pixels = &mut y[..];
        for (sample, update) in updates.iter().enumerate() {
            let [top, left, side] = [update.top, update.left, update.side].map(|v| v as usize);
            for channel in 0..c {
                let delta = if update.up >> channel & 1 == 1 { eps } else { -eps };
                for row in top..top + side {
                    for column in left..left + side {
                        let at = lane_index(sample, (channel * h + row) * w + column, features);
                        pixels[at] = clamp(clean[at] + delta);
                    }
                }
            }
        }
        y
    }
}
