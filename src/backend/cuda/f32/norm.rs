//! Batch normalisation: one or two launches for statistics, one forwards, two backwards.

use crate::backend::cuda::activation::{code, or_identity};
use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::{Context, Cuda, F32, tuning};
use crate::backend::{ChannelStats, Norm, NormBwd, NormFwd, NormGrads, RunningUpdate};
use crate::base::dims::ChannelDims;
use crate::base::layout::layout;

kernels! { "f32/norm":
    channel_stats(
        d: ChannelDims, values: u32, x: &Device<f32>, partials: Option<&mut Device<[f32; 2]>>, mean: &mut Device<f32>,
        var: &mut Device<f32>,
    );
    channel_stats_finish(
        d: ChannelDims, splits: u32, size: u32, partials: &Device<[f32; 2]>, mean: &mut Device<f32>, var: &mut Device<f32>,
    );
    batch_norm_fwd(
        d: ChannelDims, eps: f32, x: &Device<f32>, mean: &Device<f32>, var: &Device<f32>, gamma: &Device<f32>,
        beta: &Device<f32>, residual: Option<&Device<f32>>, activation: u32, y: &mut Device<f32>,
    );
    batch_norm_bwd_sums(
        d: ChannelDims, activation: u32, x: &Device<f32>, mean: &Device<f32>, y: Option<&Device<f32>>, dy: &Device<f32>,
        g: Option<&mut Device<f32>>, partials: &mut Device<[f32; 2]>,
    );
    batch_norm_bwd(
        d: ChannelDims, eps: f32, batch_stats: u32, splits: u32, x: &Device<f32>, mean: &Device<f32>, var: &Device<f32>,
        gamma: &Device<f32>, partials: &Device<[f32; 2]>, g: Option<&Device<f32>>, dgamma: &mut Device<f32>,
        dbeta: &mut Device<f32>, dx: &mut Device<f32>,
    );
    update_running_stats(momentum: f32, updates: Updates);
}

/// Normalisations of one launch.
const UPDATES: usize = 64;

/// Running statistics and those of a batch, by the addresses of their `c` elements each.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Update {
    mean: u64,
    var: u64,
    running_mean: u64,
    running_var: u64,
    c: u32,
    unbias: f32,
}

#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Updates {
    at: [Update; UPDATES],
}

layout!(Update { mean, var, running_mean, running_var, c, unbias });
layout!(Updates { at });
by_value!(Updates);

impl Context {
    /// Statistics of channels from those of their splits, `size` pixels each but the last, `[c, splits]`: mean and sum of
    /// squared differences to it.
    fn finish_stats(&self, d: &ChannelDims, partials: &Device<[f32; 2]>, size: u32) -> ChannelStats<Device<f32>> {
        let (c, splits) = (d.c as usize, (d.n * d.hw).div_ceil(size));
        assert_eq!(partials.len(), c * splits as usize);
        let mut stats = ChannelStats { mean: self.alloc(c), var: self.alloc(c) };
        let grid = tuning::channel_warps(d.c);
        // SAFETY: just checked; the statistics have an element a channel.
        unsafe {
            launch::channel_stats_finish(self, grid, *d, splits, size, partials, &mut stats.mean, &mut stats.var)
        };
        stats
    }

    /// [`Norm::update_running_stats`] in any precision.
    pub(in crate::backend::cuda) fn update_all_running_stats<B: PlainBuf>(
        &self,
        momentum: f32,
        updates: &mut [RunningUpdate<'_, B>],
    ) {
        let of = |RunningUpdate { unbias, batch, running }: &mut RunningUpdate<'_, B>| {
            let c = batch.mean.f32().len();
            assert_eq!([&batch.var, &running.mean, &running.var].map(|vector| vector.f32().len()), [c; 3]);
            let [mean, var] = [&batch.mean, &batch.var].map(|vector| vector.f32().address());
            let [running_mean, running_var] =
                [&mut running.mean, &mut running.var].map(|vector| vector.f32_mut().address());
            Update { mean, var, running_mean, running_var, c: c as u32, unbias: *unbias }
        };
        for chunk in updates.iter_mut().map(of).collect::<Vec<Update>>().chunks(UPDATES) {
            let mut table = Updates { at: [Update::default(); UPDATES] };
            table.at[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: just checked: each has buffers of `c` elements, and no two the same running statistics.
            unsafe { launch::update_running_stats(self, tuning::blocks(chunk.len() as u32), momentum, table) };
        }
    }
}

impl Norm for Cuda<F32> {
    fn channel_stats(&self, d: &ChannelDims, x: &Device<f32>) -> ChannelStats<Device<f32>> {
        assert_eq!(x.len(), d.elements());
        let c = d.c as usize;
        let mut stats = ChannelStats { mean: self.alloc(c), var: self.alloc(c) };
        let (grid, values) = tuning::channel_stats(d);
        let splits = grid.blocks[0];
        let mut partials = (splits > 1).then(|| self.alloc(c * splits as usize));
        // SAFETY: the blocks cover the batch; `partials` has a pair for each block, unless each finishes its own channel.
        unsafe { launch::channel_stats(self, grid, *d, values, x, partials.as_mut(), &mut stats.mean, &mut stats.var) };
        partials.map_or(stats, |partials| self.finish_stats(d, &partials, grid.threads * values))
    }

    fn batch_norm_fwd(&self, d: &ChannelDims, f: &NormFwd<'_, Self>, stats: &ChannelStats<Device<f32>>) -> Device<f32> {
        let NormFwd { eps, x, gamma, beta, residual, activation } = *f;
        assert!(x.len() == d.elements() && residual.is_none_or(|residual| residual.len() == x.len()));
        assert_eq!([&stats.mean, &stats.var, gamma, beta].map(Device::len), [d.c as usize; 4]);
        let (ChannelStats { mean, var }, grid) = (stats, tuning::channels(d));
        let mut y = self.alloc(x.len());
        // SAFETY: just checked: batches have as many elements as `d` says, the others one per channel.
        unsafe {
            launch::batch_norm_fwd(self, grid, *d, eps, x, mean, var, gamma, beta, residual, code(activation), &mut y);
        }
        y
    }

    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Self>, dy: Device<f32>) -> NormGrads<Self> {
        assert!([b.x, &dy].into_iter().chain(b.activated.map(|a| a.y)).all(|batch| batch.len() == d.elements()));
        assert_eq!([&b.stats.mean, &b.stats.var, b.gamma].map(Device::len), [d.c as usize; 3]);
        let (ChannelStats { mean, var }, grid) = (b.stats, tuning::channels(d));
        let (c, splits) = (d.c as usize, grid.blocks[0]);
        let (mut dgamma, mut dbeta) = (self.alloc(c), self.alloc(c));
        let (mut partials, mut dx) = (self.alloc(c * splits as usize), self.alloc(b.x.len()));
        let mut dresidual = b.residual.then(|| self.alloc(b.x.len()));
        let (activation, y) = or_identity(b.activated);
        // Where the first kernel leaves the gradient of the activation's input; without activation nor residual that is `dy` itself.
        let g = if b.activated.is_some() { dresidual.as_mut().or(Some(&mut dx)) } else { dresidual.as_mut() };
        // SAFETY: just checked, as above; `partials` has a pair for each block.
        unsafe { launch::batch_norm_bwd_sums(self, grid, *d, code(activation), b.x, mean, y, &dy, g, &mut partials) };
        let g = match (&dresidual, b.activated) {
            (Some(dresidual), _) => Some(dresidual),
            (None, Some(_)) => None,
            (None, None) => Some(&dy),
        };
        let batch_stats = b.batch_stats.into();
        // SAFETY: as above; `partials` has `splits` pairs for each channel, and `g`, or `dx` in its place, is written.
        unsafe {
            launch::batch_norm_bwd(
                self,
                grid,
                *d,
                b.eps,
                batch_stats,
                splits,
                b.x,
                mean,
                var,
                b.gamma,
                &partials,
                g,
                &mut dgamma,
                &mut dbeta,
                &mut dx,
            );
        }
        NormGrads { dx, dgamma, dbeta, dresidual }
    }

    fn update_running_stats(&self, momentum: f32, updates: &mut [RunningUpdate<'_, Device<f32>>]) {
        self.update_all_running_stats(momentum, updates);
    }
}
