//! Max pooling and global average pooling.

use super::sums::{Plane, Sum};
use super::{Buf, Cpu, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{Elementwise, Pool};
use crate::base::dims::{ChannelDims, Pool2dDims};

/// Per output pixel and lane, the winner's place in its window, counted row by row, on top of [`PLACE`].
pub struct Winners<T: Real>(pub(super) Buf<T>);

/// Added to a place, so that the lowest bits of the f32 are its bits.
pub const PLACE: f32 = 8_388_608.0;

/// The place that a winner stands for; 0 if it stands for none.
pub fn place_of<T: Real>(winner: T) -> usize {
    (winner.as_f32() - PLACE) as usize
}

/// Forward pass of one channel of one block of images.
pub struct MaxPool<'a, T> {
    pub k: usize,
    pub stride: usize,
    pub w_in: usize,
    pub w_out: usize,
    pub x: &'a [[T; LANES]],
    pub y: &'a mut [[T; LANES]],
    pub winners: &'a mut [[T; LANES]],
}

impl<T: Real> MaxPool<'_, T> {
    /// Compares every pixel with the best so far. A NaN is larger than any number and stays, because no number is larger.
    pub fn plain(self) {
        for (i, (y, winner)) in self.y.iter_mut().zip(self.winners).enumerate() {
            let window = &self.x[(i / self.w_out * self.w_in + i % self.w_out) * self.stride..];
            (*y, *winner) = (window[0], [T::of(PLACE); LANES]);
            for q in 0..self.k * self.k {
                let x = &window[q / self.k * self.w_in + q % self.k];
                for l in 0..LANES {
                    if x[l] > y[l] || x[l].is_nan() {
                        (y[l], winner[l]) = (x[l], T::of(PLACE + q as f32));
                    }
                }
            }
        }
    }
}

/// Backward pass of the same, added to `dx`.
pub struct MaxPoolBack<'a, T> {
    pub k: usize,
    pub stride: usize,
    /// Pixels between the rows of `dx`.
    pub w_in: usize,
    pub w_out: usize,
    pub winners: &'a [[T; LANES]],
    pub dy: &'a [[T; LANES]],
    pub dx: &'a mut [[T; LANES]],
}

impl<T: Real> MaxPoolBack<'_, T> {
    /// Adds each gradient where the window's winner was.
    pub fn plain(self) {
        for (i, (dy, winner)) in self.dy.iter().zip(self.winners).enumerate() {
            let window = &mut self.dx[(i / self.w_out * self.w_in + i % self.w_out) * self.stride..];
            for l in 0..LANES {
                let q = place_of(winner[l]);
                window[q / self.k * self.w_in + q % self.k][l] += dy[l];
            }
        }
    }
}

impl<T: Real> Pool for Cpu<T> {
    type Winners = Winners<T>;

    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Buf<T>) -> (Buf<T>, Winners<T>) {
        let (h_in, w_in, w_out) = (d.h_in as usize, d.w_in as usize, d.w_out as usize);
        let (k, stride, out) = (d.k as usize, d.stride as usize, (d.h_out * d.w_out) as usize);
        let planes = blocks(d.n as usize) * d.c as usize;
        let mut y = self.alloc(planes * out * LANES);
        let mut winners = self.alloc(planes * out * LANES);
        let parts = y.chunks_exact_mut(out * LANES).zip(winners.chunks_exact_mut(out * LANES));
        self.for_parts(x.len() + 2 * planes * out * LANES, parts, |plane, (y, winners)| {
            let x = &lanes(x)[plane * h_in * w_in..][..h_in * w_in];
            let (y, winners) = (lanes_mut(y), lanes_mut(winners));
            T::max_pool(self.arch, MaxPool { k, stride, w_in, w_out, x, y, winners });
        });
        (y, Winners(winners))
    }

    fn max_pool2d_bwd(&self, d: &Pool2dDims, winners: &Winners<T>, relu: Option<&Buf<T>>, dy: &Buf<T>) -> Buf<T> {
        if let Some(y) = relu {
            return self.max_pool2d_bwd(d, winners, None, &self.relu_bwd(y, dy));
        }
        let (h_in, w_in, w_out) = (d.h_in as usize, d.w_in as usize, d.w_out as usize);
        let (k, stride, out) = (d.k as usize, d.stride as usize, (d.h_out * d.w_out) as usize);
        let planes = blocks(d.n as usize) * d.c as usize;
        let mut dx = self.alloc(planes * h_in * w_in * LANES);
        let (dy, winners) = (lanes(dy), lanes(&winners.0));
        let parts = dx.chunks_exact_mut(h_in * w_in * LANES);
        self.for_parts(planes * (h_in * w_in + 2 * out) * LANES, parts, |plane, dx| {
            let (dy, winners) = (&dy[plane * out..][..out], &winners[plane * out..][..out]);
            dx.fill(T::zero());
            T::max_pool_back(self.arch, MaxPoolBack { k, stride, w_in, w_out, winners, dy, dx: lanes_mut(dx) });
        });
        dx
    }

    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Buf<T>) -> Buf<T> {
        let mut y = self.alloc(x.len() / d.hw as usize);
        let scale = T::one() / T::of(d.hw as f32);
        self.for_parts(x.len(), lanes_mut(&mut y).iter_mut(), |plane, y| {
            *y = T::sum(self.arch, Sum { x: Plane::of(d, plane).pixels(x) }).map(|sum| sum * scale);
        });
        y
    }

    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Buf<T>) -> Buf<T> {
        let hw = d.hw as usize;
        let mut dx = self.alloc(dy.len() * hw);
        let scale = T::one() / T::of(d.hw as f32);
        self.for_parts(dy.len() * hw, lanes_mut(&mut dx).chunks_exact_mut(hw), |plane, dx| {
            dx.fill(lanes(dy)[plane].map(|v| v * scale));
        });
        dx
    }
}
