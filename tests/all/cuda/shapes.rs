//! Convolutions and linear layers narrow and wide enough for every tile of their kernels, and sums over channels for every
//! way to cut them, against the CPU in f64.

use engine::backend::cpu::Cpu;
use engine::backend::{Backend, Norm};
use engine::dims::{ChannelDims, Conv2dDims, LinearDims};

use crate::backends::{drifting, normal, on_cuda};
use crate::compare::assert_close;

on_cuda! { products, sums }

/// Of a fixed input to each product, forward and backward.
pub fn products<B: Backend>(backend: &B) {
    let cpu = Cpu::<f64>::new(2).unwrap();
    // Batch, channels in, side, filters, kernel, stride, padding.
    for [n, c_in, side, c_out, k, stride, pad] in CONVOLUTIONS {
        let d = Conv2dDims::new([n, c_in, side, side], c_out, k, stride, pad).unwrap();
        let [x, w, dy] = [d.x(), d.w(), d.y()].map(|dims| normal(dims[1] as u64, dims.iter().product()));
        let b = normal(7, c_out);
        let (want, got) = (convolution(&cpu, &d, [&x, &w, &b, &dy]), convolution(backend, &d, [&x, &w, &b, &dy]));
        for (what, (want, got)) in ["y", "dx", "dw", "db"].iter().zip(want.iter().zip(&got)) {
            assert_close(&format!("{d:?}: {what}"), got, want, 1e-5, 0.0);
        }
    }
    for [n, f_in, f_out] in LAYERS {
        let d = LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
        let [x, w, dy] = [n * f_in, f_out * f_in, n * f_out].map(|len| normal(len as u64, len));
        let b = normal(7, f_out);
        let (want, got) = (layer(&cpu, &d, [&x, &w, &b, &dy]), layer(backend, &d, [&x, &w, &b, &dy]));
        for (what, (want, got)) in ["y", "dx", "dw"].iter().zip(want.iter().zip(&got)) {
            assert_close(&format!("{d:?}: {what}"), got, want, 1e-5, 0.0);
        }
    }
}

const CONVOLUTIONS: [[usize; 7]; 20] = [
    [33, 3, 31, 4, 3, 1, 1],
    [16, 12, 17, 16, 3, 1, 1],
    [8, 24, 33, 32, 3, 1, 1],
    [31, 64, 16, 64, 3, 1, 1],
    [64, 8, 32, 32, 3, 1, 1],
    [64, 8, 32, 64, 3, 1, 1],
    [64, 32, 32, 8, 3, 1, 1],
    [64, 64, 32, 8, 3, 1, 1],
    [64, 16, 32, 64, 1, 1, 0],
    [64, 32, 32, 4, 5, 1, 2],
    [5, 8, 20, 6, 5, 1, 2],
    [20, 20, 31, 32, 5, 1, 2],
    [33, 64, 16, 64, 5, 1, 2],
    [6, 8, 33, 10, 3, 2, 1],
    [33, 32, 32, 32, 2, 1, 0],
    [65, 64, 33, 64, 1, 2, 0],
    [65, 128, 16, 64, 1, 1, 0],
    // More channels on either side than any tile has.
    [2, 72, 9, 75, 3, 1, 1],
    [2, 72, 7, 75, 5, 1, 2],
    [3, 75, 8, 72, 1, 2, 0],
];

/// Of the last, sums that are put together for more outputs than the blocks of a launch take at a time.
const LAYERS: [[usize; 3]; 4] = [[1, 31, 10], [257, 300, 33], [512, 513, 512], [512, 512, 1028]];

fn convolution<B: Backend>(backend: &B, d: &Conv2dDims, [x, w, b, dy]: [&[f32]; 4]) -> [Vec<f32>; 4] {
    let n = d.n as usize;
    let (x, dy) = (backend.upload_batch(n, x), backend.upload_batch(n, dy));
    let (w, b) = (backend.upload(w), backend.upload(b));
    [
        backend.download_batch(n, &backend.conv2d_fwd(d, &x, &w, Some(&b), true)),
        backend.download_batch(n, &backend.conv2d_bwd_input(d, &x, &dy, &w)),
        backend.download(&backend.conv2d_bwd_weight(d, &x, &dy)),
        backend.download(&backend.bias_bwd(&ChannelDims::new(d.y()), &dy)),
    ]
}

fn layer<B: Backend>(backend: &B, d: &LinearDims, [x, w, b, dy]: [&[f32]; 4]) -> [Vec<f32>; 3] {
    let n = d.n as usize;
    let (x, dy) = (backend.upload_batch(n, x), backend.upload_batch(n, dy));
    let (w, b) = (backend.upload(w), backend.upload(b));
    [
        backend.download_batch(n, &backend.linear_fwd(d, &x, &w, Some(&b), true)),
        backend.download_batch(n, &backend.linear_bwd_input(d, &dy, &w)),
        backend.download(&backend.linear_bwd_weight(d, &x, &dy)),
    ]
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
