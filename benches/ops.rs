//! The CPU backend's ops one by one, on one thread: `cargo bench --bench ops`, or `... --bench ops conv` for some.
//!
//! Items a second are floating-point operations, bytes a second what an op must read and write at least. A convolution is
//! counted as its definition has it, two operations a tap: a kernel that needs fewer shows more than the processor's peak.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use engine::backend::cpu::{Buf, Cpu, LANES, VectorPath};
use engine::backend::{
    Activated, Activation, ChannelStats, Conv, ConvPool, Elementwise, Linear, Loss, LossKind, Memory, Norm, NormBwd,
    Pgd,
};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims, LogitDims, Pool2dDims};
use engine::base::rng::{Rng, Stream};

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

/// A convolution of the paper's networks.
#[derive(Debug, Clone, Copy)]
struct Layer {
    name: &'static str,
    n: usize,
    /// `c_in, size, c_out, k, stride, pad`
    conv: [usize; 6],
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Layer {
    fn dims(&self) -> Conv2dDims {
        let [c_in, size, c_out, k, stride, pad] = self.conv;
        Conv2dDims::new([self.n, c_in, size, size], c_out, k, stride, pad).expect("a layer of the paper")
    }

    fn operations(&self) -> ItemsCount {
        ItemsCount::new(2 * self.dims().multiply_adds() * self.n as u64)
    }
}

const fn layer(name: &'static str, n: usize, conv: [usize; 6]) -> Layer {
    Layer { name, n, conv }
}

/// Of LeNet, with the images of one part of an attack.
const LENET: &[Layer] = &[
    layer("lenet w1 conv1", LANES, [1, 28, 2, 5, 1, 2]),
    layer("lenet w1 conv2", LANES, [2, 14, 4, 5, 1, 2]),
    layer("lenet w16 conv1", LANES, [1, 28, 32, 5, 1, 2]),
    layer("lenet w16 conv2", LANES, [32, 14, 64, 5, 1, 2]),
];

/// Of ResNet-18, with two blocks of images.
const RESNET18: &[Layer] = &[
    layer("resnet w1 4x32", 32, [4, 32, 4, 3, 1, 1]),
    layer("resnet w4 16x32", 32, [16, 32, 16, 3, 1, 1]),
    layer("resnet w16 64x32", 32, [64, 32, 64, 3, 1, 1]),
    layer("resnet w16 128x16", 32, [128, 16, 128, 3, 1, 1]),
    layer("resnet w16 256x8", 32, [256, 8, 256, 3, 1, 1]),
    layer("resnet w16 512x4", 32, [512, 4, 512, 3, 1, 1]),
    layer("resnet w16 64x32 stride 2", 32, [64, 32, 128, 3, 2, 1]),
    layer("resnet w16 64x32 1x1", 32, [64, 32, 128, 1, 2, 0]),
];

#[divan::bench(args = RESNET18)]
fn conv2d_fwd(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (cpu, d) = (cpu(), layer.dims());
    let (x, w) = (batch(&cpu, layer.n, d.x()[1..].iter().product()), cpu.upload(&normal(d.w().iter().product())));
    bencher.counter(layer.operations()).bench_local(|| cpu.conv2d_fwd(&d, &x, &w, None, Activation::Identity));
}

#[divan::bench(args = RESNET18)]
fn conv2d_bwd_input(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (cpu, d) = (cpu(), layer.dims());
    let [x, dy] = [d.x(), d.y()].map(|dims| batch(&cpu, layer.n, dims[1..].iter().product()));
    let w = cpu.upload(&normal(d.w().iter().product()));
    bencher.counter(layer.operations()).bench_local(|| cpu.conv2d_bwd_input(&d, &x, &dy, &w));
}

#[divan::bench(args = RESNET18)]
fn conv2d_bwd_weight(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (cpu, d) = (cpu(), layer.dims());
    let x = batch(&cpu, layer.n, d.x()[1..].iter().product());
    let dy = batch(&cpu, layer.n, d.y()[1..].iter().product());
    bencher.counter(layer.operations()).bench_local(|| cpu.conv2d_bwd_weight(&d, &x, &dy));
}

#[divan::bench(args = LENET)]
fn conv2d_pool_fwd(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (cpu, d) = (cpu(), layer.dims());
    let p = Pool2dDims::new(d.y(), 2, 2).expect("an even image");
    let (x, w) = (batch(&cpu, layer.n, d.x()[1..].iter().product()), cpu.upload(&normal(d.w().iter().product())));
    bencher.counter(layer.operations()).bench_local(|| cpu.conv2d_pool_fwd(&d, &p, &x, &w, None, Activation::Relu));
}

#[divan::bench(args = LENET)]
fn conv2d_pool_bwd_input(bencher: Bencher<'_, '_>, layer: &Layer) {
    let (cpu, d) = (cpu(), layer.dims());
    let p = Pool2dDims::new(d.y(), 2, 2).expect("an even image");
    let (x, w) = (batch(&cpu, layer.n, d.x()[1..].iter().product()), cpu.upload(&normal(d.w().iter().product())));
    let (y, indices) = cpu.conv2d_pool_fwd(&d, &p, &x, &w, None, Activation::Relu);
    bencher.counter(layer.operations()).bench_local(|| {
        cpu.conv2d_pool_bwd_input(&d, &p, &indices, &x, Activated { activation: Activation::Relu, y: &y }, &y, &w)
    });
}

/// fc1 of LeNet: inputs and outputs at w = 1 and 16.
const LINEAR: [[usize; 2]; 2] = [[196, 64], [3136, 1024]];

fn linear(
    bencher: Bencher<'_, '_>,
    [f_in, f_out]: [usize; 2],
    op: impl Fn(&Cpu<f32>, &LinearDims, [&Buf<f32>; 3]) -> Buf<f32>,
) {
    let (cpu, n) = (cpu(), LANES);
    let d = LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
    let (x, dy, w) = (batch(&cpu, n, f_in), batch(&cpu, n, f_out), cpu.upload(&normal(f_in * f_out)));
    let bencher = bencher.counter(ItemsCount::new(2 * n * f_in * f_out)).counter(BytesCount::new(4 * f_in * f_out));
    bencher.bench_local(|| op(&cpu, &d, [&x, &dy, &w]));
}

#[divan::bench(args = LINEAR)]
fn linear_fwd(bencher: Bencher<'_, '_>, features: [usize; 2]) {
    linear(bencher, features, |cpu, d, [x, _, w]| cpu.linear_fwd(d, x, w, None, Activation::Relu));
}

#[divan::bench(args = LINEAR)]
fn linear_bwd_input(bencher: Bencher<'_, '_>, features: [usize; 2]) {
    linear(bencher, features, |cpu, d, [_, dy, w]| cpu.linear_bwd_input(d, dy, w));
}

#[divan::bench(args = LINEAR)]
fn linear_bwd_weight(bencher: Bencher<'_, '_>, features: [usize; 2]) {
    linear(bencher, features, |cpu, d, [x, dy, _]| cpu.linear_bwd_weight(d, x, dy));
}

/// The first activations of ResNet-18 at w = 1 and 16, 128 images: 2 MB, which a cache holds, and 34 MB.
const CHANNELS: [usize; 2] = [4, 64];

fn norm(
    bencher: Bencher<'_, '_>,
    c: usize,
    passes: usize,
    op: impl Fn(&Cpu<f32>, &ChannelDims, &ChannelStats<Buf<f32>>, [&Buf<f32>; 4]),
) {
    let (cpu, n, hw) = (cpu(), 128, 1024);
    let d = ChannelDims { n, c: c as u32, hw };
    let [x, dy] = [(); 2].map(|()| batch(&cpu, n as usize, c * hw as usize));
    let (gamma, beta) = (cpu.full(c, 1.0), cpu.full(c, 0.1));
    let stats = cpu.channel_stats(&d, &x);
    bencher
        .counter(BytesCount::new(4 * passes * x.len()))
        .bench_local(|| op(&cpu, &d, &stats, [&x, &dy, &gamma, &beta]));
}

#[divan::bench(args = CHANNELS)]
fn channel_stats(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 1, |cpu, d, _, [x, ..]| drop(cpu.channel_stats(d, x)));
}

#[divan::bench(args = CHANNELS)]
fn batch_norm_fwd(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 2, |cpu, d, stats, [x, _, gamma, beta]| {
        drop(cpu.batch_norm_fwd(d, 1e-5, x, stats, gamma, beta, None, Activation::Relu));
    });
}

#[divan::bench(args = CHANNELS)]
fn batch_norm_bwd(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 7, |cpu, d, stats, [x, dy, gamma, _]| {
        let b = NormBwd {
            eps: 1e-5,
            x,
            stats,
            batch_stats: true,
            gamma,
            activated: Some(Activated { activation: Activation::Relu, y: x }),
            residual: false,
            dy,
        };
        drop(cpu.batch_norm_bwd(d, &b));
    });
}

#[divan::bench(args = CHANNELS)]
fn add(bencher: Bencher<'_, '_>, c: usize) {
    norm(bencher, c, 3, |cpu, _, _, [x, dy, ..]| drop(cpu.add(x, dy)));
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
