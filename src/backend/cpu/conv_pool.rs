//! Convolution, ReLU and max pooling of a block of images in one go: the activations between them stay in the core's
//! cache. Forward, they exist for the rows of one row of windows at a time; backward, the gradient is spread to the
//! windows' winners right where the convolution's input gradient wants it, inside its zero borders.

use super::conv::{GradientTaps, Sizes};
use super::correlate::Correlate;
use super::pool::{MaxPool, MaxPoolBack, Winners};
use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{Conv, ConvPool, Pool};
use crate::dims::{Conv2dDims, Pool2dDims};

impl<T: Real> ConvPool for Cpu<T> {
    fn conv2d_pool_fwd(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        x: &Buf<T>,
        w: &Buf<T>,
        b: Option<&Buf<T>>,
    ) -> (Buf<T>, Winners<T>) {
        if p.stride < p.k {
            // Windows overlap: their rows would be computed more than once.
            return self.max_pool2d_fwd(p, &self.conv2d_fwd(d, x, w, b, true));
        }
        self.count(Kernel::Conv2dFwd);
        let s = Sizes::of(d);
        let (k, stride, pooled_h, pooled_w) = (p.k as usize, p.stride as usize, p.h_out as usize, p.w_out as usize);
        let padded = self.padded_input(&s, x);
        let (width, plane) = s.padded();
        let taps = s.forward_taps(plane, width);
        let out = s.c_out * pooled_h * pooled_w * LANES;
        let (mut y, mut winners) = (self.alloc(blocks(s.n) * out), self.alloc(blocks(s.n) * out));
        self.for_chunks_pair(&mut y, out, &mut winners, out, |block, y, winners| {
            let (y, winners) = (lanes_mut(y), lanes_mut(winners));
            let x = &lanes(&padded)[block * s.c_in * plane..];
            let mut rows = self.alloc(s.c_out * k * s.w_out * LANES);
            for row in 0..pooled_h {
                let job = Correlate {
                    taps: &taps,
                    x: &x[row * stride * s.stride * width..],
                    x_row: s.stride * width,
                    x_col: s.stride,
                    w,
                    w_channel: taps.len(),
                    bias: b.map(|b| &**b),
                    relu: true,
                    channels: s.c_out,
                    rows: k,
                    cols: s.w_out,
                    y: lanes_mut(&mut rows),
                    y_first: 0,
                    y_channel: k * s.w_out,
                    y_row: s.w_out,
                    y_col: 1,
                };
                T::correlate(self.arch, job);
                for (channel, x) in lanes(&rows).chunks_exact(k * s.w_out).enumerate() {
                    let at = (channel * pooled_h + row) * pooled_w;
                    let (y, winners) = (&mut y[at..][..pooled_w], &mut winners[at..][..pooled_w]);
                    T::max_pool(self.arch, MaxPool { k, stride, w_in: s.w_out, w_out: pooled_w, x, y, winners });
                }
            }
        });
        (y, Winners(winners))
    }

    fn conv2d_pool_bwd_input(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        winners: &Winners<T>,
        dy: &Buf<T>,
        w: &Buf<T>,
    ) -> Buf<T> {
        self.count(Kernel::Conv2dBwdInput);
        let s = Sizes::of(d);
        let g = GradientTaps::of(&s);
        let (k, stride, w_out, pooled) = (p.k as usize, p.stride as usize, p.w_out as usize, (p.h_out * p.w_out) as usize);
        let (winners, dy) = (lanes(&winners.0), lanes(dy));
        let out = s.c_in * s.h_in * s.w_in * LANES;
        let mut dx = self.alloc(blocks(s.n) * out);
        self.for_chunks(&mut dx, out, |block, dx| {
            let mut spread = self.alloc(s.c_out * g.plane() * LANES);
            spread.fill(T::zero());
            for (channel, plane) in lanes_mut(&mut spread).chunks_exact_mut(g.plane()).enumerate() {
                let at = (block * s.c_out + channel) * pooled;
                let dx = &mut plane[g.rows.low * g.width + g.cols.low..];
                let (winners, dy) = (&winners[at..][..pooled], &dy[at..][..pooled]);
                T::max_pool_back(self.arch, MaxPoolBack { k, stride, w_in: g.width, w_out, winners, dy, dx });
            }
            self.correlate_gradient(&s, &g, lanes(&spread), w, lanes_mut(dx));
        });
        dx
    }
}
