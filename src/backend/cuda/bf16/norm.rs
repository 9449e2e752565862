//! Batch normalisation of activations in bf16. Its output is deferred; on the way back so is the gradient of its input, and the
//! sums for it are taken here only if no convolution has taken them.

use std::sync::Arc;

use super::deferred::{Deferred, DeferredArg, NormGradient, NormSums, Normalization, NormalizedInput, Output};
use super::{Activations, Batch, Bf16, Buf};
use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{Activation, ChannelStats, Norm, NormBwd, NormFwd, NormGrads, RunningUpdate};
use crate::base::dims::ChannelDims;

kernels! { "bf16/norm":
    materialize(d: ChannelDims, of: DeferredArg, mask: Option<&mut Device<u8>>, y: &mut Device<u16>);
    batch_norm_bwd_sums_bf16(
        d: ChannelDims, x: &Device<u16>, mean: &Device<f32>, mask: Option<&Device<u8>>, dy: &Device<u16>,
        g: Option<&mut Device<u16>>, partials: &mut Device<[f32; 2]>,
    );
    batch_norm_bwd_finish(
        c: u32, eps: f32, splits: u32, var: &Device<f32>, partials: &Device<[f32; 2]>, dgamma: &mut Device<f32>,
        dbeta: &mut Device<f32>,
    );
}

by_value!(DeferredArg);

impl Cuda<Bf16> {
    /// Computes deferred activations into memory, and the mask of their ReLU.
    pub(super) fn materialize_into(&self, d: &ChannelDims, deferred: &Deferred, Output { data, mask }: &mut Output) {
        let grid = tuning::pixels_bf16(d);
        // SAFETY: batches have the elements of `d`, vectors one per channel, the mask a byte for eight channels.
        unsafe { launch::materialize(self, grid, *d, deferred.arg(), mask.as_mut(), data) };
    }

    /// The gradient that came through the ReLU of a normalisation of `x`, and the sums of it.
    fn sums(
        &self,
        d: &ChannelDims,
        b: &NormBwd<'_, Self>,
        x: &Arc<Device<u16>>,
        dy: &Batch,
    ) -> (Arc<Device<u16>>, NormSums) {
        let [mean, var] = [&b.stats.mean, &b.stats.var].map(PlainBuf::f32);
        let dy = self.cast_bf16(d, dy);
        let dy = self.data(&dy);
        let mask = b.activated.map(|activated| match activated.y {
            Batch::Bf16(y) if y.d == *d => self.materialize(y).mask.as_ref().expect("the output of a ReLU"),
            _ => unreachable!("an output that is not this normalisation's"),
        });
        let grid = tuning::pixels_bf16(d);
        let mut partials = self.alloc((d.c * grid.blocks[0]) as usize);
        let mut g = mask.map(|_| self.alloc_activations(d));
        let (mut dgamma, mut dbeta) = (self.alloc(d.c as usize), self.alloc(d.c as usize));
        let (splits, warps) = (grid.blocks[0], tuning::channel_warps(d.c));
        // SAFETY: batches have the elements of `d`, vectors one per channel, the mask a byte for eight channels, and `partials` a pair for
        // each channel and block.
        unsafe {
            launch::batch_norm_bwd_sums_bf16(self, grid, *d, x, mean, mask, dy, g.as_mut(), &mut partials);
            launch::batch_norm_bwd_finish(self, warps, d.c, b.eps, splits, var, &partials, &mut dgamma, &mut dbeta);
        }
        let sums = NormSums { of: x.clone(), dgamma: Arc::new(dgamma), dbeta: Arc::new(dbeta) };
        (g.map_or_else(|| dy.clone(), Arc::new), sums)
    }
}

fn vector(buf: &Buf) -> Arc<Device<f32>> {
    buf.data.clone()
}

impl Norm for Cuda<Bf16> {
    fn channel_stats(&self, d: &ChannelDims, x: &Batch) -> ChannelStats<Buf> {
        if let Batch::Bf16(Activations { d: of, statistics: Some([mean, var]), .. }) = x {
            assert_eq!(of, d);
            return ChannelStats { mean: mean.clone().into(), var: var.clone().into() };
        }
        let ChannelStats { mean, var } = self.precision.f32.channel_stats(d, &Bf16::cast_f32(self, x));
        ChannelStats { mean: mean.into(), var: var.into() }
    }

    fn batch_norm_fwd(&self, d: &ChannelDims, f: &NormFwd<'_, Self>, stats: &ChannelStats<Buf>) -> Batch {
        let NormFwd { eps, x, gamma, beta, residual, activation } = *f;
        let vectors = [&stats.mean, &stats.var, gamma, beta].map(vector);
        assert!(vectors.iter().all(|vector| vector.len() == d.c as usize));
        let [mean, var, gamma, beta] = vectors;
        let normalization = Normalization { mean, var, gamma, beta: Some(beta), eps };
        let p = NormalizedInput {
            data: self.data(&self.cast_bf16(d, x)).clone(),
            normalization: Some(normalization),
            activation: Activation::Identity,
        };
        let q = residual.map(|residual| {
            let residual = self.cast_bf16(d, residual);
            self.reader(&residual).single().unwrap_or_else(|| NormalizedInput::of(self.data(&residual)))
        });
        Activations::deferred(d, Deferred { p, q, activation, gradient: None }).into()
    }

    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Self>, dy: Batch) -> NormGrads<Self> {
        let [mean, var, gamma] = [&b.stats.mean, &b.stats.var, b.gamma].map(vector);
        assert_eq!([&mean, &var, &gamma].map(|vector| vector.len()), [d.c as usize; 3]);
        let x = self.cast_bf16(d, b.x);
        let x = self.data(&x);
        let of_this = |sums: &&NormSums| Arc::ptr_eq(&sums.of, x);
        let taken = match &dy {
            Batch::Bf16(dy) => dy.sums.iter().find(of_this).map(|sums| (self.data(dy).clone(), sums)),
            Batch::F32(_) => None,
        };
        let made;
        let (g, NormSums { dgamma, dbeta, .. }) = match taken {
            Some((g, sums)) => (g, sums),
            None => {
                made = self.sums(d, b, x, &dy);
                (made.0.clone(), &made.1)
            }
        };
        let share = if b.batch_stats { 1.0 / (d.n as f32 * d.hw as f32) } else { 0.0 };
        let normalization = Normalization { mean, var, gamma, beta: None, eps: b.eps };
        let deferred = Deferred {
            p: NormalizedInput::of(&g),
            q: Some(NormalizedInput {
                data: x.clone(),
                normalization: Some(normalization),
                activation: Activation::Identity,
            }),
            activation: Activation::Identity,
            gradient: Some(NormGradient { dgamma: dgamma.clone(), dbeta: dbeta.clone(), share }),
        };
        let dresidual = b.residual.then(|| {
            let mut dresidual = Activations::shared(d, g);
            if let Batch::Bf16(dy) = &dy {
                // Those of the normalisation that made the residual.
                dresidual.sums.extend(dy.sums.iter().filter(|sums| !of_this(sums)).cloned());
            }
            dresidual.into()
        });
        let (dgamma, dbeta) = (dgamma.clone().into(), dbeta.clone().into());
        NormGrads { dx: Activations::deferred(d, deferred).into(), dgamma, dbeta, dresidual }
    }

    fn update_running_stats(&self, momentum: f32, updates: &mut [RunningUpdate<'_, Buf>]) {
        self.update_all_running_stats(momentum, updates);
    }
}
