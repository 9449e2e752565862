//! The CPU's normalisation and what else goes over whole planes, in f32 on every vector path, against the plain loops
//! in f64.

use engine::backend::cpu::{Cpu, VectorPath};
use engine::backend::{
    Activation, AdamParam, AdamStep, Backend, ChannelStats, Constraint, Elementwise, Memory, Norm, NormBwd, NormFwd,
    SgdParam, SgdStep,
};
use engine::base::dims::ChannelDims;

use crate::backends::{normal, relu_if, relu_output};
use crate::compare::assert_close;

/// A batch that leaves lanes empty, one that fills a block, and one that needs a second; planes of pixels that do and
/// do not divide into groups of registers; the last is large enough for several threads.
const SHAPES: [[usize; 4]; 4] = [[5, 3, 3, 3], [16, 2, 4, 4], [21, 4, 5, 1], [21, 16, 12, 12]];

/// Calls `check` with a backend for every vector path of this processor, on one thread and on three.
fn on_every_path(check: impl Fn(&str, &Cpu<f32>)) {
    for path in VectorPath::available() {
        for threads in [1, 3] {
            check(&format!("{path}, {threads} threads"), &Cpu::with_path(threads, path).unwrap());
        }
    }
}

fn exact() -> Cpu<f64> {
    Cpu::new(1).unwrap()
}

/// Normal values; the mean rises by 1 from channel to channel.
fn values([n, c, h, w]: [usize; 4], seed: u64, mean: f32, deviation: f32) -> Vec<f32> {
    let noise = normal(seed, n * c * h * w);
    let channel = |i: usize| (i / (h * w) % c) as f32;
    noise.iter().enumerate().map(|(i, v)| mean + channel(i) + deviation * v).collect()
}

#[test]
fn statistics() {
    for shape in SHAPES {
        let (d, n) = (ChannelDims::new(shape), shape[0]);
        for (mean, deviation) in [(0.0, 1.0), (1000.0, 1.0), (-3e4, 0.5)] {
            let x = values(shape, 1, mean, deviation);
            let exact = exact();
            let want = exact.channel_stats(&d, &exact.upload_batch(n, &x));
            on_every_path(|path, backend| {
                let got = backend.channel_stats(&d, &backend.upload_batch(n, &x));
                let what = format!("{path}, {shape:?} around {mean}");
                assert_close(
                    &format!("{what}: mean"),
                    &backend.download(&got.mean),
                    &exact.download(&want.mean),
                    1e-6,
                    1e-6,
                );
                assert_close(
                    &format!("{what}: var"),
                    &backend.download(&got.var),
                    &exact.download(&want.var),
                    1e-5,
                    0.0,
                );
            });
        }
        on_every_path(|path, backend| {
            let constant = backend.upload_batch(n, &vec![0.1; shape.iter().product()]);
            let var = backend.download(&backend.channel_stats(&d, &constant).var);
            assert!(var.iter().all(|&v| (0.0..1e-12).contains(&v)), "{path}: variance of a constant: {var:?}");
        });
    }
}

/// What one normalisation is made of.
struct Case {
    shape: [usize; 4],
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    relu: bool,
    batch_stats: bool,
}

/// `y`, `dx`, `dgamma`, `dbeta` and `dresidual`, if there is one.
fn norm<B: Backend>(backend: &B, case: &Case) -> Vec<(&'static str, Vec<f32>)> {
    let Case { shape, x, residual, relu, batch_stats } = case;
    let [n, c, ..] = *shape;
    let d = ChannelDims::new(*shape);
    let batch = |values: &[f32]| backend.upload_batch(n, values);
    let (x, residual, dy) = (batch(x), residual.as_ref().map(|r| batch(r)), batch(&normal(3, x.len())));
    let (gamma, beta) = (backend.upload(&normal(4, c)), backend.upload(&normal(5, c)));
    let running = || ChannelStats { mean: backend.upload(&normal(6, c)), var: backend.full(c, 1.5) };
    let stats = if *batch_stats { backend.channel_stats(&d, &x) } else { running() };
    let (eps, activation) = (1e-5, relu_if(*relu));
    let fwd = NormFwd { eps, x: &x, gamma: &gamma, beta: &beta, residual: residual.as_ref(), activation };
    let y = backend.batch_norm_fwd(&d, &fwd, &stats);
    if *batch_stats {
        let (at_once, of_batch) = backend.batch_norm_train_fwd(&d, &fwd);
        assert_eq!(backend.download_batch(n, &at_once), backend.download_batch(n, &y), "statistics and y at once");
        assert_eq!(backend.download(&of_batch.mean), backend.download(&stats.mean));
        assert_eq!(backend.download(&of_batch.var), backend.download(&stats.var));
    }
    let grads = backend.batch_norm_bwd(
        &d,
        &NormBwd {
            eps,
            x: &x,
            stats: &stats,
            batch_stats: *batch_stats,
            gamma: &gamma,
            beta: &beta,
            activated: relu.then_some(relu_output(&y)),
            residual: residual.is_some(),
        },
        dy,
    );
    assert_eq!(grads.dresidual.is_some(), residual.is_some());
    // Sums over a gradient include the padding: nothing may be in there.
    let db = backend.download(&backend.bias_bwd(&d, &grads.dx));
    let mut all = vec![
        ("y", backend.download_batch(n, &y)),
        ("dx", backend.download_batch(n, &grads.dx)),
        ("dgamma", backend.download(&grads.dgamma)),
        ("dbeta", backend.download(&grads.dbeta)),
    ];
    if !batch_stats {
        // With batch statistics these sums are zero but for rounding.
        all.push(("db", db));
    }
    all.extend(grads.dresidual.map(|dresidual| ("dresidual", backend.download_batch(n, &dresidual))));
    all
}

/// Every combination of residual, ReLU and statistics, over every shape.
fn cases(mean: f32) -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in SHAPES {
        for bits in 0..8 {
            let residual = (bits & 1 > 0).then(|| values(shape, 2, 0.0, 1.0));
            let x = values(shape, 1, mean, 1.0);
            cases.push(Case { shape, x, residual, relu: bits & 2 > 0, batch_stats: bits & 4 > 0 });
        }
    }
    cases
}

#[test]
fn forward_and_backward() {
    for case in cases(0.25) {
        let want = norm(&exact(), &case);
        on_every_path(|path, backend| {
            let got = norm(backend, &case);
            assert_eq!(got.len(), want.len());
            for ((name, got), (_, want)) in got.iter().zip(&want) {
                let Case { shape, relu, batch_stats, .. } = &case;
                let what = format!("{path}, {shape:?}, relu {relu}, batch statistics {batch_stats}: {name}");
                assert_close(&what, got, want, 2e-5, 0.0);
            }
        });
    }
}

/// The input's own rounding is 6e-5 of a deviation here; nothing may be lost on top of it.
#[test]
fn a_mean_of_a_thousand_deviations() {
    for case in cases(1000.0).into_iter().filter(|case| case.batch_stats && !case.relu) {
        let want = norm(&exact(), &case);
        on_every_path(|path, backend| {
            for ((name, got), (_, want)) in norm(backend, &case).iter().zip(&want) {
                assert_close(&format!("{path}, {:?}: {name}", case.shape), got, want, 2e-4, 0.0);
            }
        });
    }
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    for case in cases(2.0) {
        for path in VectorPath::available() {
            let bits = |threads: usize| {
                let all = norm(&Cpu::<f32>::with_path(threads, path).unwrap(), &case);
                all.into_iter().map(|(_, values)| values.into_iter().map(f32::to_bits).collect()).collect()
            };
            let one: Vec<Vec<u32>> = bits(1);
            assert_eq!(bits(2), one, "{path}");
            assert_eq!(bits(5), one, "{path}");
        }
    }
}

#[test]
fn nan_passes() {
    let shape = [5, 2, 3, 3];
    let d = ChannelDims::new(shape);
    on_every_path(|path, backend| {
        let mut x = values(shape, 1, 0.0, 1.0);
        x[4] = f32::NAN;
        let x = backend.upload_batch(5, &x);
        let stats = backend.channel_stats(&d, &x);
        let (mean, var) = (backend.download(&stats.mean), backend.download(&stats.var));
        assert!(mean[0].is_nan() && var[0].is_nan(), "{path}: statistics of the channel with a NaN");
        assert!(mean[1].is_finite() && var[1].is_finite(), "{path}: of the other");

        let stats = ChannelStats { mean: backend.zeros(2), var: backend.full(2, 1.0) };
        let (gamma, beta) = (backend.full(2, 1.0), backend.zeros(2));
        let fwd = NormFwd { eps: 0.0, x: &x, gamma: &gamma, beta: &beta, residual: None, activation: Activation::Relu };
        let y = backend.batch_norm_fwd(&d, &fwd, &stats);
        let nans = |values: &[f32]| values.iter().filter(|v| v.is_nan()).count();
        assert!(backend.download_batch(5, &y)[4].is_nan(), "{path}: a NaN behind the ReLU");
        assert_eq!(nans(&backend.download_batch(5, &y)), 1, "{path}");

        // As the ReLU's own gradient: dy passes where the output is NaN.
        let dy = backend.upload_batch(5, &vec![2.0; 90]);
        let masked = backend.download_batch(5, &backend.activation_bwd(relu_output(&y), &dy));
        assert_eq!(masked[4], 2.0, "{path}");
        let passed = masked.iter().enumerate().filter(|(i, _)| i / 9 % 2 == 0).map(|(_, g)| g).sum::<f32>();
        for residual in [false, true] {
            let bwd = NormBwd {
                eps: 0.0,
                x: &x,
                stats: &stats,
                batch_stats: false,
                gamma: &gamma,
                beta: &beta,
                activated: Some(relu_output(&y)),
                residual,
            };
            let grads = backend.batch_norm_bwd(&d, &bwd, backend.copy_batch(&dy));
            assert_eq!(backend.download_batch(5, &grads.dx), masked, "{path}");
            let dresidual = grads.dresidual.map(|dresidual| backend.download_batch(5, &dresidual));
            assert_eq!(dresidual, residual.then(|| masked.clone()), "{path}");
            assert_eq!(backend.download(&grads.dbeta)[0], passed, "{path}");
        }
    });
}

/// Sums, averages and element by element: what `norm` does not call.
fn others<B: Backend>(backend: &B, shape: [usize; 4]) -> Vec<(&'static str, Vec<f32>)> {
    let [n, _, h, w] = shape;
    let d = ChannelDims::new(shape);
    let batch = |seed| backend.upload_batch(n, &values(shape, seed, 0.0, 1.0));
    let (a, b) = (batch(1), batch(2));
    let mean = backend.avg_pool_fwd(&d, &a);
    let broadcast = backend.avg_pool_bwd(&d, &mean);
    let y = backend.activation_fwd(Activation::Relu, &a);
    let mut sum = backend.copy_batch(&a);
    backend.add_assign(&b, &mut sum);
    let download = |x: &B::Batch| backend.download_batch(n, x);
    assert_eq!(download(&mean).len() * h * w, download(&broadcast).len());
    vec![
        ("add", download(&backend.add(&a, &b))),
        ("add_assign", download(&sum)),
        ("relu_bwd", download(&backend.activation_bwd(relu_output(&y), &b))),
        ("relu_fwd", download(&y)),
        ("avg_pool_fwd", download(&mean)),
        ("avg_pool_bwd", download(&broadcast)),
        ("bias_bwd", backend.download(&backend.bias_bwd(&d, &b))),
    ]
}

#[test]
fn sums_averages_and_elements() {
    for shape in SHAPES {
        let want = others(&exact(), shape);
        on_every_path(|path, backend| {
            for ((name, got), (_, want)) in others(backend, shape).iter().zip(&want) {
                assert_close(&format!("{path}, {shape:?}: {name}"), got, want, 1e-5, 0.0);
            }
        });
    }
}

/// Weights and the optimisers' state after three steps, free, masked and with a penalty.
fn updates<B: Backend>(backend: &B, len: usize) -> Vec<Vec<f32>> {
    let part = |seed| backend.upload(&normal(seed, len));
    let mask = backend.upload(&normal(9, len).iter().map(|&v| f32::from(v > 0.0)).collect::<Vec<f32>>());
    let (z, u) = (part(7), part(8));
    let mut all = Vec::new();
    for kind in 0..3 {
        let constraint = || match kind {
            0 => Constraint::Free,
            1 => Constraint::Mask(&mask),
            _ => Constraint::Penalty { rho: 0.1, z: &z, u: &u },
        };
        let (mut w, mut v) = (part(1), backend.zeros(len));
        let (mut adam_w, mut adam_m, mut adam_v) = (part(2), backend.zeros(len), backend.zeros(len));
        for t in 1..=3 {
            let g = part(10 + u64::from(t));
            let sgd = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 1e-2 };
            backend.sgd_step(&sgd, &mut [SgdParam { constraint: constraint(), g: &g, v: &mut v, w: &mut w }]);
            let adam = AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2, t };
            let (m, v, w) = (&mut adam_m, &mut adam_v, &mut adam_w);
            backend.adam_step(&adam, &mut [AdamParam { constraint: constraint(), g: &g, m, v, w }]);
        }
        all.extend([w, v, adam_w, adam_m, adam_v].map(|buf| backend.download(&buf)));
    }
    all
}

/// One parameter that a thread takes alone, and one that is shared out; neither divides into anything.
#[test]
fn optimisers() {
    for len in [77, 70_001] {
        let want = updates(&exact(), len);
        let one = updates(&Cpu::<f32>::with_path(1, VectorPath::Portable).unwrap(), len);
        on_every_path(|path, backend| {
            let got = updates(backend, len);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_close(&format!("{path}, {len} weights, result {i}"), got, want, 1e-4, 0.0);
            }
            assert_eq!(got, one, "{path}: the same operations in the same order, so the same bits");
        });
    }
}
