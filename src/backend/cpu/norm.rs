//! Batch normalisation. It is bound by memory, so what counts is how often a batch is read: once for its statistics,
//! once to normalise it, twice for the gradients.

use super::jobs::{BatchNormBwd, BatchNormFwd, Deviations, GradientSums, StatisticsTerm, Sum};
use super::layout::element::relu;
use super::sums::{Plane, over_images};
use super::{Buf, Cpu, Kernel, LANES, Real, lanes_mut};
use crate::backend::{Activated, Activation, ChannelStats, Norm, NormBwd, NormGrads, RunningUpdate};
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

    /// Per channel, the sums over all images and pixels of `g` and of `g (x - mean)`.
    fn gradient_sums(&self, d: &ChannelDims, b: &NormBwd<'_, Self>) -> Vec<[f64; 2]> {
        let buffers = if b.activated.is_some() { 3 } else { 2 };
        let partials = self.map_planes(d, buffers, |plane| {
            let job = GradientSums {
                mean: b.stats.mean[plane.channel],
                x: plane.pixels(b.x),
                activated: activated(b).map(|y| plane.pixels(y)),
                dy: plane.pixels(b.dy),
            };
            T::gradient_sums(self.arch, job).map(|sums| over_images(&sums, plane.images))
        });
        let add = |[a, b]: [f64; 2], partial: &[f64; 2]| [a + partial[0], b + partial[1]];
        let c = d.c as usize;
        (0..c).map(|channel| partials.iter().skip(channel).step_by(c).fold([0.0; 2], add)).collect()
    }
}

/// The activation at the end of the forward pass and its output, which is not read for the identity.
fn activated<'a, T: Real>(b: &NormBwd<'a, Cpu<T>>) -> Activated<'a, Buf<T>> {
    b.activated.unwrap_or(Activated { activation: Activation::Identity, y: b.dy })
}

/// Zeros where there are no images: sums over gradients include the padding lanes.
fn clear_padding<T: Real>(plane: &Plane, pixels: &mut [[T; LANES]]) {
    if plane.images < LANES {
        pixels.iter_mut().for_each(|pixel| pixel[plane.images..].fill(T::zero()));
    }
}

impl<T: Real> Norm for Cpu<T> {
    fn channel_stats(&self, d: &ChannelDims, x: &Buf<T>) -> ChannelStats<Buf<T>> {
        let (c, partials) = (d.c as usize, self.map_planes(d, 1, |plane| self.moments(&plane, x)));
        let (mut mean, mut var) = (self.alloc(c), self.alloc(c));
        for (channel, (mean, var)) in mean.iter_mut().zip(var.iter_mut()).enumerate() {
            let all =
                partials.iter().skip(channel).step_by(c).fold(Moments::default(), |all, &plane| all.merged(plane));
            (*mean, *var) = (T::of_f64(all.mean), T::of_f64(all.squares / all.count));
        }
        ChannelStats { mean, var }
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
        activation: Activation,
    ) -> Buf<T> {
        self.count(Kernel::BatchNormFwd);
        let mut y = self.alloc(x.len());
        let buffers = if residual.is_some() { 3 } else { 2 };
        let items = lanes_mut(&mut y).chunks_exact_mut(d.hw as usize);
        self.for_items(buffers * x.len(), items, |i, y| {
            let plane = Plane::of(d, i);
            let c = plane.channel;
            let job = BatchNormFwd {
                mean: stats.mean[c],
                scale: gamma[c] * inverse_std(stats.var[c], eps),
                beta: beta[c],
                x: plane.pixels(x),
                residual: residual.map(|r| plane.pixels(r)),
                activation,
                y,
            };
            T::batch_norm_fwd(self.arch, job);
            clear_padding(&plane, y);
        });
        y
    }

    /// With `xhat = (x - mean) / std`: `dbeta = Σ g`, `dgamma = Σ g xhat` and
    /// `dx = gamma / std (g - [dbeta + xhat dgamma] / count)`, the term in brackets only with batch statistics.
    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Self>) -> NormGrads<Self> {
        self.count(Kernel::BatchNormBwd);
        let inv_std: Vec<T> = b.stats.var.iter().map(|&v| inverse_std(v, b.eps)).collect();
        let mut sums = self.gradient_sums(d, b);
        sums.iter_mut().zip(&inv_std).for_each(|([_, dgamma], &inv_std)| *dgamma *= inv_std.as_f64());
        let count = f64::from(d.n) * f64::from(d.hw);
        let term = |c: usize| StatisticsTerm {
            mean: b.stats.mean[c],
            inv_std: inv_std[c],
            mean_g: T::of_f64(sums[c][0] / count),
            mean_g_xhat: T::of_f64(sums[c][1] / count),
        };
        let mut dx = self.alloc(b.dy.len());
        let mut dresidual = b.residual.then(|| self.alloc(b.dy.len()));
        let hw = d.hw as usize;
        let mut dresiduals = dresidual.as_mut().map(|dresidual| lanes_mut(dresidual).chunks_exact_mut(hw));
        let items =
            lanes_mut(&mut dx).chunks_exact_mut(hw).map(|dx| (dx, dresiduals.as_mut().and_then(Iterator::next)));
        let buffers = 2 + usize::from(b.batch_stats) + usize::from(b.activated.is_some()) + usize::from(b.residual);
        self.for_items(buffers * b.dy.len(), items, |i, (dx, dresidual)| {
            let plane = Plane::of(d, i);
            let job = BatchNormBwd {
                scale: b.gamma[plane.channel] * inv_std[plane.channel],
                term: b.batch_stats.then(|| term(plane.channel)),
                x: plane.pixels(b.x),
                activated: activated(b).map(|y| plane.pixels(y)),
                dy: plane.pixels(b.dy),
                dx,
                dresidual,
            };
            T::batch_norm_bwd(self.arch, job);
            clear_padding(&plane, dx);
        });
        let per_channel = |i: usize| self.buffer(&sums.iter().map(|s| T::of_f64(s[i])).collect::<Vec<T>>());
        NormGrads { dx, dgamma: per_channel(1), dbeta: per_channel(0), dresidual }
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
