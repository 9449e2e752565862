//! Batch normalisation of activations in bf16. Forwards it puts statistics together and describes its output; on the way back it
//! does the same if a convolution has taken the sums.

use std::sync::Arc;

use super::{Batch, Buf, Device, Mixed};
use crate::backend::cuda::bf16::deferred::{Affine, NormGradient, Operand, OperandArg, Room, Sums, Term};
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::tuning;
use crate::backend::{ChannelStats, Norm, NormBwd, NormGrads, RunningMove};
use crate::base::dims::ChannelDims;

kernels! { "bf16/norm":
    materialize(d: ChannelDims, of: OperandArg, mask: Option<&mut Device<u8>>, y: &mut Device<u16>);
    batch_norm_bwd_sums_bf16(
        d: ChannelDims, x: &Device<u16>, mean: &Device<f32>, mask: Option<&Device<u8>>, dy: &Device<u16>,
        g: Option<&mut Device<u16>>, partials: &mut Device<[f32; 2]>,
    );
    batch_norm_bwd_finish(
        c: u32, eps: f32, splits: u32, var: &Device<f32>, partials: &Device<[f32; 2]>, dgamma: &mut Device<f32>,
        dbeta: &mut Device<f32>,
    );
}

by_value!(OperandArg);

impl Mixed {
    /// Writes what an operand describes, and what its ReLU lets through.
    pub(super) fn write_operand(&self, d: &ChannelDims, operand: &Operand, Room { data, mask }: &mut Room) {
        let grid = tuning::pixels_bf16(d);
        // SAFETY: batches have the elements of `d`, vectors one per channel, the mask one per piece.
        unsafe { launch::materialize(&self.exact, grid, *d, operand.arg(), mask.as_mut(), data) };
    }

    /// What came through the ReLU of a normalisation of `x`, and the sums of it.
    fn sums(&self, d: &ChannelDims, b: &NormBwd<'_, Buf>, x: &Arc<Device<u16>>) -> (Arc<Device<u16>>, Sums) {
        let [mean, var] = [&b.stats.mean, &b.stats.var].map(Buf::f32);
        let dy = self.in_bf16(d, b.dy);
        let dy = self.data(&dy);
        let mask = b.relu.map(|y| match y {
            Buf::Batch(y) if y.d == *d => self.write(y).mask.as_ref().expect("the output of a ReLU"),
            _ => unreachable!("an output that is not this normalisation's"),
        });
        let grid = tuning::pixels_bf16(d);
        let mut part = self.exact.alloc((d.c * grid.blocks[0]) as usize);
        let mut g = mask.map(|_| self.alloc(d));
        let (mut dgamma, mut dbeta) = (self.exact.alloc(d.c as usize), self.exact.alloc(d.c as usize));
        let (parts, warps) = (grid.blocks[0], tuning::channel_warps(d.c));
        // SAFETY: batches have the elements of `d`, vectors one per channel, the mask one per piece, and `part` a pair for
        // each channel and block.
        unsafe {
            launch::batch_norm_bwd_sums_bf16(&self.exact, grid, *d, x, mean, mask, dy, g.as_mut(), &mut part);
            launch::batch_norm_bwd_finish(&self.exact, warps, d.c, b.eps, parts, var, &part, &mut dgamma, &mut dbeta);
        }
        let sums = Sums { of: x.clone(), dgamma: Arc::new(dgamma), dbeta: Arc::new(dbeta) };
        (g.map_or_else(|| dy.clone(), Arc::new), sums)
    }
}

fn vector(buf: &Buf) -> Arc<Device<f32>> {
    buf.exact().data.clone()
}

impl Norm for Mixed {
    fn channel_stats(&self, d: &ChannelDims, x: &Buf) -> ChannelStats<Buf> {
        if let Buf::Batch(Batch { d: of, statistics: Some([mean, var]), .. }) = x {
            assert_eq!(of, d);
            return ChannelStats { mean: mean.clone().into(), var: var.clone().into() };
        }
        let ChannelStats { mean, var } = self.exact.channel_stats(d, &self.in_f32(x));
        ChannelStats { mean: mean.into(), var: var.into() }
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
        let vectors = [&stats.mean, &stats.var, gamma, beta].map(vector);
        assert!(vectors.iter().all(|vector| vector.len() == d.c as usize));
        let [mean, var, gamma, beta] = vectors;
        let affine = Affine { mean, var, gamma, beta: Some(beta), eps };
        let p = Term { data: self.data(&self.in_bf16(d, x)).clone(), affine: Some(affine), relu: false };
        let q = residual.map(|residual| {
            let residual = self.in_bf16(d, residual);
            self.operand(&residual).term().unwrap_or_else(|| Term::of(self.data(&residual)))
        });
        Batch::described(d, Operand { p, q, relu, gradient: None }).into()
    }

    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Buf>) -> NormGrads<Buf> {
        let [mean, var, gamma] = [&b.stats.mean, &b.stats.var, b.gamma].map(vector);
        assert_eq!([&mean, &var, &gamma].map(|vector| vector.len()), [d.c as usize; 3]);
        let x = self.in_bf16(d, b.x);
        let x = self.data(&x);
        let of_this = |sums: &&Sums| Arc::ptr_eq(&sums.of, x);
        let taken = match b.dy {
            Buf::Batch(dy) => dy.sums.iter().find(of_this).map(|sums| (self.data(dy).clone(), sums)),
            Buf::Exact(_) => None,
        };
        let made;
        let (g, Sums { dgamma, dbeta, .. }) = match taken {
            Some((g, sums)) => (g, sums),
            None => {
                made = self.sums(d, b, x);
                (made.0.clone(), &made.1)
            }
        };
        let share = if b.batch_stats { 1.0 / (d.n as f32 * d.hw as f32) } else { 0.0 };
        let affine = Affine { mean, var, gamma, beta: None, eps: b.eps };
        let operand = Operand {
            p: Term::of(&g),
            q: Some(Term { data: x.clone(), affine: Some(affine), relu: false }),
            relu: false,
            gradient: Some(NormGradient { dgamma: dgamma.clone(), dbeta: dbeta.clone(), share }),
        };
        let dresidual = b.residual.then(|| {
            let mut dresidual = Batch::shared(d, g);
            if let Buf::Batch(dy) = b.dy {
                // Those of the normalisation that made the residual.
                dresidual.sums.extend(dy.sums.iter().filter(|sums| !of_this(sums)).cloned());
            }
            dresidual.into()
        });
        let (dgamma, dbeta) = (dgamma.clone().into(), dbeta.clone().into());
        NormGrads { dx: Batch::described(d, operand).into(), dgamma, dbeta, dresidual }
    }

    fn move_running(&self, momentum: f32, moves: &mut [RunningMove<'_, Buf>]) {
        self.exact.move_all(
            momentum,
            moves.iter_mut().map(|RunningMove { unbias, batch, running }| {
                let batch = [&batch.mean, &batch.var].map(Buf::f32);
                (*unbias, batch, [running.mean.f32_mut(), running.var.f32_mut()])
            }),
        );
    }
}
