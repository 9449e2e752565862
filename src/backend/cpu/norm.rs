//! Batch normalisation. It is bound by memory, so what counts is how often a batch comes from there. A thread goes through
//! a channel for its sums and then, from the last block to the first, for its results: much of it is still in the cache.
//! The gradient of the input is written in the place of the output's, and the output is not read where `x` tells it.

use super::jobs::{
    BatchNormBwd, BatchNormFwd, Deviations, GradientSums, Normalization, NormalizedPlane, StatisticsTerm, Sum,
};
use super::layout::element::relu;
use super::sums::{Plane, channel_work, channels_mut, over_images};
use super::{Buf, Cpu, Kernel, Real};
use crate::backend::{Activation, ChannelStats, Norm, NormBwd, NormFwd, NormGrads, RunningUpdate};
use crate::base::dims::ChannelDims;

/// Number, mean and sum of squared deviations from it.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Of both together (Chan, Golub and LeVeque, 1983).
    fn merged(self, other: Moments) -> Moments {
        let count = self.count + other.count;
        let (apart, share) = (other.mean - self.mean, other.count / count);
        Moments {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.count * share,
        }
    }
}

fn inverse_std<T: Real>(var: T, eps: f32) -> T {
    T::one() / (var + T::of(eps)).sqrt()
}

impl<T: Real> Cpu<T> {
    /// Goes over the pixels twice, but the second time they are in the cache. Deviations from a mean do not cancel as
    /// the squares of the values would. The mean is rounded to `T`; the sum of the deviations from it says by how much
    /// it is off.
    fn moments(&self, plane: &Plane, x: &[T]) -> Moments {
        let x = plane.pixels(x);
        let count = (plane.images * x.len()) as f64;
        let centre = T::of_f64(over_images(&T::sum(self.arch, Sum { x }), plane.images) / count);
        let [sum, squares] = T::deviations(self.arch, Deviations { centre, x }).map(|s| over_images(&s, plane.images));
        let squares = relu(squares - sum * sum / count);
        Moments { count, mean: centre.as_f64() + sum / count, squares }
    }

    /// Mean and biased variance of a channel.
    fn statistics(&self, d: &ChannelDims, channel: usize, x: &[T]) -> [T; 2] {
        let planes = self.map_planes(d, channel, 1, |plane| self.moments(&plane, x));
        let all = planes.into_iter().fold(Moments::default(), Moments::merged);
        [T::of_f64(all.mean), T::of_f64(all.squares / all.count)]
    }

    /// From mean and variance of each channel.
    fn stats_of(&self, channels: &[[T; 2]]) -> ChannelStats<Buf<T>> {
        let [mean, var] = [0, 1].map(|i| self.per_channel(channels.iter().map(|statistics| statistics[i])));
        ChannelStats { mean, var }
    }

    /// A vector with a value for each channel.
    fn per_channel(&self, values: impl Iterator<Item = T>) -> Buf<T> {
        self.buffer(&values.collect::<Vec<T>>())
    }

    /// The forward pass. Per channel, `statistics` says what it is normalised with; they are returned.
    fn normalize(
        &self,
        d: &ChannelDims,
        f: &NormFwd<'_, Self>,
        statistics: impl Fn(usize) -> [T; 2] + Sync,
    ) -> (Buf<T>, Vec<[T; 2]>) {
        self.count(Kernel::BatchNormFwd);
        let mut y = self.alloc(f.x.len());
        let buffers = 2 + usize::from(f.residual.is_some());
        let statistics = self.map_channels(d, buffers, channels_mut(d, &mut y), |c, planes| {
            let [mean, var] = statistics(c);
            let normalization = Normalization::new([mean, inverse_std(var, f.eps)], f.gamma[c], f.beta[c]);
            self.for_items(channel_work(d, 1, buffers), planes.into_iter().rev(), |_, (plane, y)| {
                let job = BatchNormFwd {
                    normalization,
                    x: plane.pixels(f.x),
                    residual: f.residual.map(|residual| plane.pixels(residual)),
                    activation: f.activation,
                    y,
                };
                T::batch_norm_fwd(self.arch, job);
                plane.clear_padding(y);
            });
            [mean, var]
        });
        (y, statistics)
    }
}

impl<T: Real> Norm for Cpu<T> {
    fn channel_stats(&self, d: &ChannelDims, x: &Buf<T>) -> ChannelStats<Buf<T>> {
        self.stats_of(&self.map_channels(d, 1, 0..d.c, |channel, _| self.statistics(d, channel, x)))
    }

    fn batch_norm_fwd(&self, d: &ChannelDims, f: &NormFwd<'_, Self>, stats: &ChannelStats<Buf<T>>) -> Buf<T> {
        self.normalize(d, f, |channel| [stats.mean[channel], stats.var[channel]]).0
    }

    fn batch_norm_train_fwd(&self, d: &ChannelDims, f: &NormFwd<'_, Self>) -> (Buf<T>, ChannelStats<Buf<T>>) {
        let (y, statistics) = self.normalize(d, f, |channel| self.statistics(d, channel, f.x));
        (y, self.stats_of(&statistics))
    }

    /// With `xhat = (x - mean) / std`: `dbeta = Σ g`, `dgamma = Σ g xhat` and
    /// `dx = gamma / std (g - [dbeta + xhat dgamma] / count)`, the term in brackets only with batch statistics.
    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Self>, dy: Buf<T>) -> NormGrads<Self> {
        self.count(Kernel::BatchNormBwd);
        let count = f64::from(d.n) * f64::from(d.hw);
        let activation = b.activated.map_or(Activation::Identity, |activated| activated.activation);
        let saved = b.activated.filter(|_| b.residual).map(|activated| activated.y);
        let mut dx = dy;
        let mut dresidual = b.residual.then(|| self.alloc(dx.len()));
        let mut dresiduals = dresidual.as_mut().map(|dresidual| channels_mut(d, dresidual).into_iter());
        let items = channels_mut(d, &mut dx).into_iter().map(|dx| (dx, dresiduals.as_mut().and_then(Iterator::next)));
        let buffers = 3 + usize::from(saved.is_some()) + usize::from(b.residual);
        let sums = self.map_channels(d, buffers, items, |c, (gradients, dresiduals)| {
            let inv_std = inverse_std(b.stats.var[c], b.eps);
            let normalization = Normalization::new([b.stats.mean[c], inv_std], b.gamma[c], b.beta[c]);
            let forward = |plane: &Plane| NormalizedPlane {
                normalization,
                x: plane.pixels(b.x),
                activation,
                y: saved.map(|y| plane.pixels(y)),
            };
            let mut sums = vec![[0.0; 2]; gradients.len()];
            self.for_items(channel_work(d, 1, buffers), sums.iter_mut().zip(&gradients), |_, (sums, (plane, dy))| {
                let job = GradientSums { plane: forward(plane), dy };
                *sums = T::gradient_sums(self.arch, job).map(|sums| over_images(&sums, plane.images));
            });
            let [dbeta, products] = sums.iter().fold([0.0; 2], |[a, b], sums| [a + sums[0], b + sums[1]]);
            let dgamma = products * inv_std.as_f64();
            let term = b.batch_stats.then(|| StatisticsTerm {
                inv_std,
                mean_g: T::of_f64(dbeta / count),
                mean_g_xhat: T::of_f64(dgamma / count),
            });
            let mut dresiduals = dresiduals.map(|planes| planes.into_iter().rev());
            let planes = gradients.into_iter().rev();
            let planes = planes.map(|plane| (plane, dresiduals.as_mut().and_then(Iterator::next)));
            self.for_items(channel_work(d, 1, buffers), planes, |_, ((plane, gradient), dresidual)| {
                let dresidual = dresidual.map(|(_, pixels)| pixels);
                T::batch_norm_bwd(self.arch, BatchNormBwd { plane: forward(&plane), term, gradient, dresidual });
                plane.clear_padding(gradient);
            });
            [dgamma, dbeta]
        });
        let [dgamma, dbeta] = [0, 1].map(|i| self.per_channel(sums.iter().map(|sums| T::of_f64(sums[i]))));
        NormGrads { dx, dgamma, dbeta, dresidual }
    }

    fn update_running_stats(&self, momentum: f32, updates: &mut [RunningUpdate<'_, Buf<T>>]) {
        let momentum = T::of(momentum);
        for RunningUpdate { unbias, batch, running } in updates {
            let unbias = T::of(*unbias);
            running.mean.iter_mut().zip(batch.mean.iter()).for_each(|(r, &b)| *r += momentum * (b - *r));
            running.var.iter_mut().zip(batch.var.iter()).for_each(|(r, &b)| *r += momentum * (unbias * b - *r));
        }
    }
}
