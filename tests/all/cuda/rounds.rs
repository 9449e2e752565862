//! Sizes for which the blocks of a launch, of which there are at most 2048, go round more than once, and others that no network
//! of the tests has.

use engine::backend::cpu::Cpu;
use engine::backend::cuda::bf16::Buf;
use engine::backend::cuda::{Bf16, Cuda};
use engine::backend::{Activation, AdmmParam, Backend, Constraint, Conv, LossKind, Memory, Optim, SgdParam, SgdStep};
use engine::base::dims::{ChannelDims, Conv2dDims, LogitDims, Pool2dDims};
use engine::base::rng::{Rng, Stream};

use super::bf16::rounded;
use crate::backends::{labels, normal, on_cuda, relu_output};
use crate::compare::assert_close;

on_cuda! { steps_of_an_attack, selection, many_selections, more_ties_than_blocks, pooling, samples }

/// The CPU goes over elements in rounds of its own.
mod everywhere {
    use super::elements;

    crate::backends::on_every_backend! { elements }
}

mod bf16 {
    use super::{conversions, many_weights};

    crate::backends::on_bf16! { conversions, many_weights }
}

/// More elements than 2048 blocks of 256 threads take by fours.
const MANY: usize = (1 << 21) + 4;

/// Numbers from -0.5 to 0.5 that repeat after so many: a prime, so that no two rounds of a launch see the same ones.
fn repeated(len: usize, period: usize) -> Vec<f32> {
    (0..len).map(|i| (i % period) as f32 / period as f32 - 0.5).collect()
}

/// In less than a block, in a few blocks and in a second round.
pub fn elements<B: Backend>(backend: &B) {
    for len in [3, 45, MANY + 1] {
        elements_of(backend, len);
    }
}

fn elements_of<B: Backend>(backend: &B, len: usize) {
    let (a, b) = (repeated(len, 251), repeated(len, 509));
    let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let (x, y) = (backend.upload_batch(1, &a), backend.upload_batch(1, &b));
    let download = |x: &B::Batch| backend.download_batch(1, x);
    assert!(download(&backend.add(&x, &y)) == sums);
    assert!(backend.download(&backend.full(len, 2.5)) == vec![2.5; len]);
    assert!(backend.download(&backend.zeros(len)) == vec![0.0; len]);
    let mut sum = backend.copy_batch(&x);
    backend.add_assign(&y, &mut sum);
    assert!(download(&sum) == sums && download(&x) == a);
    let output = backend.activation_fwd(Activation::Relu, &x);
    assert!(download(&output) == a.iter().map(|a| a.max(0.0)).collect::<Vec<_>>());
    let passed: Vec<f32> = a.iter().zip(&b).map(|(a, b)| if *a > 0.0 { *b } else { 0.0 }).collect();
    assert!(download(&backend.activation_bwd(relu_output(&output), &y)) == passed);
    let masked: Vec<f32> = a.iter().zip(&b).map(|(a, b)| if *a == 0.0 { 0.0 } else { *b }).collect();
    let (x, y) = (backend.upload(&a), backend.upload(&b));
    let mut sum = backend.upload(&b);
    backend.add_assign_param(&x, &mut sum);
    assert!(backend.download(&sum) == sums);
    assert!(backend.download(&backend.masked_copy(&x, &y)) == masked);
    let mut in_place = y;
    backend.apply_mask(&x, &mut in_place);
    assert!(backend.download(&in_place) == masked);
}

/// To the bits of the CPU.
pub fn steps_of_an_attack<B: Backend>(backend: &B) {
    fn attacked<B: Backend>(backend: &B) -> (Vec<f32>, [u64; 2]) {
        let (n, features, eps) = (8, MANY / 8 + 1, 0.3);
        let up = |values: &[f32]| backend.upload_batch(n, values);
        let clean = up(&repeated(n * features, 251).iter().map(|x| x + 0.5).collect::<Vec<_>>());
        let rng = Rng::new(6, Stream::TrainAttack, 2);
        let mut x = backend.random_start(n, features, eps, &rng, 0, &clean);
        // With 0 in the middle of each period.
        let dx = up(&(0..n * features).map(|i| (i % 509) as f32 - 254.0).collect::<Vec<_>>());
        let mut metrics = backend.metrics();
        backend.pgd_step(n, eps, 0.1, &clean, &dx, &mut x, &mut metrics);
        let counts = backend.metrics_read(&metrics);
        (backend.download_batch(n, &x), [counts.gradients, counts.zero_gradients])
    }
    assert!(attacked(backend) == attacked(&Cpu::<f32>::new(1).unwrap()));
}

/// Masks of rows and columns, and an update of ADMM, whose norms are put together from more blocks than one has threads.
pub fn selection<B: Backend>(backend: &B) {
    let (rows, cols) = (1449, 1450);
    let keep = |len: usize, period: usize| -> Vec<f32> { (0..len).map(|i| f32::from(i % period == 0)).collect() };
    let (of_rows, of_cols) = (keep(rows, 3), keep(cols, 7));
    let broadcast = backend.broadcast_rows(rows, cols, &backend.upload(&of_rows));
    assert!(backend.download(&broadcast) == (0..rows * cols).map(|i| of_rows[i / cols]).collect::<Vec<_>>());
    let broadcast = backend.broadcast_columns(rows, cols, &backend.upload(&of_cols));
    assert!(backend.download(&broadcast) == (0..rows * cols).map(|i| of_cols[i % cols]).collect::<Vec<_>>());

    let [w, old, u] = [251, 509, 1021].map(|period| repeated(MANY + 1, period));
    let mask = keep(MANY + 1, 3);
    let sums: Vec<f32> = w.iter().zip(&u).map(|(w, u)| w + u).collect();
    let kept: Vec<f32> = sums.iter().zip(&mask).map(|(sum, mask)| sum * mask).collect();
    let left: Vec<f32> = sums.iter().zip(&kept).map(|(sum, kept)| sum - kept).collect();
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let want = [apart(&w, &kept), apart(&kept, &old), w.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()];
    let (mut z, mut dual) = (backend.upload(&old), backend.upload(&sums));
    let (mask, w) = (backend.upload(&mask), backend.upload(&w));
    let param = AdmmParam { mask: &mask, w: &w, z: &mut z, u: &mut dual };
    let norms = backend.admm_update(&mut [param]);
    assert_close("norms", &[norms[0].primal, norms[0].dual, norms[0].weight], &want, 1e-9, 0.0);
    assert!(backend.download(&z) == kept && backend.download(&dual) == left);
}

/// The mask of the `k` largest magnitudes, of equal ones the first.
fn largest(k: usize, x: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].abs().total_cmp(&x[a].abs()).then(a.cmp(&b)));
    let mut mask = vec![0.0; x.len()];
    order[..k].iter().for_each(|&i| mask[i] = 1.0);
    mask
}

/// From more tensors than a launch's table has room for, one of which is empty and one without anything to keep.
pub fn many_selections<B: Backend>(backend: &B) {
    let tensors: Vec<Vec<f32>> =
        (0..70).map(|i| normal(i, 7 * i as usize).iter().map(|x| (4.0 * x).round()).collect()).collect();
    let bufs: Vec<B::Buf> = tensors.iter().map(|x| backend.upload(x)).collect();
    let keep = |x: &[f32]| x.len() * (x.len() % 5) / 4;
    let selections: Vec<(usize, &B::Buf)> = tensors.iter().zip(&bufs).map(|(x, buf)| (keep(x), buf)).collect();
    let masks = backend.top_k_masks(&selections);
    assert_eq!(masks.len(), tensors.len());
    for (i, (mask, x)) in masks.iter().zip(&tensors).enumerate() {
        assert!(backend.download(mask.as_ref().unwrap()) == largest(keep(x), x), "tensor {i}");
    }
}

/// Equal magnitudes in more shares than a block has threads, and the last that is kept in one of the last shares.
pub fn more_ties_than_blocks<B: Backend>(backend: &B) {
    let len = 260 * 16_384 + 5;
    let value = |i: usize| match i {
        i if i % 1000 == 999 => -1.0,
        i if i % 7 == 3 => 0.25,
        _ => 0.5,
    };
    let x: Vec<f32> = (0..len).map(value).collect();
    let larger = x.iter().filter(|x| x.abs() == 1.0).count();
    let equal: Vec<usize> = (0..len).filter(|&i| x[i] == 0.5).collect();
    let last = equal[equal.len() - 20_000];
    let kept = equal.partition_point(|&i| i <= last);
    let mask = backend.top_k_masks(&[(larger + kept, &backend.upload(&x))]).remove(0).unwrap();
    let want = |i: usize| f32::from(x[i].abs() == 1.0 || (x[i] == 0.5 && i <= last));
    assert!(backend.download(&mask) == (0..len).map(want).collect::<Vec<_>>());
}

/// Windows of 2 x 2 side by side and planes of four pixels, which have kernels of their own.
pub fn pooling<B: Backend>(backend: &B) {
    fn pooled<B: Backend>(backend: &B) -> [Vec<f32>; 4] {
        let n = 8;
        let d = Pool2dDims::new([n, 1, 512, 514], 2, 2).unwrap();
        let (x, dy) = (repeated(n * 512 * 514, 251), repeated(n * 256 * 257, 509));
        let (y, indices) = backend.max_pool2d_fwd(&d, &backend.upload_batch(n, &x));
        let dx = backend.max_pool2d_bwd(&d, &indices, None, &backend.upload_batch(n, &dy));
        let [largest, won] = [y, dx].map(|buf| backend.download_batch(n, &buf));

        let planes = n * (MANY / 32 + 1);
        let d = ChannelDims::new([n, planes / n, 2, 2]);
        let mean = backend.avg_pool_fwd(&d, &backend.upload_batch(n, &repeated(4 * planes, 251)));
        let dx = backend.avg_pool_bwd(&d, &backend.upload_batch(n, &repeated(planes, 509)));
        let [mean, shared] = [mean, dx].map(|buf| backend.download_batch(n, &buf));
        [largest, won, mean, shared]
    }
    let want = pooled(&Cpu::<f64>::new(2).unwrap());
    for (what, (got, want)) in ["max", "dx of max", "mean", "dx of mean"].iter().zip(pooled(backend).iter().zip(&want))
    {
        assert_close(what, got, want, 1e-6, 0.0);
    }
}

/// More samples than the one block of a loss takes at a time, of few and of many classes, and than the blocks that predict.
pub fn samples<B: Backend>(backend: &B) {
    for (n, classes) in [(16_391, 3), (300, 10), (70, 40)] {
        let d = LogitDims { n: n as u32, classes };
        let (logits, labels) = (normal(n as u64, n * classes as usize), labels(2, n, classes));
        let (cpu, what) = (Cpu::<f64>::new(2).unwrap(), format!("{d:?}"));
        let (want, got) = (judged(&cpu, &d, &logits, &labels), judged(backend, &d, &logits, &labels));
        assert_eq!(got.predictions, want.predictions, "{what}");
        assert_eq!(got.correct, want.correct, "{what}");
        assert_close(&format!("{what}: losses"), &got.losses, &want.losses, 1e-6, 0.0);
        assert_close(&format!("{what}: dlogits"), &got.dlogits, &want.dlogits, 1e-6, 0.0);
    }
}

struct Judged {
    predictions: Vec<u8>,
    /// Samples, and correct ones.
    correct: [u64; 2],
    /// Cross-entropy and margin of the batch; cross-entropy of the metrics.
    losses: [f64; 3],
    dlogits: Vec<f32>,
}

fn judged<B: Backend>(backend: &B, d: &LogitDims, logits: &[f32], labels: &[u8]) -> Judged {
    let n = d.n as usize;
    let (logits, labels) = (backend.upload_batch(n, logits), backend.labels(labels));
    let [entropy, margin] = [LossKind::CrossEntropy, LossKind::Margin].map(|kind| {
        let out = backend.loss_fwd(d, kind, 0.5, &logits, &labels);
        (f64::from(backend.download(&out.loss)[0]), backend.download_batch(n, &out.dlogits))
    });
    let mut metrics = backend.metrics();
    backend.metrics_add(d, &logits, &labels, &mut metrics);
    let counts = backend.metrics_read(&metrics);
    Judged {
        predictions: backend.predictions(d, &logits),
        correct: [counts.samples, counts.correct],
        losses: [entropy.0, margin.0, counts.loss],
        dlogits: [entropy.1, margin.1].concat(),
    }
}

/// An update of more convolutions' weights than are packed in one launch.
pub fn many_weights(backend: &Cuda<Bf16>) {
    let d = Conv2dDims::new([1, 8, 2, 2], 8, 1, 1, 0).unwrap();
    let images = backend.upload_activations(&ChannelDims::new(d.x()), &rounded(&normal(1, 32)));
    let values: Vec<Vec<f32>> = (0..50).map(|i| rounded(&normal(2 + i, 64))).collect();
    let mut weights: Vec<Buf> = values.iter().map(|values| backend.upload(values)).collect();
    let outputs = |weights: &[Buf]| -> Vec<Vec<f32>> {
        let output = |w| backend.download_batch(1, &backend.conv2d_fwd(&d, &images, w, None, Activation::Identity));
        weights.iter().map(output).collect()
    };
    let before = outputs(&weights);
    // w - 3 w is exact of what was rounded, and so are outputs that are twice as large with the other sign.
    let gradients: Vec<Buf> =
        values.iter().map(|w| backend.upload(&w.iter().map(|w| 3.0 * w).collect::<Vec<_>>())).collect();
    let mut state: Vec<Buf> = values.iter().map(|w| backend.zeros(w.len())).collect();
    let params = weights.iter_mut().zip(&gradients).zip(&mut state);
    let mut params: Vec<_> = params.map(|((w, g), v)| SgdParam { constraint: Constraint::Free, g, v, w }).collect();
    backend.sgd_step(&SgdStep { lr: 1.0, momentum: 0.0, weight_decay: 0.0 }, &mut params);
    let after = outputs(&weights);
    for (i, (before, after)) in before.iter().zip(&after).enumerate() {
        assert_eq!(*after, before.iter().map(|y| -2.0 * y).collect::<Vec<_>>(), "weight {i}");
    }
}

/// To bf16 and back: pixels of one channel, which have a thread each.
pub fn conversions(backend: &Cuda<Bf16>) {
    let d = ChannelDims::new([1, 1, 725, 725]);
    let values = rounded(&repeated(725 * 725, 251));
    assert!(backend.download_batch(1, &backend.upload_activations(&d, &values)) == values);
}
