//! Convolutions and linear layers narrow and wide enough for every tile of their kernels, and sums over channels for every
//! way to cut them, against the CPU in f64.

use engine::backend::cpu::Cpu;
use engine::backend::{Activation, Backend, Norm};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims};

use crate::backends::{drifting, normal, on_cuda};
use crate::compare::assert_close;

on_cuda! { products, sums }

/// Of a fixed input to each product, forward and backward.
pub fn products<B: Backend>(backend: &B) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    for shape in CONVOLUTIONS {
        let (d, [x, w, dy]) = convolution(shape);
        let b = normal(7, d.c_out as usize);
        let (want, got) = (conv2d(&cpu, &d, [&x, &w, &b, &dy]), conv2d(backend, &d, [&x, &w, &b, &dy]));
        for (what, (want, got)) in ["y", "dx", "dw", "db"].iter().zip(want.iter().zip(&got)) {
            assert_close(&format!("{d:?}: {what}"), got, want, 1e-5, 0.0);
        }
    }
    for [n, few, side, many, k] in MANY_FILTERS {
        let (d, [x, w, _]) = convolution([n, few, side, many, k, 1, k / 2]);
        let b = normal(7, many);
        let (want, got) = (forward(&cpu, &d, [&x, &w, &b]), forward(backend, &d, [&x, &w, &b]));
        assert_close(&format!("{d:?}: y"), &got, &want, 1e-5, 0.0);
        let (d, [x, w, dy]) = convolution([n, many, side, few, k, 1, k / 2]);
        let (want, got) = (input_gradient(&cpu, &d, [&x, &w, &dy]), input_gradient(backend, &d, [&x, &w, &dy]));
        assert_close(&format!("{d:?}: dx"), &got, &want, 1e-5, 0.0);
    }
    for shape in LAYERS {
        let (d, [x, w, dy]) = layer(shape);
        let b = normal(7, d.f_out as usize);
        let (want, got) = (linear(&cpu, &d, [&x, &w, &b, &dy]), linear(backend, &d, [&x, &w, &b, &dy]));
        for (what, (want, got)) in ["y", "dx", "dw"].iter().zip(want.iter().zip(&got)) {
            assert_close(&format!("{d:?}: {what}"), got, want, 1e-5, 0.0);
        }
    }
    let (d, [x, _, dy]) = layer(LARGE_LAYER);
    let (want, got) = (linear_weight_gradient(&cpu, &d, [&x, &dy]), linear_weight_gradient(backend, &d, [&x, &dy]));
    assert_close(&format!("{d:?}: dw"), &got, &want, 1e-5, 0.0);
}

/// Batch, channels in, side, filters, kernel, stride, padding: edges that fill no tile, and more terms than lie in shared memory
/// at a time.
const CONVOLUTIONS: [[usize; 7]; 18] = [
    [33, 3, 31, 4, 3, 1, 1],
    [16, 12, 17, 16, 3, 1, 1],
    [5, 8, 20, 6, 5, 1, 2],
    [6, 8, 33, 10, 3, 2, 1],
    // Wide tiles of kernels for any taps, and of weight gradients.
    [65, 3, 15, 29, 2, 1, 0],
    [129, 3, 17, 33, 2, 1, 0],
    [65, 29, 13, 3, 3, 2, 1],
    [65, 33, 21, 3, 3, 2, 1],
    [33, 50, 7, 50, 3, 2, 1],
    // Sums in parts, each longer than what lies in shared memory at a time.
    [33, 50, 9, 75, 2, 2, 0],
    [2, 75, 29, 3, 3, 1, 1],
    [2, 3, 29, 75, 3, 1, 1],
    [5, 150, 9, 3, 5, 1, 2],
    [5, 3, 9, 150, 5, 1, 2],
    [1, 131, 7, 131, 2, 1, 0],
    // More channels on either side than any tile has.
    [2, 72, 9, 75, 3, 1, 1],
    [2, 72, 7, 75, 5, 1, 2],
    [3, 75, 8, 72, 1, 2, 0],
];

/// Batch, channels in, side, filters, kernel: so many pixels that the forward pass takes a wide tile, and so does the input
/// gradient if filters and channels change places.
const MANY_FILTERS: [[usize; 5]; 5] =
    [[151, 7, 13, 11, 3], [65, 7, 21, 20, 3], [151, 7, 13, 50, 3], [151, 3, 7, 50, 5], [151, 3, 13, 50, 5]];

/// Samples, inputs, outputs.
const LAYERS: [[usize; 3]; 5] = [[1, 31, 10], [257, 300, 33], [33, 1028, 100], [129, 257, 257], [257, 65, 700]];

/// Its weight gradient is a sum in parts, of more elements than the blocks that put parts together take at a time.
const LARGE_LAYER: [usize; 3] = [376, 514, 1025];

/// A convolution with its input, weights and output gradient.
fn convolution([n, c_in, side, c_out, k, stride, pad]: [usize; 7]) -> (Conv2dDims, [Vec<f32>; 3]) {
    let d = Conv2dDims::new([n, c_in, side, side], c_out, k, stride, pad).unwrap();
    (d, [d.x(), d.w(), d.y()].map(|dims| normal(dims[1] as u64, dims.iter().product())))
}

/// A layer with its input, weights and output gradient.
fn layer([n, f_in, f_out]: [usize; 3]) -> (LinearDims, [Vec<f32>; 3]) {
    let d = LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
    (d, [n * f_in, f_out * f_in, n * f_out].map(|len| normal(len as u64, len)))
}

fn conv2d<B: Backend>(backend: &B, d: &Conv2dDims, [x, w, b, dy]: [&[f32]; 4]) -> [Vec<f32>; 4] {
    let [on_x, on_dy] = [x, dy].map(|values| backend.upload_batch(d.n as usize, values));
    [
        forward(backend, d, [x, w, b]),
        input_gradient(backend, d, [x, w, dy]),
        backend.download(&backend.conv2d_bwd_weight(d, &on_x, &on_dy)),
        backend.download(&backend.bias_bwd(&ChannelDims::new(d.y()), &on_dy)),
    ]
}

fn forward<B: Backend>(backend: &B, d: &Conv2dDims, [x, w, b]: [&[f32]; 3]) -> Vec<f32> {
    let (x, [w, b]) = (backend.upload_batch(d.n as usize, x), [w, b].map(|values| backend.upload(values)));
    backend.download_batch(d.n as usize, &backend.conv2d_fwd(d, &x, &w, Some(&b), Activation::Relu))
}

fn input_gradient<B: Backend>(backend: &B, d: &Conv2dDims, [x, w, dy]: [&[f32]; 3]) -> Vec<f32> {
    let ([x, dy], w) = ([x, dy].map(|values| backend.upload_batch(d.n as usize, values)), backend.upload(w));
    backend.download_batch(d.n as usize, &backend.conv2d_bwd_input(d, &x, &dy, &w))
}

fn linear<B: Backend>(backend: &B, d: &LinearDims, [x, w, b, dy]: [&[f32]; 4]) -> [Vec<f32>; 3] {
    let n = d.n as usize;
    let ([on_x, on_dy], [w, b]) =
        ([x, dy].map(|values| backend.upload_batch(n, values)), [w, b].map(|values| backend.upload(values)));
    [
        backend.download_batch(n, &backend.linear_fwd(d, &on_x, &w, Some(&b), Activation::Relu)),
        backend.download_batch(n, &backend.linear_bwd_input(d, &on_dy, &w)),
        linear_weight_gradient(backend, d, [x, dy]),
    ]
}

fn linear_weight_gradient<B: Backend>(backend: &B, d: &LinearDims, [x, dy]: [&[f32]; 2]) -> Vec<f32> {
    let [x, dy] = [x, dy].map(|values| backend.upload_batch(d.n as usize, values));
    backend.download(&backend.linear_bwd_weight(d, &x, &dy))
}

/// Statistics and bias gradients of channels that fit in a block, and of ones that do not: a few channels and more of them than
/// the blocks that put parts together have, rows of pixels that a block takes at once and longer ones.
pub fn sums<B: Backend>(backend: &B) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    for [n, c, h, w] in [
        [1, 1, 1, 2],
        [31, 5, 3, 7],
        [2, 3, 34, 34],
        [257, 33, 1, 1],
        [9, 5, 32, 32],
        [40, 4, 32, 32],
        [4, 130, 32, 32],
        [128, 3, 17, 31],
    ] {
        let d = ChannelDims::new([n, c, h, w]);
        let x: Vec<f32> = drifting(3, [n, c, h, w]).iter().map(|v| 3.0 + v).collect();
        let (want, got) = (statistics(&cpu, &d, &x), statistics(backend, &d, &x));
        for (what, (want, got)) in ["mean", "variance", "db"].iter().zip(want.iter().zip(&got)) {
            assert_close(&format!("{d:?}: {what}"), got, want, 1e-5, 0.0);
        }
    }
}

fn statistics<B: Backend>(backend: &B, d: &ChannelDims, x: &[f32]) -> [Vec<f32>; 3] {
    let x = backend.upload_batch(d.n as usize, x);
    let stats = Norm::channel_stats(backend, d, &x);
    [&stats.mean, &stats.var, &backend.bias_bwd(d, &x)].map(|buf| backend.download(buf))
}
