//! Batch normalisation with all that is fused into it, against the CPU in f64: in f32, and in mixed precision on numbers rounded
//! to bf16.

use engine::backend::cpu::Cpu;
use engine::backend::cuda::{Bf16, Cuda};
use engine::backend::{Backend, Memory, NormBwd, NormFwd};
use engine::base::dims::ChannelDims;

use super::bf16::{BF16, rounded};
use crate::backends::{drifting, normal, on_cuda, relu_if, relu_output};
use crate::compare::assert_close;
use crate::ops::definitions;

on_cuda! { in_f32 }

mod bf16 {
    use super::in_bf16;

    crate::backends::on_bf16! { in_bf16 }
}

const EPS: f32 = 1e-5;

/// Whether a residual is added, whether a ReLU follows, and whether the statistics are the batch's.
type Fused = (bool, bool, bool);

const FUSED: [Fused; 5] =
    [(true, true, true), (false, false, true), (false, true, true), (true, true, false), (true, false, true)];

struct Case {
    n: usize,
    d: ChannelDims,
    x: Vec<f32>,
    residual: Vec<f32>,
    dy: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

/// y, dx and the residual's gradient, if there is one; dgamma and dbeta.
struct Outcome {
    batches: [Option<Vec<f32>>; 3],
    vectors: [Vec<f32>; 2],
}

impl Case {
    /// Batches are what `stored` makes of numbers that drift.
    fn new(dims: [usize; 4], stored: fn(&[f32]) -> Vec<f32>) -> Self {
        let (d, [n, c, ..]) = (ChannelDims::new(dims), dims);
        let x = stored(&drifting(1, dims).iter().map(|x| 3.0 + 2.0 * x).collect::<Vec<_>>());
        let [residual, dy] = [2, 3].map(|seed| stored(&drifting(seed, dims)));
        let [mut gamma, mut beta] = [4, 5].map(|seed| normal(seed, c));
        // The last channel is exactly 0 before the residual: a ReLU lets no gradient through there.
        (gamma[c - 1], beta[c - 1]) = (0.0, 0.0);
        let mut case = Case { n, d, x, residual, dy, gamma, beta };
        // Rounding decides whether a ReLU lets through what is next to nothing: no gradient meets one there.
        let cpu = Cpu::<f64>::new(2).unwrap();
        for fused in [(false, false, true), (true, false, true)] {
            let y = case.run(&cpu, fused, |values| cpu.upload_batch(n, values)).batches[0].take().unwrap();
            case.dy.iter_mut().zip(y).filter(|(_, y)| *y != 0.0 && y.abs() < 1e-4).for_each(|(dy, _)| *dy = 0.0);
        }
        case
    }

    fn run<B: Backend>(
        &self,
        backend: &B,
        (with_residual, relu, batch_stats): Fused,
        batch: impl Fn(&[f32]) -> B::Batch,
    ) -> Outcome {
        let Case { n, d, .. } = self;
        let [x, residual, dy] = [&self.x, &self.residual, &self.dy].map(|values| batch(values));
        let [gamma, beta] = [&self.gamma, &self.beta].map(|values| backend.upload(values));
        let residual = with_residual.then_some(&residual);
        let stats = backend.channel_stats(d, &x);
        let fwd = NormFwd { eps: EPS, x: &x, gamma: &gamma, beta: &beta, residual, activation: relu_if(relu) };
        let y = backend.batch_norm_fwd(d, &fwd, &stats);
        let bwd = NormBwd {
            eps: EPS,
            x: &x,
            stats: &stats,
            batch_stats,
            gamma: &gamma,
            beta: &beta,
            activated: relu.then_some(relu_output(&y)),
            residual: with_residual,
        };
        let grads = backend.batch_norm_bwd(d, &bwd, dy);
        let batches = [Some(y), Some(grads.dx), grads.dresidual];
        Outcome {
            batches: batches.map(|buf| buf.map(|buf| backend.download_batch(*n, &buf))),
            vectors: [grads.dgamma, grads.dbeta].map(|buf| backend.download(&buf)),
        }
    }

    /// Compares with the CPU. A batch may be off by `[rtol, atol]` of `of_batches`, a vector by that of `of_vectors`.
    fn check<B: Backend>(
        &self,
        backend: &B,
        fused: Fused,
        batch: impl Fn(&[f32]) -> B::Batch,
        [of_batches, of_vectors]: [[f64; 2]; 2],
    ) {
        let cpu = Cpu::<f64>::new(2).unwrap();
        let want = self.run(&cpu, fused, |values| cpu.upload_batch(self.n, values));
        let got = self.run(backend, fused, batch);
        let (residual, relu, batch_stats) = fused;
        let what =
            |of: &str| format!("{:?}, residual {residual}, ReLU {relu}, batch statistics {batch_stats}: {of}", self.d);
        for (name, (want, got)) in ["y", "dx", "dresidual"].iter().zip(want.batches.iter().zip(&got.batches)) {
            assert_eq!(want.is_some(), got.is_some());
            if let (Some(want), Some(got)) = (want, got) {
                assert_close(&what(name), got, want, of_batches[0], of_batches[1]);
            }
        }
        for (name, (want, got)) in ["dgamma", "dbeta"].iter().zip(want.vectors.iter().zip(&got.vectors)) {
            assert_close(&what(name), got, want, of_vectors[0], of_vectors[1]);
        }
    }
}

/// Channels in more parts than a warp has lanes, in planes of fours and of odd pixels, and ones that are one part, over which
/// the block goes twice.
pub fn in_f32<B: Backend>(backend: &B) {
    let shapes: [([usize; 4], &[Fused]); 4] = [
        ([40, 4, 32, 32], &FUSED),
        ([28, 5, 17, 19], &FUSED),
        ([257, 1024, 2, 2], &FUSED[..1]),
        ([33, 1024, 3, 3], &FUSED[..1]),
    ];
    for (shape, all) in shapes {
        let case = Case::new(shape, <[f32]>::to_vec);
        for &fused in all {
            case.check(backend, fused, |values| backend.upload_batch(case.n, values), [[1e-5, 1e-6]; 2]);
        }
    }
}

/// The fifth has more vectors of eight than a block has threads; the last, more partial sums than two for each lane of a warp.
pub fn in_bf16(backend: &Cuda<Bf16>) {
    let shapes: [([usize; 4], &[Fused]); 6] = [
        ([1, 1, 1, 2], &FUSED),
        ([31, 5, 3, 7], &FUSED),
        ([40, 12, 16, 16], &FUSED),
        ([3, 33, 5, 5], &FUSED),
        ([2, 2060, 1, 2], &FUSED),
        ([65, 1032, 2, 2], &FUSED[..2]),
    ];
    for (shape, all) in shapes {
        let case = Case::new(shape, rounded);
        for &fused in all {
            // Two pixels of a channel are each other's mirror: their gradient is nothing but rounding.
            let atol = if case.d.n * case.d.hw == 2 { 1e-3 } else { 1e-6 };
            let upload = |values: &[f32]| backend.upload_activations(&case.d, values);
            case.check(backend, fused, upload, [[BF16, atol], [1e-4, 1e-5]]);
        }
    }
    definitions::running_statistics(backend);
}
