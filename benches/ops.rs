//! The CPU backend's ops one by one, on one thread: `cargo bench --bench ops`, or some of them by a regular expression, as
//! `... --bench ops 'conv2d_fwd.*w4 .*n16$'`.
//!
//! Items a second are floating-point operations, bytes a second what an op must read and write at least. A convolution is
//! counted as its definition has it, two operations a tap: a kernel that needs fewer shows more than the processor's peak.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use engine::backend::cpu::{Buf, Cpu, LANES, VectorPath};
use engine::backend::{
    Activated, Activation, ChannelStats, Conv, ConvPool, Elementwise, Linear, Loss, LossKind, Memory, Norm, NormBwd,
    NormFwd, Pgd,
};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims, LogitDims, Pool2dDims};
use engine::base::rng::{Rng, Stream};
use engine::data::DatasetName;
use engine::experiments::tables::defaults::Hyperparameters;

fn main() {
    divan::main();
}

fn cpu() -> Cpu<f32> {
    Cpu::new(1).expect("one thread")
}

/// A batch of `n` of standard normal numbers.
fn batch(cpu: &Cpu<f32>, n: usize, features: usize) -> Buf<f32> {
    cpu.upload_batch(n, &normal(n * features))
}

fn normal(len: usize) -> Vec<f32> {
    let rng = Rng::new(0, Stream::Init, 0);
    (0..len as u64).map(|i| rng.normal_at(i) as f32).collect()
}

/// What the processor can do at most: multiply-adds on sums that stay in registers.
struct Peak(u64);

impl pulp::WithSimd for Peak {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) -> f32 {
        let (a, b) = (simd.splat_f32s(0.999), simd.splat_f32s(0.001));
        let mut sums = [simd.splat_f32s(0.5); SUMS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, a, b);
            }
        }
        sums.iter().map(|&sum| simd.reduce_sum_f32s(sum)).sum()
    }
}

/// Independent sums: enough for a latency of five cycles and two multiply-adds a cycle.
const SUMS: usize = 10;

#[divan::bench(args = VectorPath::available().into_iter().filter(|&path| path != VectorPath::Portable))]
fn peak(bencher: Bencher<'_, '_>, path: &VectorPath) {
    const ROUNDS: u64 = 100_000;
    let arch = path.arch().expect("an available path");
    let lanes = if *path == VectorPath::Avx512 { 16 } else { 8 };
    bencher.counter(ItemsCount::new(2 * lanes * SUMS as u64 * ROUNDS)).bench_local(|| arch.dispatch(Peak(ROUNDS)));
}

/// The paper's widths.
const WIDTHS: [usize; 5] = [1, 2, 4, 8, 16];

/// A layer of a network, of some width and with some batch, both of which are in its name.
#[derive(Debug)]
struct Layer<D> {
    name: String,
    dims: D,
}

impl<D> std::fmt::Display for Layer<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// What `of` gives for each width, with a block of images and with the batch of the paper's trainings on `data_set`.
fn layers<D, const N: usize>(
    network: &str,
    data_set: DatasetName,
    of: impl Fn(usize, usize) -> [(&'static str, D); N],
) -> Vec<Layer<D>> {
    let mut all = Vec::new();
    for w in WIDTHS {
        for n in [LANES, Hyperparameters::of(data_set).batch] {
            let name = |layer: &str| format!("{network} w{w} {layer} n{n}");
            all.extend(of(w, n).map(|(layer, dims)| Layer { name: name(layer), dims }));
        }
    }
    all
}

/// Of `n` images; the sizes are `c_in, size, c_out, k, stride, pad`.
fn conv2d(n: usize, [c_in, size, c_out, k, stride, pad]: [usize; 6]) -> Conv2dDims {
    Conv2dDims::new([n, c_in, size, size], c_out, k, stride, pad).expect("a layer of the paper")
}

fn lenet_convs() -> Vec<Layer<Conv2dDims>> {
    layers("lenet", DatasetName::Mnist, |w, n| {
        [("conv1", conv2d(n, [1, 28, 2 * w, 5, 1, 2])), ("conv2", conv2d(n, [2 * w, 14, 4 * w, 5, 1, 2]))]
    })
}

/// One of each kind, by its kernel, its stride where that is 2, and the height of its output.
fn resnet18_convs() -> Vec<Layer<Conv2dDims>> {
    layers("resnet18", DatasetName::Cifar10, |w, n| {
        [
            ("first", conv2d(n, [3, 32, 4 * w, 3, 1, 1])),
            ("3x3 32", conv2d(n, [4 * w, 32, 4 * w, 3, 1, 1])),
            ("3x3 16", conv2d(n, [8 * w, 16, 8 * w, 3, 1, 1])),
            ("3x3 8", conv2d(n, [16 * w, 8, 16 * w, 3, 1, 1])),
            ("3x3 4", conv2d(n, [32 * w, 4, 32 * w, 3, 1, 1])),
            ("3x3/2 16", conv2d(n, [4 * w, 32, 8 * w, 3, 2, 1])),
            ("3x3/2 8", conv2d(n, [8 * w, 16, 16 * w, 3, 2, 1])),
            ("3x3/2 4", conv2d(n, [16 * w, 8, 32 * w, 3, 2, 1])),
            ("1x1/2 16", conv2d(n, [4 * w, 32, 8 * w, 1, 2, 0])),
            ("1x1/2 8", conv2d(n, [8 * w, 16, 16 * w, 1, 2, 0])),
            ("1x1/2 4", conv2d(n, [16 * w, 8, 32 * w, 1, 2, 0])),
        ]
    })
}

fn lenet_linears() -> Vec<Layer<LinearDims>> {
    let linear = |n, f_in, f_out| LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
    layers("lenet", DatasetName::Mnist, |w, n| [("fc1", linear(n, 196 * w, 64 * w)), ("fc2", linear(n, 64 * w, 10))])
}

/// A batch of `[n, c, h, w]`.
fn images(cpu: &Cpu<f32>, [n, image @ ..]: [usize; 4]) -> Buf<f32> {
    batch(cpu, n, image.iter().product())
}

fn weights(cpu: &Cpu<f32>, d: &Conv2dDims) -> Buf<f32> {
    cpu.upload(&normal(d.w().iter().product()))
}

fn operations(d: &Conv2dDims) -> ItemsCount {
    ItemsCount::new(2 * d.multiply_adds() * u64::from(d.n))
}

#[divan::bench(args = resnet18_convs())]
fn conv2d_fwd(bencher: Bencher<'_, '_>, layer: &Layer<Conv2dDims>) {
    let (cpu, d) = (cpu(), &layer.dims);
    let (x, w) = (images(&cpu, d.x()), weights(&cpu, d));
    bencher.counter(operations(d)).bench_local(|| cpu.conv2d_fwd(d, &x, &w, None, Activation::Identity));
}

#[divan::bench(args = resnet18_convs())]
fn conv2d_bwd_input(bencher: Bencher<'_, '_>, layer: &Layer<Conv2dDims>) {
    let (cpu, d) = (cpu(), &layer.dims);
    let (x, dy, w) = (images(&cpu, d.x()), images(&cpu, d.y()), weights(&cpu, d));
    bencher.counter(operations(d)).bench_local(|| cpu.conv2d_bwd_input(d, &x, &dy, &w));
}

#[divan::bench(args = resnet18_convs())]
fn conv2d_bwd_weight(bencher: Bencher<'_, '_>, layer: &Layer<Conv2dDims>) {
    let (cpu, d) = (cpu(), &layer.dims);
    let (x, dy) = (images(&cpu, d.x()), images(&cpu, d.y()));
    bencher.counter(operations(d)).bench_local(|| cpu.conv2d_bwd_weight(d, &x, &dy));
}

#[divan::bench(args = lenet_convs())]
fn conv2d_pool_fwd(bencher: Bencher<'_, '_>, layer: &Layer<Conv2dDims>) {
    let (cpu, d) = (cpu(), &layer.dims);
    let p = Pool2dDims::new(d.y(), 2, 2).expect("an even image");
    let (x, w) = (images(&cpu, d.x()), weights(&cpu, d));
    bencher.counter(operations(d)).bench_local(|| cpu.conv2d_pool_fwd(d, &p, &x, &w, None, Activation::Relu));
}

#[divan::bench(args = lenet_convs())]
fn conv2d_pool_bwd_input(bencher: Bencher<'_, '_>, layer: &Layer<Conv2dDims>) {
    let (cpu, d) = (cpu(), &layer.dims);
    let p = Pool2dDims::new(d.y(), 2, 2).expect("an even image");
    let (x, w) = (images(&cpu, d.x()), weights(&cpu, d));
    let (y, indices) = cpu.conv2d_pool_fwd(d, &p, &x, &w, None, Activation::Relu);
    bencher.counter(operations(d)).bench_local(|| {
        cpu.conv2d_pool_bwd_input(d, &p, &indices, &x, Activated { activation: Activation::Relu, y: &y }, &y, &w)
    });
}

fn linear(bencher: Bencher<'_, '_>, d: &LinearDims, op: impl Fn(&Cpu<f32>, &LinearDims, [&Buf<f32>; 3]) -> Buf<f32>) {
    let [n, f_in, f_out] = [d.n, d.f_in, d.f_out].map(|size| size as usize);
    let cpu = cpu();
    let (x, dy, w) = (batch(&cpu, n, f_in), batch(&cpu, n, f_out), cpu.upload(&normal(f_in * f_out)));
    let bytes = BytesCount::new(4 * (f_in * f_out + n * (f_in + f_out)));
    let bencher = bencher.counter(ItemsCount::new(2 * n * f_in * f_out)).counter(bytes);
    bencher.bench_local(|| op(&cpu, d, [&x, &dy, &w]));
}

#[divan::bench(args = lenet_linears())]
fn linear_fwd(bencher: Bencher<'_, '_>, layer: &Layer<LinearDims>) {
    linear(bencher, &layer.dims, |cpu, d, [x, _, w]| cpu.linear_fwd(d, x, w, None, Activation::Relu));
}

#[divan::bench(args = lenet_linears())]
fn linear_bwd_input(bencher: Bencher<'_, '_>, layer: &Layer<LinearDims>) {
    linear(bencher, &layer.dims, |cpu, d, [_, dy, w]| cpu.linear_bwd_input(d, dy, w));
}

#[divan::bench(args = lenet_linears())]
fn linear_bwd_weight(bencher: Bencher<'_, '_>, layer: &Layer<LinearDims>) {
    linear(bencher, &layer.dims, |cpu, d, [x, dy, _]| cpu.linear_bwd_weight(d, x, dy));
}

/// The first activations of ResNet-18 at w = 1 and 16, 128 images: 2 MB, which a cache holds, and 34 MB.
const CHANNELS: [usize; 2] = [4, 64];

fn norm(
    bencher: Bencher<'_, '_>,
    c: usize,
    buffers: usize,
    op: impl Fn(&Cpu<f32>, &ChannelDims, &ChannelStats<Buf<f32>>, [&Buf<f32>; 3], Buf<f32>),
) {
    let (cpu, n, hw) = (cpu(), 128, 1024);
    let d = ChannelDims { n, c: c as u32, hw };
    let [x, dy] = [(); 2].map(|()| batch(&cpu, n as usize, c * hw as usize));
    let (gamma, beta) = (cpu.full(c, 1.0), cpu.full(c, 0.1));
    let stats = cpu.channel_stats(&d, &x);
    bencher
        .counter(BytesCount::new(4 * buffers * x.len()))
        .with_inputs(|| cpu.copy_batch(&dy))
        .bench_local_values(|dy| op(&cpu, &d, &stats, [&x, &gamma, &beta], dy));
}

#[divan::bench(args = CHANNELS)]
fn channel_stats(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 1, |cpu, d, _, [x, ..], _| drop(cpu.channel_stats(d, x)));
}

#[divan::bench(args = CHANNELS)]
fn batch_norm_fwd(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 2, |cpu, d, stats, [x, gamma, beta], _| {
        let fwd = NormFwd { eps: 1e-5, x, gamma, beta, residual: None, activation: Activation::Relu };
        drop(cpu.batch_norm_fwd(d, &fwd, stats));
    });
}

#[divan::bench(args = CHANNELS)]
fn batch_norm_train_fwd(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 2, |cpu, d, _, [x, gamma, beta], _| {
        let fwd = NormFwd { eps: 1e-5, x, gamma, beta, residual: None, activation: Activation::Relu };
        drop(cpu.batch_norm_train_fwd(d, &fwd));
    });
}

#[divan::bench(args = CHANNELS)]
fn batch_norm_bwd(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 3, |cpu, d, stats, [x, gamma, beta], dy| {
        let b = NormBwd {
            eps: 1e-5,
            x,
            stats,
            batch_stats: true,
            gamma,
            beta,
            activated: Some(Activated { activation: Activation::Relu, y: x }),
            residual: false,
        };
        drop(cpu.batch_norm_bwd(d, &b, dy));
    });
}

#[divan::bench(args = CHANNELS)]
fn add(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 3, |cpu, _, _, [x, ..], dy| drop(cpu.add(x, &dy)));
}

/// MNIST's, for one part of an attack.
const PIXELS: usize = 784;

#[divan::bench]
fn random_start(bencher: Bencher<'_, '_>) {
    let (cpu, rng) = (cpu(), Rng::new(0, Stream::TrainAttack, 0));
    let clean = batch(&cpu, LANES, PIXELS);
    let bytes = BytesCount::new(2 * 4 * LANES * PIXELS);
    bencher.counter(bytes).bench_local(|| cpu.random_start(LANES, PIXELS, 0.3, &rng, 0, &clean));
}

#[divan::bench]
fn pgd_step(bencher: Bencher<'_, '_>) {
    let cpu = cpu();
    let (clean, dx, mut x) = (batch(&cpu, LANES, PIXELS), batch(&cpu, LANES, PIXELS), batch(&cpu, LANES, PIXELS));
    let mut metrics = cpu.metrics();
    let bytes = BytesCount::new(4 * 4 * LANES * PIXELS);
    bencher.counter(bytes).bench_local(|| cpu.pgd_step(LANES, 0.3, 0.01, &clean, &dx, &mut x, &mut metrics));
}

#[divan::bench]
fn cross_entropy(bencher: Bencher<'_, '_>) {
    let (cpu, d) = (cpu(), LogitDims { n: LANES as u32, classes: 10 });
    let (logits, labels) = (batch(&cpu, LANES, 10), cpu.labels(&[3; LANES]));
    bencher.bench_local(|| cpu.loss_fwd(&d, LossKind::CrossEntropy, 1.0, &logits, &labels));
}
