//! [`MaxPool2dFwd`] and [`MaxPool2dBwd`] on vector registers.

use pulp::Simd;

use super::{per_pixel, registers, registers_mut};
use crate::backend::cpu::jobs::{FIRST_INDEX, MaxPool2dBwd, MaxPool2dFwd};

impl pulp::WithSimd for MaxPool2dFwd<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.k == 2 && self.stride == 2 { forward::<S, 2>(simd, self) } else { forward::<S, 0>(simd, self) }
    }
}

/// `K` is the window's side and the stride, known to the compiler, or 0 for any.
#[inline(always)]
fn forward<S: Simd, const K: usize>(simd: S, job: MaxPool2dFwd<'_, f32>) {
    let (k, stride) = if K > 0 { (K, K) } else { (job.k, job.stride) };
    let pixel = per_pixel::<S>();
    let (x, y) = (registers::<S>(job.x), registers_mut::<S>(job.y));
    let indices = registers_mut::<S>(job.indices);
    let row_in = job.w_in * pixel;
    for row in 0..y.len() / (job.w_out * pixel) {
        for col in 0..job.w_out {
            for half in 0..pixel {
                let window =
                    &x[row * stride * row_in + col * stride * pixel + half..][..(k - 1) * (row_in + pixel) + 1];
                let mut max = (window[0], simd.splat_f32s(FIRST_INDEX));
                for kh in 0..k {
                    for kw in 0..k {
                        max = larger(simd, max, window[kh * row_in + kw * pixel], kh * k + kw);
                    }
                }
                let at = (row * job.w_out + col) * pixel + half;
                (y[at], indices[at]) = max;
            }
        }
    }
}

/// The larger of the best so far with its index, and of `x`, whose index is `q`.
#[inline(always)]
fn larger<S: Simd>(simd: S, (best, index): (S::f32s, S::f32s), x: S::f32s, q: usize) -> (S::f32s, S::f32s) {
    // NaN is larger than any number, and once best, it stays, because no number is larger.
    let number = simd.equal_f32s(x, x);
    let larger = simd.greater_than_f32s(x, best);
    let here = simd.splat_f32s(FIRST_INDEX + q as f32);
    let best = simd.select_f32s(number, simd.select_f32s(larger, x, best), x);
    (best, simd.select_f32s(number, simd.select_f32s(larger, here, index), here))
}

/// The maximum of the pixels of a 2×2 window, and its index.
#[inline(always)]
pub fn maximum<S: Simd>(simd: S, pixels: [S::f32s; 4]) -> (S::f32s, S::f32s) {
    let mut max = (pixels[0], simd.splat_f32s(FIRST_INDEX));
    unroll!(Q < 4, { max = larger(simd, max, pixels[Q], Q) });
    max
}

impl pulp::WithSimd for MaxPool2dBwd<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let MaxPool2dBwd { k, stride, w_in, w_out, indices, dy, dx } = self;
        let pixel = per_pixel::<S>();
        let (indices, dy) = (registers::<S>(indices), registers::<S>(dy));
        let zero = simd.splat_f32s(0.0);
        let dx = registers_mut::<S>(dx);
        let row_in = w_in * pixel;
        for row in 0..dy.len() / (w_out * pixel) {
            for col in 0..w_out {
                for half in 0..pixel {
                    let at = (row * w_out + col) * pixel + half;
                    let window = &mut dx[row * stride * row_in + col * stride * pixel + half..];
                    for kh in 0..k {
                        for kw in 0..k {
                            let here = simd.splat_f32s(FIRST_INDEX + (kh * k + kw) as f32);
                            let gradient = simd.select_f32s(simd.equal_f32s(indices[at], here), dy[at], zero);
                            let to = &mut window[kh * row_in + kw * pixel];
                            *to = simd.add_f32s(*to, gradient);
                        }
                    }
                }
            }
        }
    }
}
