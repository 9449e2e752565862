//! No number of threads changes a bit of an op, on any vector path of the CPU; and backends divide the cores as they begin
//! and end.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::backend::cpu::{Cores, Cpu, LANES, VectorPath};
use engine::backend::{Activated, Activation, Conv, ConvPool, Linear, Memory, Norm, NormBwd, NormFwd};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims, Pool2dDims};

use crate::backends::{normal, relu_output};
use crate::compare::bits as bits_of;

#[test]
fn threads_change_no_bit() {
    let dims = [
        ([12, 8, 8], 40, (3, 1, 1)),
        ([16, 4, 4], 33, (3, 2, 1)),
        ([8, 32, 32], 16, (3, 1, 1)),
        ([5, 7, 9], 18, (1, 2, 0)),
        ([2, 2, 2], 9, (3, 1, 1)),
        // One block of images has work for several threads here, by each of the algorithms, the last three with pooling.
        ([32, 24, 24], 64, (3, 2, 1)),
        ([64, 16, 16], 64, (3, 1, 1)),
        ([16, 28, 28], 24, (5, 1, 2)),
        ([7, 28, 28], 16, (5, 1, 2)),
        ([9, 56, 56], 7, (5, 1, 2)),
    ];
    let cases = [5, 70].into_iter().flat_map(|n| dims.map(|dims| (n, dims)));
    for (path, (n, ([c, h, w], c_out, (k, stride, pad)))) in
        VectorPath::available().into_iter().flat_map(|path| cases.clone().map(move |case| (path, case)))
    {
        let d = Conv2dDims::new([n, c, h, w], c_out, k, stride, pad).unwrap();
        let len = |dims: [usize; 4]| dims.iter().product::<usize>();
        let bits = |threads: usize| {
            let cpu = Cpu::<f32>::with_path(threads, path).unwrap();
            let x = cpu.batch(n, &normal(1, len(d.x())));
            let weight = cpu.buffer(&normal(2, len(d.w())));
            let dy = cpu.batch(n, &normal(3, len(d.y())));
            let y = cpu.batch_values(n, &cpu.conv2d_fwd(&d, &x, &weight, None, Activation::Relu));
            let dx = cpu.batch_values(n, &cpu.conv2d_bwd_input(&d, &x, &dy, &weight));
            let dw = cpu.conv2d_bwd_weight(&d, &x, &dy).to_vec();
            let mut all = vec![y, dx, dw];
            if let Ok(p) = Pool2dDims::new(d.y(), 2, 2) {
                let (y, indices) = cpu.conv2d_pool_fwd(&d, &p, &x, &weight, None, Activation::Relu);
                let g = cpu.batch(n, &normal(4, len(p.y())));
                let dx = cpu.conv2d_pool_bwd_input(&d, &p, &indices, &x, relu_output(&y), &g, &weight);
                all.extend([cpu.batch_values(n, &y), cpu.batch_values(n, &dx)]);
            }
            all.into_iter().map(|values| bits_of(&values)).collect::<Vec<_>>()
        };
        let one = bits(1);
        for threads in [2, 3, 5] {
            assert!(bits(threads) == one, "{path}, {d:?}, {threads} threads");
        }
    }
}

/// Channels are shared out, and the blocks of a channel where it is large.
#[test]
fn threads_change_no_bit_of_a_normalisation() {
    for (path, residual) in VectorPath::available().into_iter().flat_map(|path| [(path, false), (path, true)]) {
        let dims = [70, 3, 32, 32];
        let (d, len) = (ChannelDims::new(dims), dims.iter().product());
        let bits = |threads: usize| {
            let cpu = Cpu::<f32>::with_path(threads, path).unwrap();
            let [x, other, dy] = [1, 2, 3].map(|seed| cpu.batch(70, &normal(seed, len)));
            let [gamma, beta] = [4, 5].map(|seed| cpu.buffer(&normal(seed, 3)));
            let (eps, activation) = (1e-5, Activation::Relu);
            let fwd =
                NormFwd { eps, x: &x, gamma: &gamma, beta: &beta, residual: residual.then_some(&other), activation };
            let (y, stats) = cpu.batch_norm_train_fwd(&d, &fwd);
            let activated = Some(Activated { activation, y: &y });
            let (gamma, beta) = (&gamma, &beta);
            let bwd = NormBwd { eps, x: &x, stats: &stats, batch_stats: true, gamma, beta, activated, residual };
            let grads = cpu.batch_norm_bwd(&d, &bwd, dy);
            let mut all = vec![cpu.batch_values(70, &y), cpu.batch_values(70, &grads.dx)];
            all.extend([grads.dgamma.to_vec(), grads.dbeta.to_vec()]);
            all.extend(grads.dresidual.map(|dresidual| cpu.batch_values(70, &dresidual)));
            bits_of(&all.concat())
        };
        let one = bits(1);
        for threads in [2, 5] {
            assert!(bits(threads) == one, "{path}, {threads} threads, residual {residual}");
        }
    }
}

#[test]
fn threads_change_no_bit_of_a_linear_layer() {
    for (path, n) in VectorPath::available().into_iter().flat_map(|path| [(path, 5), (path, 70)]) {
        let d = LinearDims { n: n as u32, f_in: 1100, f_out: 1003 };
        let bits = |threads: usize| {
            let cpu = Cpu::<f32>::with_path(threads, path).unwrap();
            let (x, dy) = (cpu.batch(n, &normal(1, n * 1100)), cpu.batch(n, &normal(2, n * 1003)));
            let (w, b) = (cpu.buffer(&normal(3, 1100 * 1003)), cpu.buffer(&normal(4, 1003)));
            let y = cpu.linear_fwd(&d, &x, &w, Some(&b), Activation::Relu);
            let dx = cpu.linear_bwd_input(&d, &dy, &w);
            let dw = cpu.linear_bwd_weight(&d, &x, &dy).to_vec();
            [cpu.batch_values(n, &y), cpu.batch_values(n, &dx), dw].map(|values| bits_of(&values))
        };
        let one = bits(1);
        for threads in [2, 3, 5] {
            assert!(bits(threads) == one, "{path}, {n} images, {threads} threads");
        }
    }
}

/// Threads of a step and of the parts of a batch in it, and how many threads work on parts of a batch outside of steps.
fn seen(backend: &Cpu<f32>, expected: usize) -> [usize; 3] {
    let [step, parts] = backend.parallel(|| {
        let parts = backend.map_parts(3 * LANES, |_| backend.threads());
        assert!(parts.windows(2).all(|two| two[0] == two[1]), "{parts:?}");
        [backend.threads(), parts[0]]
    });
    // So many parts as there should be threads wait for each other, but not for ever.
    let (arrived, begin) = (AtomicUsize::new(0), Instant::now());
    let threads = backend.map_parts(expected * LANES, |_| {
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < expected && begin.elapsed() < Duration::from_secs(10) {
            thread::yield_now();
        }
        thread::current().id()
    });
    [step, parts, threads.into_iter().collect::<HashSet<_>>().len()]
}

#[test]
fn a_backend_that_runs_alone_has_all_cores_and_leaves_half_of_them_at_the_step_after_another_begins() {
    for total in [2, 4] {
        let cores = Cores::new(total);
        let [first, second] = [(); 2].map(|()| Cpu::<f32>::on_cores(&cores).unwrap());
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                first.scope(|| {
                    assert_eq!(seen(&first, total), [total; 3], "alone");
                    let within = first.parallel(|| {
                        barrier.wait();
                        // The other begins.
                        barrier.wait();
                        first.threads()
                    });
                    assert_eq!(within, total, "in the same step");
                    assert_eq!(seen(&first, total / 2), [total / 2; 3], "beside the other");
                    barrier.wait();
                    // The other ends.
                    barrier.wait();
                    assert_eq!(seen(&first, total), [total; 3], "alone again");
                });
            });
            scope.spawn(|| {
                barrier.wait();
                second.scope(|| {
                    barrier.wait();
                    assert_eq!(seen(&second, total / 2), [total / 2; 3], "from its first step on");
                    barrier.wait();
                });
                barrier.wait();
            });
        });
    }
}
