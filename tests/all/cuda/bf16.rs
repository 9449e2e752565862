//! The ops in mixed precision against the CPU in f64 on the same numbers, rounded to bf16 as the kernels get them: what comes
//! out in f32 agrees to rounding errors of f32, what comes out in bf16 to one rounding.

use engine::autograd::ops;
use engine::autograd::tape::Tape;
use engine::autograd::tensor::{Param, Shape, Tensor};
use engine::backend::cpu::Cpu;
use engine::backend::cuda::bf16::{Batch, Buf, TILES};
use engine::backend::cuda::{Bf16, Cuda};
use engine::backend::{
    Accumulation, Activation, Backend, Conv, Elementwise, Linear, LossKind, Memory, Norm, NormBwd, NormFwd, Pool,
};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims, Pool2dDims};
use engine::nn::init::Init;
use engine::nn::models::{Architecture, Mode, Network};
use engine::nn::optim::OptimizerConfig;
use engine::train::Trainer;

use crate::backends::{drifting, labels, normal, on_bf16, relu_if, relu_output, uniform};
use crate::compare::assert_close;

on_bf16! {
    convolutions, every_tile, convolutions_that_do_not_fit, images_keep_sixteen_bits, weights_are_packed_again, deferred_activations,
    pooling, the_rest_converts, nan_passes_through, gradients_between_layers, networks,
}

/// Of a sum in f32, which tensor cores cut off where others round; of a value that is rounded to bf16 in the end.
const SUM_IN_F32: f64 = 2e-5;
pub const BF16: f64 = 1.0 / 250.0;

/// The nearest bf16, ties to even.
pub fn rounded(values: &[f32]) -> Vec<f32> {
    let bits = |x: &f32| x.to_bits();
    values.iter().map(|x| f32::from_bits((bits(x) + 0x7fff + (bits(x) >> 16 & 1)) & 0xffff_0000)).collect()
}

fn random(seed: u64, len: usize) -> Vec<f32> {
    rounded(&normal(seed, len))
}

/// Batch, channels in, side, filters, kernel, stride, padding: with several chunks of channels, phases without
/// taps, channels that fill no vec8, pixels that fill no tile, blocks that fill a group, and weight gradients that sum over more
/// stages than lie in shared memory at a time.
const CONVOLUTIONS: [[usize; 7]; 19] = [
    [3, 8, 9, 8, 3, 1, 1],
    [2, 6, 11, 12, 5, 1, 2],
    [2, 8, 13, 20, 3, 1, 1],
    [2, 16, 9, 8, 3, 2, 1],
    [2, 13, 9, 16, 3, 2, 1],
    [2, 16, 8, 32, 1, 2, 0],
    [1, 24, 12, 24, 3, 1, 0],
    [2, 72, 7, 8, 3, 1, 1],
    [2, 136, 5, 16, 3, 1, 1],
    [2, 64, 6, 24, 2, 1, 0],
    [2, 80, 6, 72, 3, 1, 1],
    [5, 8, 7, 8, 1, 2, 0],
    [2, 8, 10, 8, 3, 3, 0],
    [1, 8, 40, 8, 5, 2, 4],
    [40, 8, 2, 8, 3, 1, 1],
    [1, 8, 1, 8, 1, 1, 0],
    [66, 8, 16, 64, 1, 1, 0],
    [257, 8, 16, 8, 1, 1, 0],
    [16, 8, 16, 64, 3, 1, 1],
];

pub fn convolutions(backend: &Cuda<Bf16>) {
    check_convolutions(backend, &CONVOLUTIONS);
}

/// Channels that every tile fits, in two chunks of the deepest, and more pixels than most have; then more pixels than any has, and
/// channels that those with many pixels fit.
pub fn every_tile(backend: &Cuda<Bf16>) {
    for trial in 0..TILES.len() {
        backend.try_tiles(Some(trial));
        check_convolutions(backend, &[[6, 72, 5, 72, 3, 1, 1], [11, 24, 5, 24, 3, 1, 1]]);
    }
    backend.try_tiles(None);
}

fn check_convolutions(backend: &Cuda<Bf16>, shapes: &[[usize; 7]]) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    for &[n, c_in, side, c_out, k, stride, pad] in shapes {
        let d = Conv2dDims::new([n, c_in, side, side], c_out, k, stride, pad).unwrap();
        let [x, w, dy] = [d.x(), d.w(), d.y()].map(|dims| rounded(&drifting(dims[1] as u64, dims)));
        let b = normal(7, c_out);
        let (image, of) = (ChannelDims::new(d.x()), ChannelDims::new(d.y()));
        let want = {
            let (x, dy) = (cpu.upload_batch(n, &x), cpu.upload_batch(n, &dy));
            let (w, b) = (cpu.upload(&w), cpu.upload(&b));
            let rectified = cpu.conv2d_fwd(&d, &x, &w, Some(&b), Activation::Relu);
            let dx = cpu.conv2d_bwd_input(&d, &x, &dy, &w);
            let y = cpu.conv2d_fwd(&d, &x, &w, None, Activation::Identity);
            [y, rectified, dx]
                .map(|buf| cpu.download_batch(n, &buf))
                .into_iter()
                .chain([cpu.download(&cpu.conv2d_bwd_weight(&d, &x, &dy)), cpu.download(&cpu.bias_bwd(&of, &dy))])
        };
        let (images, dy) = (backend.upload_batch(n, &x), backend.upload_activations(&of, &dy));
        let x = backend.upload_activations(&image, &x);
        let (w, b) = (backend.upload(&w), backend.upload(&b));
        let y = backend.conv2d_fwd(&d, &x, &w, None, Activation::Identity);
        let got = [
            backend.download_batch(n, &y),
            backend.download_batch(n, &backend.conv2d_fwd(&d, &x, &w, Some(&b), Activation::Relu)),
            backend.download_batch(n, &backend.conv2d_bwd_input(&d, &x, &dy, &w)),
            backend.download(&backend.conv2d_bwd_weight(&d, &x, &dy)),
            backend.download(&backend.bias_bwd(&of, &dy)),
        ];
        let tolerances = [BF16, BF16, BF16, SUM_IN_F32, SUM_IN_F32];
        for ((what, (want, got)), rtol) in ["y", "relu", "dx", "dw", "db"].iter().zip(want.zip(&got)).zip(tolerances) {
            assert_close(&format!("{d:?}: {what}"), got, &want, rtol, 0.0);
        }
        // The output's statistics are those of what was written.
        let stats = backend.channel_stats(&of, &y);
        let want = cpu.channel_stats(&of, &cpu.upload_batch(n, &got[0]));
        for (what, got, want) in [("mean", &stats.mean, &want.mean), ("var", &stats.var, &want.var)] {
            assert_close(&format!("{d:?}: {what}"), &backend.download(got), &cpu.download(want), SUM_IN_F32, 1e-9);
        }
        // The gradient of an image is not rounded.
        if c_in > 4 {
            let dx = backend.download_batch(n, &backend.conv2d_bwd_input(&d, &images, &dy, &w));
            let as_activation = &got[2];
            assert_eq!(&rounded(&dx), as_activation, "{d:?}");
        }
    }
}

/// More taps than a kernel has, and an image so wide that three of its rows fill shared memory, though not those of its
/// gradient.
pub fn convolutions_that_do_not_fit(backend: &Cuda<Bf16>) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    for (shape, k, gradient) in [([1, 2, 9, 9], 7, SUM_IN_F32), ([1, 64, 3, 4000], 3, BF16)] {
        let d = Conv2dDims::new(shape, 3, k, 1, k / 2).unwrap();
        let [x, w, dy] = [d.x(), d.w(), d.y()].map(|dims| random(dims[1] as u64, dims.iter().product()));
        let (n, image, of) = (shape[0], ChannelDims::new(d.x()), ChannelDims::new(d.y()));
        let want = {
            let (x, dy, w) = (cpu.upload_batch(n, &x), cpu.upload_batch(n, &dy), cpu.upload(&w));
            [cpu.conv2d_fwd(&d, &x, &w, None, Activation::Identity), cpu.conv2d_bwd_input(&d, &x, &dy, &w)]
                .map(|buf| cpu.download_batch(n, &buf))
        };
        let (x, w) = (backend.upload_activations(&image, &x), backend.upload(&w));
        let dy = backend.upload_activations(&of, &dy);
        let got =
            [backend.conv2d_fwd(&d, &x, &w, None, Activation::Identity), backend.conv2d_bwd_input(&d, &x, &dy, &w)];
        for ((want, got), rtol) in want.iter().zip(&got).zip([SUM_IN_F32, gradient]) {
            assert_close(&format!("{d:?}"), &backend.download_batch(n, got), want, rtol, 0.0);
        }
    }
}

/// A difference of two pixels of an image is seen, although bf16 has no place for it.
pub fn images_keep_sixteen_bits(backend: &Cuda<Bf16>) {
    let (n, pixels) = (2, 25);
    let d = Conv2dDims::new([n, 3, 5, 5], 2, 1, 1, 0).unwrap();
    let base = uniform(1, n * pixels);
    let x: Vec<f32> = (0..n * 3 * pixels)
        .map(|i| {
            let (image, channel, pixel) = (i / (3 * pixels), i / pixels % 3, i % pixels);
            // The second channel is a little larger.
            0.5 + 0.5 * base[image * pixels + pixel] * (1.0 - 1.0 / 256.0) + channel as f32 / 1024.0
        })
        .collect();
    let w = [-1.0, 1.0, 0.0, 0.0, -1.0, 1.0];
    let y = backend.conv2d_fwd(&d, &backend.upload_batch(n, &x), &backend.upload(&w), None, Activation::Identity);
    assert_close("y", &backend.download_batch(n, &y), &[1.0_f32 / 1024.0; 100], 0.02, 0.0);
}

/// After an update a convolution sees the new weights.
pub fn weights_are_packed_again(backend: &Cuda<Bf16>) {
    let d = Conv2dDims::new([1, 8, 3, 3], 8, 1, 1, 0).unwrap();
    let (x, mut w) = (random(1, 72), backend.full(64, 0.0));
    let images = backend.upload_activations(&ChannelDims::new(d.x()), &x);
    let y = |w: &Buf| backend.download_batch(1, &backend.conv2d_fwd(&d, &images, w, None, Activation::Identity));
    assert!(y(&w).iter().all(|&y| y == 0.0));
    let identity: Vec<f32> = (0..64).map(|i| if i % 9 == 0 { 1.0 } else { 0.0 }).collect();
    backend.add_assign_param(&backend.upload(&identity), &mut w);
    assert_eq!(y(&w), x);
}

pub fn pooling(backend: &Cuda<Bf16>) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    for ([n, c, h, w], k, stride) in [
        ([2, 3, 5, 7], 2, 2),
        ([1, 9, 8, 8], 3, 2),
        ([3, 16, 4, 4], 2, 1),
        ([1, 1, 16, 16], 16, 1),
        ([1, 1, 17, 17], 17, 1),
    ] {
        let d = Pool2dDims::new([n, c, h, w], k, stride).unwrap();
        // Few values, so that there are ties.
        let x: Vec<f32> = normal(1, n * c * h * w).iter().map(|x| x.round()).collect();
        let dy = random(2, n * c * d.h_out as usize * d.w_out as usize);
        let (want_y, indices) = cpu.max_pool2d_fwd(&d, &cpu.upload_batch(n, &x));
        let want_dx =
            [None, Some(relu_output(&want_y))].map(|y| cpu.max_pool2d_bwd(&d, &indices, y, &cpu.upload_batch(n, &dy)));
        let (y, indices) = backend.max_pool2d_fwd(&d, &backend.upload_activations(&ChannelDims::new([n, c, h, w]), &x));
        let dy = backend.upload_batch(n, &dy);
        let dx = [None, Some(relu_output(&y))].map(|y| backend.max_pool2d_bwd(&d, &indices, y, &dy));
        assert_close(&format!("{d:?}: y"), &backend.download_batch(n, &y), &cpu.download_batch(n, &want_y), 0.0, 0.0);
        for (dx, want) in dx.iter().zip(&want_dx) {
            let (dx, want) = (backend.download_batch(n, dx), cpu.download_batch(n, want));
            assert_close(&format!("{d:?}: dx"), &dx, &want, BF16, 0.0);
        }
    }
    for dims in [[1, 1, 1, 1], [2, 5, 3, 3], [3, 512, 4, 4], [2, 12, 9, 9]] {
        let (d, n) = (ChannelDims::new(dims), dims[0]);
        let (x, dy) = (random(1, dims.iter().product()), normal(2, n * dims[1]));
        let want = cpu.download_batch(n, &cpu.avg_pool_fwd(&d, &cpu.upload_batch(n, &x)));
        let y = backend.avg_pool_fwd(&d, &backend.upload_activations(&d, &x));
        assert_close(&format!("{d:?}: y"), &backend.download_batch(n, &y), &want, SUM_IN_F32, 0.0);
        let want = cpu.download_batch(n, &cpu.avg_pool_bwd(&d, &cpu.upload_batch(n, &dy)));
        let dx = backend.avg_pool_bwd(&d, &backend.upload_batch(n, &dy));
        assert_close(&format!("{d:?}: dx"), &backend.download_batch(n, &dx), &want, BF16, 0.0);
    }
}

/// Copies, sums, ReLU and linear layers of activations.
pub fn the_rest_converts(backend: &Cuda<Bf16>) {
    let (n, d) = (3, ChannelDims::new([3, 5, 2, 3]));
    let [mut a, b] = [1, 2].map(|seed| random(seed, 90));
    // A ReLU lets no gradient through where its output is exactly 0.
    a.iter_mut().step_by(7).for_each(|a| *a = 0.0);
    let (x, y) = (backend.upload_activations(&d, &a), backend.upload_activations(&d, &b));
    let values = |buf: &Batch| backend.download_batch(n, buf);
    let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let masked: Vec<f32> = a.iter().zip(&b).map(|(a, b)| if *a > 0.0 { *b } else { 0.0 }).collect();
    assert_eq!(values(&backend.copy_batch(&x)), a);
    assert_eq!(values(&backend.part(n, 0..n, &x)), a);
    assert_eq!(values(&backend.join(&[&x])), a);
    assert_eq!(values(&backend.add(&x, &y)), sum);
    assert_eq!(values(&backend.activation_bwd(relu_output(&x), &y)), masked);
    assert_eq!(values(&backend.activation_fwd(Activation::Relu, &x)), a.iter().map(|a| a.max(0.0)).collect::<Vec<_>>());
    for (term, of) in [
        (&y, backend.copy_batch(&x)),
        (&backend.upload_batch(n, &b), backend.copy_batch(&x)),
        (&y, backend.upload_batch(n, &a)),
    ] {
        let mut of = of;
        backend.add_assign(term, &mut of);
        assert_close("add_assign", &values(&of), &sum, BF16, 0.0);
    }
    // Features are in PyTorch's order, whatever the activations are stored like.
    let of = LinearDims { n: 3, f_in: 30, f_out: 4 };
    let (w, dy) = (backend.upload(&normal(3, 120)), backend.upload_batch(n, &normal(4, 12)));
    let exact = backend.upload_batch(n, &a);
    let outputs = |x: &Batch| values(&backend.linear_fwd(&of, x, &w, None, Activation::Identity));
    assert_eq!(outputs(&x), outputs(&exact));
    let gradients = |x: &Batch| backend.download(&backend.linear_bwd_weight(&of, x, &dy));
    assert_eq!(gradients(&x), gradients(&exact));
}

/// A NaN in an image, in a weight and in a gradient is in all that is made of it, and nowhere else.
pub fn nan_passes_through(backend: &Cuda<Bf16>) {
    let d = Conv2dDims::new([2, 8, 6, 6], 8, 3, 1, 1).unwrap();
    let (image, of) = (ChannelDims::new(d.x()), ChannelDims::new(d.y()));
    let [x, w, dy] = [d.x(), d.w(), d.y()].map(|dims| random(dims[1] as u64, dims.iter().product()));
    let planted = |values: &[f32], at: usize| {
        let mut values = values.to_vec();
        values[at] = f32::NAN;
        values
    };
    let nans = |buf: &Batch| backend.download_batch(2, buf).iter().filter(|v| v.is_nan()).count();
    let weights = backend.upload(&w);
    // In the corner of the first image: four pixels of each of eight channels reach it.
    let corner = backend.upload_activations(&image, &planted(&x, 0));
    let y = backend.conv2d_fwd(&d, &corner, &weights, None, Activation::Relu);
    assert_eq!(nans(&y), 4 * 8);
    let gradient = backend.upload_activations(&of, &planted(&dy, 0));
    assert_eq!(nans(&backend.conv2d_bwd_input(&d, &corner, &gradient, &weights)), 4 * 8);
    // A NaN in a weight meets the zeros of the padding too.
    let fine = backend.upload_activations(&image, &x);
    assert_eq!(
        nans(&backend.conv2d_fwd(&d, &fine, &backend.upload(&planted(&w, 0)), None, Activation::Identity)),
        2 * 36
    );
    assert!(backend.download(&backend.channel_stats(&of, &y).mean).iter().all(|mean| mean.is_nan()));
}

/// Deferred inputs of a convolution: whether the normalisation ends in a ReLU, and its residual.
const INPUTS: [(bool, Residual); 6] = [
    (false, Residual::None),
    (true, Residual::None),
    (true, Residual::Materialized),
    (true, Residual::Normalised { relu: false }),
    (true, Residual::Normalised { relu: true }),
    (false, Residual::Materialized),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Residual {
    None,
    Materialized,
    Normalised { relu: bool },
}

/// A normalisation with a residual, and the convolution behind it.
struct Middle {
    n: usize,
    d: ChannelDims,
    conv: Conv2dDims,
    y: Vec<f32>,
    other: Vec<f32>,
    vectors: [Vec<f32>; 4],
    w: Vec<f32>,
    dy: Vec<f32>,
    accumulated: Option<Vec<f32>>,
}

/// The results of a run by name: the convolution's output, the normalisation's output as it is in memory, gradients of its input, its
/// scale and shift, the residual, and the residual's input, scale and shift.
type Outcome = Vec<(&'static str, Vec<f32>)>;

impl Middle {
    fn run<B: Backend>(
        &self,
        backend: &B,
        (relu, residual): (bool, Residual),
        batch_stats: bool,
        batch: impl Fn(&ChannelDims, &[f32]) -> B::Batch,
    ) -> Outcome {
        let Middle { n, d, conv, .. } = self;
        let eps = 1e-5;
        let values = |buf: &B::Batch| backend.download_batch(*n, buf);
        let (y, other, w) = (batch(d, &self.y), batch(d, &self.other), backend.upload(&self.w));
        let [gamma, beta, gamma_other, beta_other] = [0, 1, 2, 3].map(|i| backend.upload(&self.vectors[i]));
        let (stats, stats_other) = (backend.channel_stats(d, &y), backend.channel_stats(d, &other));
        let normalised = |relu| {
            let (gamma, beta, activation) = (&gamma_other, &beta_other, relu_if(relu));
            let fwd = NormFwd { eps, x: &other, gamma, beta, residual: None, activation };
            backend.batch_norm_fwd(d, &fwd, &stats_other)
        };
        let shortcut = match residual {
            Residual::None => None,
            Residual::Materialized => Some(batch(d, &self.other)),
            Residual::Normalised { relu } => Some(normalised(relu)),
        };
        let activation = relu_if(relu);
        let fwd = NormFwd { eps, x: &y, gamma: &gamma, beta: &beta, residual: shortcut.as_ref(), activation };
        let z = backend.batch_norm_fwd(d, &fwd, &stats);
        let out = backend.conv2d_fwd(conv, &z, &w, None, Activation::Identity);
        let mut outcome = vec![("out", values(&out))];
        let dy = batch(&ChannelDims::new(conv.y()), &self.dy);
        let accumulated = Accumulation::Last(self.accumulated.as_ref().map(|accumulated| batch(d, accumulated)));
        let dz = backend.conv2d_bwd_input_accumulated(conv, &z, &dy, &w, accumulated);
        let bwd = NormBwd {
            eps,
            x: &y,
            stats: &stats,
            batch_stats,
            gamma: &gamma,
            beta: &beta,
            activated: relu.then_some(relu_output(&z)),
            residual: shortcut.is_some(),
        };
        let grads = backend.batch_norm_bwd(d, &bwd, dz);
        // By a convolution that reads it without its being materialised.
        let back = Conv2dDims::new(conv.x(), conv.c_in as usize, 1, 1, 0).unwrap();
        let identity: Vec<f32> =
            (0..conv.c_in * conv.c_in).map(|i| if i % (conv.c_in + 1) == 0 { 1.0 } else { 0.0 }).collect();
        let images = batch(d, &self.y);
        outcome.push((
            "dx that is read",
            values(&backend.conv2d_bwd_input(&back, &images, &grads.dx, &backend.upload(&identity))),
        ));
        outcome.push(("dx", values(&grads.dx)));
        outcome.extend([("dgamma", backend.download(&grads.dgamma)), ("dbeta", backend.download(&grads.dbeta))]);
        if let Some(dresidual) = grads.dresidual {
            outcome.push(("dresidual", values(&dresidual)));
            if residual == (Residual::Normalised { relu: false }) {
                let bwd = NormBwd {
                    x: &other,
                    stats: &stats_other,
                    gamma: &gamma_other,
                    beta: &beta_other,
                    activated: None,
                    residual: false,
                    ..bwd
                };
                let grads = backend.batch_norm_bwd(d, &bwd, dresidual);
                outcome.push(("dx of the residual", values(&grads.dx)));
                outcome.push(("dgamma of the residual", backend.download(&grads.dgamma)));
                outcome.push(("dbeta of the residual", backend.download(&grads.dbeta)));
            }
        }
        outcome.push(("z", values(&z)));
        outcome.push(("dw", backend.download(&backend.conv2d_bwd_weight(conv, &z, &dy))));
        outcome
    }
}

/// A convolution behind a normalisation, with all that it does for it, forwards and backwards.
pub fn deferred_activations(backend: &Cuda<Bf16>) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    // Tiles that end within an image and behind the last, strides with phases of fewer pixels, channels in two chunks, more
    // blocks than a group of a wide tile and than one of a narrow tile.
    for [n, c_in, side, c_out, k, stride, pad] in [
        [3, 12, 9, 8, 3, 1, 1],
        [2, 8, 7, 20, 3, 2, 1],
        [2, 72, 5, 8, 3, 1, 1],
        [2, 16, 8, 40, 1, 2, 0],
        [1, 33, 12, 16, 3, 1, 0],
        [9, 24, 32, 8, 1, 1, 0],
        [257, 8, 16, 8, 1, 1, 0],
    ] {
        let conv = Conv2dDims::new([n, c_in, side, side], c_out, k, stride, pad).unwrap();
        let d = ChannelDims::new(conv.x());
        let len: usize = conv.x().iter().product();
        let [y, other, accumulated] = [1, 2, 3].map(|seed| random(seed, len));
        let vectors = [4, 5, 6, 7].map(|seed| normal(seed, c_in));
        let (w, dy) = (random(8, conv.w().iter().product()), random(9, conv.y().iter().product()));
        let mut middle = Middle { n, d, conv, y, other, vectors, w, dy, accumulated: None };
        // The last is large; what puts its sums together is the same for all of them.
        for (case, of) in INPUTS.into_iter().enumerate().filter(|(case, _)| n < 257 || *case == 3) {
            let batch_stats = case != 3 || stride == 1;
            middle.accumulated = (case % 2 == 0 || stride == 2).then(|| accumulated.clone());
            let want = middle.run(&cpu, of, batch_stats, |d, values| cpu.upload_batch(d.n as usize, values));
            let got = middle.run(backend, of, batch_stats, |d, values| backend.upload_activations(d, values));
            for ((what, want), (_, got)) in want.iter().zip(&got) {
                // The activations, what the convolution adds and the whole gradient are rounded one after the other.
                let what = format!("{conv:?} behind {of:?}: {what}");
                assert_close(&what, got, want, 5.0 * BF16, 0.0);
            }
            assert_eq!(want.len(), got.len());
        }
    }
}

/// The gradient of what a normalisation and its ReLU made is wanted itself, so it must not have gone through that ReLU yet.
pub fn gradients_between_layers(backend: &Cuda<Bf16>) {
    let (n, c, d) = (3, 8, Conv2dDims::new([3, 8, 6, 6], 8, 3, 1, 1).unwrap());
    let [x, w, dy] = [d.x(), d.w(), d.y()].map(|dims| rounded(&drifting(dims[1] as u64, dims)));
    let vectors = [1.0, 0.1].map(|value| vec![value; c]);
    fn between<B: Backend>(
        backend: &B,
        d: &Conv2dDims,
        [x, dy]: [B::Batch; 2],
        w: &[f32],
        vectors: &[Vec<f32>; 2],
    ) -> [Vec<f32>; 2] {
        let tape = Tape::new(backend);
        let x = tape.leaf(Tensor::new(x, Shape(d.x())));
        let w = tape.param(Param::upload(backend, &d.w(), w));
        let [gamma, beta] =
            vectors.each_ref().map(|values| tape.param(Param::upload(backend, &[values.len()], values)));
        let bn = ops::BatchNorm { eps: 1e-5, gamma: &gamma, beta: &beta, residual: None, activation: Activation::Relu };
        let y = ops::batch_norm(&tape, &x, bn, None).unwrap().0;
        let z = ops::conv2d(&tape, &y, &w, None, (1, 1), Activation::Identity).unwrap();
        let wanted = tape.vjp(&z, dy, &[&y, &x], &[]).unwrap().tensors;
        [0, 1].map(|at: usize| wanted[at].values(backend))
    }
    let cpu = Cpu::<f64>::new(2).unwrap();
    let want = between(&cpu, &d, [&x, &dy].map(|values| cpu.upload_batch(n, values)), &w, &vectors);
    let on_device =
        [(d.x(), &x), (d.y(), &dy)].map(|(dims, values)| backend.upload_activations(&ChannelDims::new(dims), values));
    let got = between(backend, &d, on_device, &w, &vectors);
    for (what, (want, got)) in ["behind the normalisation", "before it"].iter().zip(want.iter().zip(&got)) {
        assert_close(what, got, want, 3.0 * BF16, 0.0);
    }
}

/// Logits and image gradients of every network, in training and in evaluation, point where those in f64 do.
pub fn networks(backend: &Cuda<Bf16>) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    for &network in Network::ALL {
        let width = match network {
            Network::LeNet => 3,
            Network::LeNetCifar | Network::ResNet18 | Network::Vgg16Bn => 1,
        };
        for mode in [Mode::Train, Mode::Eval] {
            let (want, got) = (pass(&cpu, network, width, mode), pass(backend, network, width, mode));
            for (what, want, got) in [("logits", &want[0], &got[0]), ("gradient", &want[1], &got[1])] {
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let cosine = dot(want, got) / (dot(want, want) * dot(got, got)).sqrt();
                let size = (dot(got, got) / dot(want, want)).sqrt();
                // ResNet-18 multiplies errors by a hundred. A NaN is in no range.
                let near = cosine > 0.85 && (size - 1.0).abs() < 0.1;
                assert!(near, "{what} of {network} in {mode:?}: cosine {cosine:.4}, size {size:.3}");
            }
        }
    }
}

fn pass<B: Backend>(backend: &B, network: Network, width: usize, mode: Mode) -> [Vec<f32>; 2] {
    let n = 8;
    let architecture = Architecture::new(network, width, 10).unwrap();
    let sgd = OptimizerConfig::Sgd { lr: 0.1, momentum: 0.0, weight_decay: 0.0 };
    let model = Trainer::new(backend, architecture, Init::KaimingNormal, 5, &sgd).unwrap().model;
    let images = uniform(6, n * network.input().iter().product::<usize>());
    let images = Tensor::new(backend.upload_batch(n, &images), model.input(n));
    let tape = Tape::new(backend);
    let (params, x) = (model.leaves(&tape), tape.leaf(images));
    let logits = model.forward(&tape, &params, &x, mode).unwrap().logits;
    let labels = backend.labels(&labels(7, n, 10));
    let loss = engine::autograd::ops::loss(&tape, LossKind::CrossEntropy, 1.0, &logits, &labels);
    let values = logits.tensor().values(backend);
    let gradient = tape.backward(&loss, &[&x], &[]).unwrap().tensors.remove(0);
    [values, gradient.values(backend)]
}
