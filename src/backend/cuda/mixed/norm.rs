//! Batch normalisation of activations in bf16: a launch for statistics, one forwards, three backwards.

use super::{Batch, Buf, Device, Mixed, Statistics, pieces};
use crate::backend::cuda::kernel::kernels;
use crate::backend::cuda::tuning;
use crate::backend::{ChannelStats, Norm, NormBwd, NormGrads};
use crate::dims::ChannelDims;

kernels! { "norm_bf16":
    batch_norm_fwd_bf16(
        d: ChannelDims, eps: f32, x: &Device<u16>, mean: &Device<f32>, var: &Device<f32>, gamma: &Device<f32>,
        beta: &Device<f32>, residual: Option<&Device<u16>>, mask: Option<&mut Device<u8>>, y: &mut Device<u16>,
    );
    batch_norm_bwd_sums_bf16(
        d: ChannelDims, x: &Device<u16>, mean: &Device<f32>, mask: Option<&Device<u8>>, dy: &Device<u16>,
        part: &mut Device<[f32; 2]>,
    );
    batch_norm_bwd_finish(
        c: u32, eps: f32, parts: u32, var: &Device<f32>, part: &Device<[f32; 2]>, dgamma: &mut Device<f32>,
        dbeta: &mut Device<f32>,
    );
    batch_norm_bwd_bf16(
        d: ChannelDims, eps: f32, batch_stats: u32, x: &Device<u16>, mean: &Device<f32>, var: &Device<f32>,
        gamma: &Device<f32>, dgamma: &Device<f32>, dbeta: &Device<f32>, mask: Option<&Device<u8>>, dy: &Device<u16>,
        dx: &mut Device<u16>, dresidual: Option<&mut Device<u16>>,
    );
}

fn exact(stats: ChannelStats<Device<f32>>) -> ChannelStats<Buf> {
    ChannelStats { mean: stats.mean.into(), var: stats.var.into() }
}

impl Norm for Mixed {
    fn channel_stats(&self, d: &ChannelDims, x: &Buf) -> ChannelStats<Buf> {
        match x {
            Buf::Batch(Batch { d: of, statistics: Some(Statistics { parts, pixels }), .. }) => {
                assert_eq!(of, d);
                exact(self.exact.finish_stats(d, parts, *pixels))
            }
            x => exact(self.exact.channel_stats(d, &self.in_f32(x))),
        }
    }

    fn batch_norm_fwd(
        &self,
        d: &ChannelDims,
        eps: f32,
        x: &Buf,
        stats: &ChannelStats<Buf>,
        gamma: &Buf,
        beta: &Buf,
        residual: Option<&Buf>,
        relu: bool,
    ) -> Buf {
        let vectors = [&stats.mean, &stats.var, gamma, beta].map(Buf::f32);
        assert_eq!(vectors.map(Device::len), [d.c as usize; 4]);
        let [mean, var, gamma, beta] = vectors;
        let (x, residual) = (self.in_bf16(d, x), residual.map(|residual| self.in_bf16(d, residual)));
        let residual = residual.as_ref().map(|residual| &residual.data);
        let mut y = self.alloc(d);
        y.mask = relu.then(|| self.exact.alloc(pieces(d)));
        let (grid, mask) = (tuning::pixels_bf16(d), y.mask.as_mut());
        // SAFETY: just checked: batches have the elements of `d`, the others one per channel, and the mask one per piece.
        unsafe {
            launch::batch_norm_fwd_bf16(
                &self.exact,
                grid,
                *d,
                eps,
                &x.data,
                mean,
                var,
                gamma,
                beta,
                residual,
                mask,
                &mut y.data,
            );
        }
        y.into()
    }

    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Buf>) -> NormGrads<Buf> {
        let vectors = [&b.stats.mean, &b.stats.var, b.gamma].map(Buf::f32);
        assert_eq!(vectors.map(Device::len), [d.c as usize; 3]);
        let [mean, var, gamma] = vectors;
        let mask = match b.relu {
            None => None,
            Some(Buf::Batch(Batch { d: of, mask: Some(mask), .. })) if of == d => Some(mask),
            Some(_) => unreachable!("a ReLU that is not this normalisation's"),
        };
        let (x, dy) = (self.in_bf16(d, b.x), self.in_bf16(d, b.dy));
        let (c, grid) = (d.c as usize, tuning::pixels_bf16(d));
        let parts = grid.blocks[0];
        let mut part = self.exact.alloc(c * parts as usize);
        let (mut dgamma, mut dbeta) = (self.exact.alloc(c), self.exact.alloc(c));
        // SAFETY: batches have the elements of `d`, vectors one per channel, the mask one per piece, and `part` a pair for
        // each channel and block.
        unsafe {
            launch::batch_norm_bwd_sums_bf16(&self.exact, grid, *d, &x.data, mean, mask, &dy.data, &mut part);
            let grid = tuning::channel_stats_finish(d);
            launch::batch_norm_bwd_finish(&self.exact, grid, d.c, b.eps, parts, var, &part, &mut dgamma, &mut dbeta);
        }
        let (mut dx, mut dresidual) = (self.alloc(d), b.residual.then(|| self.alloc(d)));
        let (batch_stats, dresidual_data) = (b.batch_stats.into(), dresidual.as_mut().map(|batch| &mut batch.data));
        // SAFETY: as above.
        unsafe {
            launch::batch_norm_bwd_bf16(
                &self.exact,
                grid,
                *d,
                b.eps,
                batch_stats,
                &x.data,
                mean,
                var,
                gamma,
                &dgamma,
                &dbeta,
                mask,
                &dy.data,
                &mut dx.data,
                dresidual_data,
            );
        }
        NormGrads { dx: dx.into(), dgamma: dgamma.into(), dbeta: dbeta.into(), dresidual: dresidual.map(Buf::from) }
    }

    fn move_running(&self, momentum: f32, unbias: f32, batch: &ChannelStats<Buf>, running: &mut ChannelStats<Buf>) {
        let [mean, var] = [&batch.mean, &batch.var].map(Buf::f32);
        self.exact.move_towards(momentum, unbias, [mean, var], [running.mean.f32_mut(), running.var.f32_mut()]);
    }
}
