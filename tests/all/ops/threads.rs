//! No number of threads changes a bit of a convolution, on any vector path of the CPU; and backends divide the cores as they begin
//! and end.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::backend::cpu::{Cores, Cpu, LANES, VectorPath};
use engine::backend::{Activation, Conv, Memory};
use engine::base::dims::Conv2dDims;

use crate::backends::normal;

#[test]
fn threads_change_no_bit() {
    let dims = [
        ([12, 8, 8], 40, (3, 1, 1)),
        ([16, 4, 4], 33, (3, 2, 1)),
        ([8, 32, 32], 16, (3, 1, 1)),
        ([5, 7, 9], 18, (1, 2, 0)),
        ([2, 2, 2], 9, (3, 1, 1)),
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
            [y, dx, dw].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        let one = bits(1);
        for threads in [2, 3, 5] {
            assert!(bits(threads) == one, "{path}, {d:?}, {threads} threads");
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
