//! Max pooling and global average pooling.

use super::{Buf, Cpu, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::Pool;
use crate::dims::{ChannelDims, Pool2dDims};

/// Per output pixel and lane, the winner's place in its window, counted row by row.
pub struct Winners(Vec<[u32; LANES]>);

/// Forward pass of one channel of one block of images.
struct MaxPool<'a, T> {
    k: usize,
    stride: usize,
    w_in: usize,
    w_out: usize,
    x: &'a [[T; LANES]],
    y: &'a mut [[T; LANES]],
    winners: &'a mut [[u32; LANES]],
}

impl<T: Real> pulp::WithSimd for MaxPool<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let rows = self.y.chunks_exact_mut(self.w_out).zip(self.winners.chunks_exact_mut(self.w_out));
        for (row, (y, winners)) in rows.enumerate() {
            for (col, (y, winner)) in y.iter_mut().zip(winners).enumerate() {
                let window = &self.x[(row * self.w_in + col) * self.stride..];
                let (mut best, mut place) = (window[0], [0; LANES]);
                for kh in 0..self.k {
                    for kw in 0..self.k {
                        let q = (kh * self.k + kw) as u32;
                        T::keep_larger(simd, window[kh * self.w_in + kw], q, &mut best, &mut place);
                    }
                }
                (*y, *winner) = (best, place);
            }
        }
    }
}

/// Backward pass of the same.
struct MaxPoolBack<'a, T> {
    k: usize,
    stride: usize,
    w_in: usize,
    w_out: usize,
    winners: &'a [[u32; LANES]],
    dy: &'a [[T; LANES]],
    dx: &'a mut [[T; LANES]],
}

impl<T: Real> pulp::WithSimd for MaxPoolBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        self.dx.fill([T::zero(); LANES]);
        let one = T::splat(simd, T::one());
        let rows = self.dy.chunks_exact(self.w_out).zip(self.winners.chunks_exact(self.w_out));
        for (row, (dy, winners)) in rows.enumerate() {
            for (col, (dy, winner)) in dy.iter().zip(winners).enumerate() {
                let window = &mut self.dx[(row * self.w_in + col) * self.stride..];
                for kh in 0..self.k {
                    for kw in 0..self.k {
                        let pixel = &mut window[kh * self.w_in + kw];
                        let gradient = T::where_equal(simd, *winner, (kh * self.k + kw) as u32, *dy);
                        *pixel = T::mul_add_lanes(simd, one, gradient, *pixel);
                    }
                }
            }
        }
    }
}

impl<T: Real> Pool for Cpu<T> {
    type Winners = Winners;

    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Buf<T>) -> (Buf<T>, Winners) {
        let (h_in, w_in, w_out) = (d.h_in as usize, d.w_in as usize, d.w_out as usize);
        let (k, stride, out) = (d.k as usize, d.stride as usize, (d.h_out * d.w_out) as usize);
        let planes = blocks(d.n as usize) * d.c as usize;
        let mut y = self.alloc(planes * out * LANES);
        let mut winners = vec![[0u32; LANES]; planes * out];
        let x = lanes(x);
        self.for_chunks_pair(&mut y, out * LANES, &mut winners, out, |plane, y, winners| {
            let x = &x[plane * h_in * w_in..][..h_in * w_in];
            self.arch.dispatch(MaxPool { k, stride, w_in, w_out, x, y: lanes_mut(y), winners });
        });
        (y, Winners(winners))
    }

    fn max_pool2d_bwd(&self, d: &Pool2dDims, winners: &Winners, dy: &Buf<T>) -> Buf<T> {
        let (h_in, w_in, w_out) = (d.h_in as usize, d.w_in as usize, d.w_out as usize);
        let (k, stride, out) = (d.k as usize, d.stride as usize, (d.h_out * d.w_out) as usize);
        let planes = blocks(d.n as usize) * d.c as usize;
        let mut dx = self.alloc(planes * h_in * w_in * LANES);
        let dy = lanes(dy);
        self.for_chunks(&mut dx, h_in * w_in * LANES, |plane, dx| {
            let (dy, winners) = (&dy[plane * out..][..out], &winners.0[plane * out..][..out]);
            self.arch.dispatch(MaxPoolBack { k, stride, w_in, w_out, winners, dy, dx: lanes_mut(dx) });
        });
        dx
    }

    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Buf<T>) -> Buf<T> {
        let hw = d.hw as usize;
        let mut y = self.alloc(x.len() / hw);
        let scale = T::one() / T::of(d.hw as f32);
        for (y, plane) in lanes_mut(&mut y).iter_mut().zip(lanes(x).chunks_exact(hw)) {
            *y = [T::zero(); LANES];
            for pixel in plane {
                y.iter_mut().zip(pixel).for_each(|(y, &x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y *= scale);
        }
        y
    }

    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Buf<T>) -> Buf<T> {
        let hw = d.hw as usize;
        let mut dx = self.alloc(dy.len() * hw);
        let scale = T::one() / T::of(d.hw as f32);
        for (plane, dy) in lanes_mut(&mut dx).chunks_exact_mut(hw).zip(lanes(dy)) {
            plane.fill(dy.map(|v| v * scale));
        }
        dx
    }
}
