//! Batch normalisation. Sums over a channel are taken per block of images in `T` and put together in f64.

use super::real::relu;
use super::{Buf, Cpu, Kernel, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::{ChannelStats, Elementwise, Memory, Norm, NormBwd, NormGrads};
use crate::dims::ChannelDims;

/// A channel's pixels in one block of images, and how many of the lanes hold images.
fn channel<'a, T>(d: &ChannelDims, x: &'a [T], block: usize, channel: usize) -> (&'a [[T; LANES]], usize) {
    let hw = d.hw as usize;
    let images = (d.n as usize - block * LANES).min(LANES);
    (&lanes(x)[(block * d.c as usize + channel) * hw..][..hw], images)
}

impl<T: Real> Cpu<T> {
    /// Per channel, the sum over all images and pixels of `f(channel, x, y)`, without the padding lanes.
    fn channel_sums(&self, d: &ChannelDims, x: &[T], y: &[T], f: impl Fn(usize, T, T) -> T + Sync) -> Vec<f64> {
        let mut sums = vec![0.0; d.c as usize];
        self.for_chunks(&mut sums, 1, |c, sum| {
            for block in 0..blocks(d.n as usize) {
                let ((x, images), (y, _)) = (channel(d, x, block, c), channel(d, y, block, c));
                let mut part = [T::zero(); LANES];
                self.arch.dispatch(|| {
                    for (x, y) in x.iter().zip(y) {
                        for l in 0..LANES {
                            part[l] += f(c, x[l], y[l]);
                        }
                    }
                });
                sum[0] += part[..images].iter().map(|v| v.as_f64()).sum::<f64>();
            }
        });
        sums
    }

    /// A batch whose pixel vectors are `f(channel, index)`, where index counts the pixel vectors of the whole batch.
    /// The lanes beyond the last image become zero.
    fn per_channel(&self, d: &ChannelDims, f: impl Fn(usize, usize) -> [T; LANES] + Sync) -> Buf<T> {
        let (n, c, hw) = (d.n as usize, d.c as usize, d.hw as usize);
        let mut out = self.alloc(blocks(n) * c * hw * LANES);
        self.for_chunks(&mut out, hw * LANES, |plane, out| {
            let images = (n - plane / c * LANES).min(LANES);
            self.arch.dispatch(|| {
                for (i, pixel) in lanes_mut(out).iter_mut().enumerate() {
                    *pixel = f(plane % c, plane * hw + i);
                }
            });
            if images < LANES {
                lanes_mut(out).iter_mut().for_each(|pixel| pixel[images..].fill(T::zero()));
            }
        });
        out
    }
}

fn inverse_std<T: Real>(var: T, eps: f32) -> T {
    T::one() / (var + T::of(eps)).sqrt()
}

impl<T: Real> Norm for Cpu<T> {
    /// Two passes: the variance from the differences to the mean, which does not cancel.
    fn channel_stats(&self, d: &ChannelDims, x: &Buf<T>) -> ChannelStats<Buf<T>> {
        let count = f64::from(d.n) * f64::from(d.hw);
        let scaled = |sums: Vec<f64>| sums.into_iter().map(|s| T::of_f64(s / count)).collect::<Vec<T>>();
        let mean = scaled(self.channel_sums(d, x, x, |_, x, _| x));
        let var = scaled(self.channel_sums(d, x, x, |c, x, _| (x - mean[c]) * (x - mean[c])));
        ChannelStats { mean: self.buffer(&mean), var: self.buffer(&var) }
    }

    fn batch_norm_fwd(
        &self,
        d: &ChannelDims,
        eps: f32,
        x: &Buf<T>,
        stats: &ChannelStats<Buf<T>>,
        gamma: &Buf<T>,
        beta: &Buf<T>,
        residual: Option<&Buf<T>>,
        apply_relu: bool,
    ) -> Buf<T> {
        self.count(Kernel::BatchNormFwd);
        let (x, residual) = (lanes(x), residual.map(|r| lanes(r)));
        self.per_channel(d, |c, i| {
            let scale = gamma[c] * inverse_std(stats.var[c], eps);
            let mut y = x[i].map(|x| (x - stats.mean[c]) * scale + beta[c]);
            if let Some(residual) = residual {
                y.iter_mut().zip(&residual[i]).for_each(|(y, &r)| *y += r);
            }
            if apply_relu { y.map(relu) } else { y }
        })
    }

    /// With `xhat = (x - mean) / std`: `dbeta = Σ dy`, `dgamma = Σ dy xhat` and
    /// `dx = gamma / std (dy - [dbeta + xhat dgamma] / count)`, the bracket only with batch statistics.
    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Buf<T>>) -> NormGrads<Buf<T>> {
        self.count(Kernel::BatchNormBwd);
        let &NormBwd { eps, x, stats, batch_stats, gamma, relu, residual, dy } = b;
        let masked = relu.map(|y| self.relu_bwd(y, dy));
        let dy = masked.as_ref().unwrap_or(dy);
        let inv_std: Vec<T> = stats.var.iter().map(|&v| inverse_std(v, eps)).collect();
        let dbeta = self.channel_sums(d, dy, dy, |_, dy, _| dy);
        let dgamma = self.channel_sums(d, x, dy, |c, x, dy| dy * (x - stats.mean[c]) * inv_std[c]);
        let count = f64::from(d.n) * f64::from(d.hw);
        let coefficient = |sum: f64| if batch_stats { T::of_f64(sum / count) } else { T::zero() };
        let (x, dy_lanes) = (lanes(x), lanes(dy));
        let dx = self.per_channel(d, |c, i| {
            let (mean_dy, mean_dy_xhat) = (coefficient(dbeta[c]), coefficient(dgamma[c]));
            let scale = gamma[c] * inv_std[c];
            std::array::from_fn(|l| {
                let xhat = (x[i][l] - stats.mean[c]) * inv_std[c];
                scale * (dy_lanes[i][l] - mean_dy - xhat * mean_dy_xhat)
            })
        });
        let plain = |sums: &[f64]| self.buffer(&sums.iter().map(|&s| T::of_f64(s)).collect::<Vec<T>>());
        let (dgamma, dbeta) = (plain(&dgamma), plain(&dbeta));
        NormGrads { dx, dgamma, dbeta, dresidual: residual.then(|| masked.unwrap_or_else(|| self.copy(b.dy))) }
    }

    fn move_running(
        &self,
        momentum: f32,
        unbias: f32,
        batch: &ChannelStats<Buf<T>>,
        running: &mut ChannelStats<Buf<T>>,
    ) {
        let (momentum, unbias) = (T::of(momentum), T::of(unbias));
        running.mean.iter_mut().zip(batch.mean.iter()).for_each(|(r, &b)| *r += momentum * (b - *r));
        running.var.iter_mut().zip(batch.var.iter()).for_each(|(r, &b)| *r += momentum * (unbias * b - *r));
    }
}
