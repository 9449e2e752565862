//! Ops against their definitions in plain f64 loops, on numbers that drift along every axis, with ties, plateaus and NaN: for what
//! the CPU in f64 shares with every other path, and so cannot be compared with.

use engine::backend::{
    Activated, Activation, AdamParam, AdamStep, Backend, ChannelStats, Constraint, LossKind, NormBwd, NormFwd,
    RunningUpdate, SgdParam, SgdStep,
};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims, LogitDims, Pool2dDims};

use crate::backends::{drifting, labels, normal, on_every_backend, relu_if, relu_output, uniform};
use crate::compare::{assert_close, wide};

on_every_backend! {
    activations, batch_norm, running_statistics, max_pooling, average_pooling, losses, nan_is_predicted, linear_layers, updates,
}

/// An activation by its definition.
fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu if x < 0.0 => 0.0,
        Activation::Relu => x,
    }
}

/// Its slope at `x`, at a kink the one to the left.
fn slope(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu if x <= 0.0 => 0.0,
        Activation::Relu => 1.0,
    }
}

/// Every activation alone, and at the end of each op that has one: there it is a function of the op without it.
pub fn activations<B: Backend>(backend: &B) {
    let dims @ [n, c, h, w] = [35, 3, 7, 9];
    let (x, dy) = (drifting(1, dims), drifting(2, dims));
    let batch = |values: &[f32]| backend.upload_batch(n, values);
    let of =
        |values: &[f32], activation| wide(values).into_iter().map(|x| activated(activation, x)).collect::<Vec<f64>>();
    let conv = Conv2dDims::new(dims, 5, 3, 1, 1).unwrap();
    let pool = Pool2dDims::new(conv.y(), 2, 2).unwrap();
    let linear = LinearDims { n: n as u32, f_in: (c * h * w) as u32, f_out: 5 };
    let [filters, rows, bias] =
        [(3, 5 * c * 9), (4, 5 * c * h * w), (5, 5)].map(|(seed, len)| backend.upload(&normal(seed, len)));
    let d = ChannelDims::new(dims);
    let [gamma, beta] = [6, 7].map(|seed| backend.upload(&normal(seed, c)));
    let stats = backend.channel_stats(&d, &batch(&x));
    let on_x = batch(&x);
    let ops = |activation| {
        let residual = batch(&dy);
        let fwd = NormFwd { eps: EPS, x: &on_x, gamma: &gamma, beta: &beta, residual: Some(&residual), activation };
        [
            ("conv2d", backend.conv2d_fwd(&conv, &on_x, &filters, Some(&bias), activation)),
            ("linear", backend.linear_fwd(&linear, &on_x, &rows, Some(&bias), activation)),
            ("batch norm", backend.batch_norm_fwd(&d, &fwd, &stats)),
        ]
        .map(|(op, y)| (op, backend.download_batch(n, &y)))
    };
    let plain = ops(Activation::Identity);
    for &activation in Activation::ALL {
        let y = backend.activation_fwd(activation, &on_x);
        assert_close(&format!("{activation}"), &backend.download_batch(n, &y), &of(&x, activation), 1e-6, 1e-6);
        let dx = backend.activation_bwd(Activated { activation, y: &y }, &batch(&dy));
        let want: Vec<f64> = x.iter().zip(&dy).map(|(&x, &dy)| slope(activation, x.into()) * f64::from(dy)).collect();
        assert_close(&format!("{activation}'s gradient"), &backend.download_batch(n, &dx), &want, 1e-6, 1e-6);
        for ((op, got), (_, plain)) in ops(activation).into_iter().zip(&plain) {
            assert_close(&format!("{op} with {activation}"), &got, &of(plain, activation), 1e-5, 1e-5);
        }
        let unpooled = backend.conv2d_fwd(&conv, &on_x, &filters, Some(&bias), activation);
        let want = backend.download_batch(n, &backend.max_pool2d_fwd(&pool, &unpooled).0);
        let pooled = backend.conv2d_pool_fwd(&conv, &pool, &on_x, &filters, Some(&bias), activation).0;
        assert_close(
            &format!("pooled conv2d with {activation}"),
            &backend.download_batch(n, &pooled),
            &want,
            1e-5,
            1e-5,
        );
    }
}

/// One normalisation of a batch: what goes in, and what the definition says comes out.
struct Norm {
    dims: [usize; 4],
    residual: bool,
    relu: bool,
    batch_stats: bool,
    x: Vec<f32>,
    other: Vec<f32>,
    dy: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    /// Mean and variance that are not the batch's.
    running: [Vec<f32>; 2],
}

const EPS: f32 = 1e-5;

/// Mean and variance, y, the gradients of x, scale, shift and residual.
type NormOutcome = [Vec<f64>; 7];

impl Norm {
    fn new(dims: [usize; 4], [residual, relu, batch_stats]: [bool; 3]) -> Self {
        let c = dims[1];
        let [mut gamma, mut beta] = [4, 5].map(|seed| normal(seed, c));
        // The first channel is exactly 0 before the residual: a ReLU lets no gradient through there.
        (gamma[0], beta[0]) = (0.0, 0.0);
        let x = drifting(1, dims).iter().map(|x| 3.0 + 2.0 * x).collect();
        let running = [normal(6, c), uniform(7, c).iter().map(|u| 0.5 + u).collect()];
        let [other, dy] = [2, 3].map(|seed| drifting(seed, dims));
        let mut case = Norm { dims, residual, relu: false, batch_stats, x, other, dy, gamma, beta, running };
        // Rounding decides whether a ReLU lets through what is next to nothing: no gradient meets one there.
        let [_, _, y, ..] = case.outcome();
        case.dy.iter_mut().zip(y).filter(|(_, y)| *y != 0.0 && y.abs() < 1e-4).for_each(|(dy, _)| *dy = 0.0);
        Norm { relu, ..case }
    }

    fn what(&self) -> String {
        let Norm { dims, residual, relu, batch_stats, .. } = self;
        format!("{dims:?}, residual {residual}, ReLU {relu}, batch statistics {batch_stats}")
    }

    fn outcome(&self) -> NormOutcome {
        let [n, c, h, w] = self.dims;
        let (len, count) = (n * c * h * w, (n * h * w) as f64);
        let of_channel = |channel: usize| (0..len).filter(move |i| i / (h * w) % c == channel);
        let sum = |channel: usize, f: &dyn Fn(usize) -> f64| of_channel(channel).map(f).sum::<f64>();
        let x = wide(&self.x);
        let mean: Vec<f64> = (0..c).map(|channel| sum(channel, &|i| x[i]) / count).collect();
        let var: Vec<f64> = (0..c).map(|channel| sum(channel, &|i| (x[i] - mean[channel]).powi(2)) / count).collect();
        let (at, by) = match self.batch_stats {
            true => (mean.clone(), var.clone()),
            false => (wide(&self.running[0]), wide(&self.running[1])),
        };
        let std: Vec<f64> = by.iter().map(|var| (var + f64::from(EPS)).sqrt()).collect();
        let channel = |i: usize| i / (h * w) % c;
        let xhat: Vec<f64> = (0..len).map(|i| (x[i] - at[channel(i)]) / std[channel(i)]).collect();
        let y: Vec<f64> = (0..len)
            .map(|i| {
                let normalised = xhat[i] * f64::from(self.gamma[channel(i)]) + f64::from(self.beta[channel(i)]);
                let sum = normalised + if self.residual { f64::from(self.other[i]) } else { 0.0 };
                if self.relu { sum.max(0.0) } else { sum }
            })
            .collect();
        let g: Vec<f64> =
            (0..len).map(|i| if self.relu && y[i] <= 0.0 { 0.0 } else { f64::from(self.dy[i]) }).collect();
        let dbeta: Vec<f64> = (0..c).map(|channel| sum(channel, &|i| g[i])).collect();
        let dgamma: Vec<f64> = (0..c).map(|channel| sum(channel, &|i| g[i] * xhat[i])).collect();
        let through = |i: usize| match self.batch_stats {
            true => (dbeta[channel(i)] + xhat[i] * dgamma[channel(i)]) / count,
            false => 0.0,
        };
        let dx = (0..len).map(|i| f64::from(self.gamma[channel(i)]) / std[channel(i)] * (g[i] - through(i))).collect();
        [mean, var, y, dx, dgamma, dbeta, g]
    }
}

/// Images that need a third block of sixteen, planes of fours and of odd pixels, and planes that are worth a second thread.
pub fn batch_norm<B: Backend>(backend: &B) {
    let all = (0..8).map(|bits| [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0]);
    let cases = all.flat_map(|flags| [([40, 3, 5, 4], flags), ([33, 2, 3, 7], flags)]);
    for (dims, flags) in cases.chain([([40, 4, 32, 32], [true; 3])]) {
        let case = Norm::new(dims, flags);
        let (d, n) = (ChannelDims::new(dims), dims[0]);
        let batch = |values: &[f32]| backend.upload_batch(n, values);
        let [x, other, dy] = [&case.x, &case.other, &case.dy].map(|values| batch(values));
        let [gamma, beta] = [&case.gamma, &case.beta].map(|values| backend.upload(values));
        let of_batch = backend.channel_stats(&d, &x);
        let [mean, var] = [&case.running[0], &case.running[1]].map(|values| backend.upload(values));
        let running = ChannelStats { mean, var };
        let stats = if case.batch_stats { &of_batch } else { &running };
        let residual = case.residual.then_some(&other);
        let activation = relu_if(case.relu);
        let fwd = NormFwd { eps: EPS, x: &x, gamma: &gamma, beta: &beta, residual, activation };
        let y = backend.batch_norm_fwd(&d, &fwd, stats);
        let bwd = NormBwd {
            eps: EPS,
            x: &x,
            stats,
            batch_stats: case.batch_stats,
            gamma: &gamma,
            beta: &beta,
            activated: case.relu.then_some(relu_output(&y)),
            residual: case.residual,
        };
        let grads = backend.batch_norm_bwd(&d, &bwd, dy);
        let vectors = [&of_batch.mean, &of_batch.var, &grads.dgamma, &grads.dbeta].map(|buf| backend.download(buf));
        let [mean, var, dgamma, dbeta] = vectors;
        let [y, dx] = [&y, &grads.dx].map(|buf| backend.download_batch(n, buf));
        let mut got = vec![mean, var, y, dx, dgamma, dbeta];
        got.extend(grads.dresidual.map(|buf| backend.download_batch(n, &buf)));
        assert_eq!(got.len() == 7, case.residual, "{}: a residual's gradient", case.what());
        let names = ["mean", "variance", "y", "dx", "dgamma", "dbeta", "dresidual"];
        for (name, (got, want)) in names.iter().zip(got.iter().zip(case.outcome())) {
            assert_close(&format!("{}: {name}", case.what()), got, &want, 1e-5, 1e-6);
        }
    }
}

/// More normalisations than a launch's table has room for, and more channels than a block has threads.
pub fn running_statistics<B: Backend>(backend: &B) {
    let (momentum, count) = (0.1, 70);
    let channels = |i: usize| 1 + 37 * i % 520;
    let numbers = |i: usize| [0, 1, 2, 3].map(|kind| uniform((4 * i + kind) as u64, channels(i)));
    let unbias = |i: usize| 1.0 + 0.01 * i as f32;
    let stats = |[mean, var]: [&[f32]; 2]| ChannelStats { mean: backend.upload(mean), var: backend.upload(var) };
    let mut all: Vec<_> = (0..count)
        .map(|i| {
            let [mean, var, running_mean, running_var] = numbers(i);
            (stats([&mean, &var]), stats([&running_mean, &running_var]))
        })
        .collect();
    let moves = all.iter_mut().enumerate();
    let mut moves: Vec<_> =
        moves.map(|(i, (batch, running))| RunningUpdate { unbias: unbias(i), batch, running }).collect();
    backend.update_running_stats(momentum, &mut moves);
    for (i, (_, running)) in all.iter().enumerate() {
        let [mean, var, running_mean, running_var] = numbers(i).map(|values| wide(&values));
        let moved = |old: &[f64], new: &[f64], factor: f64| -> Vec<f64> {
            old.iter().zip(new).map(|(old, new)| 0.9 * old + 0.1 * factor * new).collect()
        };
        let want = [moved(&running_mean, &mean, 1.0), moved(&running_var, &var, f64::from(unbias(i)))];
        assert_close(&format!("mean {i}"), &backend.download(&running.mean), &want[0], 1e-6, 0.0);
        assert_close(&format!("variance {i}"), &backend.download(&running.var), &want[1], 1e-6, 0.0);
    }
}

/// Equal numbers count as the same, and so do NaN.
#[track_caller]
fn assert_same(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let same = |(got, want): (&f32, &f32)| got == want || (got.is_nan() && want.is_nan());
    let first = got.iter().zip(want).position(|pair| !same(pair));
    assert_eq!(first.map(|i| (i, got[i], want[i])), None, "{what}: (element, got, wanted)");
}

/// Few different values, so that windows have several maxima; a plane that is constant, one that is nothing but 0, and windows with
/// one NaN and with two.
fn plateaus([n, c, h, w]: [usize; 4]) -> Vec<f32> {
    let mut x: Vec<f32> = normal(1, n * c * h * w).iter().map(|x| x.round()).collect();
    let plane = h * w;
    x[..plane].fill(-1.5);
    x[(n * c - 1) * plane..].fill(0.0);
    if n * c > 3 {
        x[plane..2 * plane].iter_mut().step_by(11).for_each(|x| *x = f32::NAN);
        x[2 * plane..3 * plane].iter_mut().step_by(3).for_each(|x| *x = f32::NAN);
    }
    x
}

/// As PyTorch does it: the first of equal pixels wins, a NaN over every number, the last of several.
pub fn max_pooling<B: Backend>(backend: &B) {
    for (dims, k, stride) in [
        ([17, 2, 7, 6], 2, 2),
        ([33, 3, 8, 8], 2, 2),
        ([2, 2, 9, 7], 3, 2),
        ([1, 4, 6, 6], 3, 1),
        ([1, 4, 7, 8], 2, 3),
        ([1, 2, 17, 17], 17, 1),
    ] {
        let (d, [n, c, h, w]) = (Pool2dDims::new(dims, k, stride).unwrap(), dims);
        let [_, _, h_out, w_out] = d.y();
        let (x, dy) = (plateaus(dims), drifting(2, d.y()));
        let (mut y, mut dx, mut rectified) = (vec![], vec![0.0; x.len()], vec![0.0; x.len()]);
        for (window, &dy) in dy.iter().enumerate() {
            let (plane, row, col) = (window / (h_out * w_out), window / w_out % h_out, window % w_out);
            let places = (0..k * k).map(|q| (plane * h + row * stride + q / k) * w + col * stride + q % k);
            let argmax = places.reduce(|best, at| if x[at] > x[best] || x[at].is_nan() { at } else { best }).unwrap();
            y.push(x[argmax]);
            dx[argmax] += f64::from(dy);
            rectified[argmax] += if x[argmax] <= 0.0 { 0.0 } else { f64::from(dy) };
        }
        assert!(n * c < 4 || y.iter().any(|y| y.is_nan()), "{d:?}: no NaN is the largest");
        let (got, indices) = backend.max_pool2d_fwd(&d, &backend.upload_batch(n, &x));
        assert_same(&format!("{d:?}: y"), &backend.download_batch(n, &got), &y);
        let dy = backend.upload_batch(n, &dy);
        for (what, activated, want) in [("dx", None, dx), ("dx behind a ReLU", Some(relu_output(&got)), rectified)] {
            let got = backend.download_batch(n, &backend.max_pool2d_bwd(&d, &indices, activated, &dy));
            assert_close(&format!("{d:?}: {what}"), &got, &want, 1e-6, 0.0);
        }
    }
}

/// Planes of fewer and of more pixels than a warp has lanes, or fours for them.
pub fn average_pooling<B: Backend>(backend: &B) {
    for dims in [[1, 1, 1, 1], [17, 3, 5, 5], [3, 2, 12, 12], [33, 3, 11, 17], [2, 5, 2, 2]] {
        let ([n, c, h, w], d) = (dims, ChannelDims::new(dims));
        let (x, dy) = (drifting(1, dims), drifting(2, [n, c, 1, 1]));
        let pixels = (h * w) as f64;
        let y: Vec<f64> = x.chunks(h * w).map(|plane| wide(plane).iter().sum::<f64>() / pixels).collect();
        let dx: Vec<f64> = (0..x.len()).map(|i| f64::from(dy[i / (h * w)]) / pixels).collect();
        let got = backend.download_batch(n, &backend.avg_pool_fwd(&d, &backend.upload_batch(n, &x)));
        assert_close(&format!("{dims:?}: y"), &got, &y, 1e-6, 1e-6);
        let got = backend.download_batch(n, &backend.avg_pool_bwd(&d, &backend.upload_batch(n, &dy)));
        assert_close(&format!("{dims:?}: dx"), &got, &dx, 1e-6, 0.0);
    }
}

/// Small integers, of which several are the largest; every sixth sample's are all the same, and of five labels one is just as far
/// behind as the confidence, where the margin's loss ends, and one farther.
fn tied_logits(n: usize, classes: usize, labels: &[u8]) -> Vec<f32> {
    let mut logits: Vec<f32> = normal(3, n * classes).iter().map(|x| (1.5 * x).round()).collect();
    for (sample, (logits, &label)) in logits.chunks_mut(classes).zip(labels).enumerate() {
        if sample % 6 == 1 {
            logits.fill(2.0);
        }
        if sample % 5 > 2 {
            let rival = logits[first_largest(logits, Some(usize::from(label)))];
            logits[usize::from(label)] = rival - 47.0 - (sample % 5) as f32;
        }
    }
    logits
}

fn first_largest(values: &[f32], except: Option<usize>) -> usize {
    let others = (0..values.len()).filter(|&class| Some(class) != except);
    others.reduce(|best, class| if values[class] > values[best] { class } else { best }).unwrap()
}

/// Of few classes and of as many as there can be, in every place of a warp's registers.
pub fn losses<B: Backend>(backend: &B) {
    for (n, classes) in [(5, 2), (40, 10), (37, 16), (37, 17), (70, 40), (35, 256)] {
        let d = LogitDims { n: n as u32, classes: classes as u32 };
        let (labels, weight) = (labels(2, n, classes as u32), 0.5);
        let logits = tied_logits(n, classes, &labels);
        let (mut entropy, mut margin, mut correct) = (0.0, 0.0, 0);
        let [mut of_entropy, mut of_margin] = [vec![], vec![]];
        let mut predicted = Vec::new();
        for (z, &label) in logits.chunks(classes).zip(&labels) {
            let label = usize::from(label);
            let (best, rival) = (first_largest(z, None), first_largest(z, Some(label)));
            predicted.push(best as u8);
            correct += u64::from(best == label);
            let exps: Vec<f64> = z.iter().map(|&v| f64::from(v - z[best]).exp()).collect();
            let sum: f64 = exps.iter().sum();
            entropy += sum.ln() + f64::from(z[best] - z[label]);
            let one_hot = |class: usize, c: usize| f64::from(u8::from(class == c));
            of_entropy.extend((0..classes).map(|c| 0.5 * (exps[c] / sum - one_hot(label, c))));
            // The authors' confidence.
            let ahead = f64::from(z[label] - z[rival]) + 50.0;
            margin -= ahead.max(0.0);
            let positive = f64::from(u8::from(ahead > 0.0));
            of_margin.extend((0..classes).map(|c| 0.5 * positive * (one_hot(rival, c) - one_hot(label, c))));
        }
        let what = |of: &str| format!("{n} samples, {classes} classes: {of}");
        let (batch, on_device) = (backend.upload_batch(n, &logits), backend.labels(&labels));
        for (kind, sum, dlogits) in
            [(LossKind::CrossEntropy, entropy, of_entropy), (LossKind::Margin, margin, of_margin)]
        {
            let out = backend.loss_fwd(&d, kind, weight, &batch, &on_device);
            let loss = backend.download(&out.loss);
            assert_close(&what(&format!("{kind:?}")), &loss, &[0.5 * sum], 1e-6, 0.0);
            let got = backend.download_batch(n, &out.dlogits);
            assert_close(&what(&format!("gradient of {kind:?}")), &got, &dlogits, 1e-6, 1e-7);
        }
        assert_eq!(backend.predictions(&d, &batch), predicted, "{}", what("predictions"));
        let mut metrics = backend.metrics();
        backend.metrics_add(&d, &batch, &on_device, &mut metrics);
        let counts = backend.metrics_read(&metrics);
        assert_eq!((counts.samples, counts.correct), (n as u64, correct), "{}", what("correct"));
        assert_close(&what("loss of the metrics"), &[counts.loss], &[entropy], 1e-6, 0.0);
    }
}

/// NaN counts as larger than every number, the last of several: such a sample is not classified by chance.
pub fn nan_is_predicted<B: Backend>(backend: &B) {
    for classes in [10, 40, 256] {
        let last = classes - 1;
        for nans in [vec![0], vec![last], vec![3, 7], vec![classes / 2, last]] {
            let mut logits = normal(1, classes);
            nans.iter().for_each(|&class| logits[class] = f32::NAN);
            let d = LogitDims { n: 1, classes: classes as u32 };
            let got = backend.predictions(&d, &backend.upload_batch(1, &logits));
            assert_eq!(got, [nans[nans.len() - 1] as u8], "{classes} classes, NaN at {nans:?}");
        }
    }
}

/// Outputs and inputs on both sides of the tiles, and images that need a third block of sixteen.
pub fn linear_layers<B: Backend>(backend: &B) {
    for [n, f_in, f_out] in [[1, 5, 3], [17, 36, 33], [40, 70, 65], [33, 64, 10], [35, 131, 129]] {
        let d = LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
        let (x, dy) = (drifting(1, [n, f_in, 1, 1]), drifting(2, [n, f_out, 1, 1]));
        let (w, b) = (normal(3, f_out * f_in), normal(4, f_out));
        let product = |a: &dyn Fn(usize) -> f32, b: &dyn Fn(usize) -> f32, len: usize| {
            (0..len).map(|i| f64::from(a(i)) * f64::from(b(i))).sum::<f64>()
        };
        let y = (0..n * f_out).map(|o| {
            let (row, col) = (o / f_out, o % f_out);
            f64::from(b[col]) + product(&|i| x[row * f_in + i], &|i| w[col * f_in + i], f_in)
        });
        let y: Vec<f64> = y.collect();
        let dx = (0..n * f_in).map(|o| product(&|i| dy[o / f_in * f_out + i], &|i| w[i * f_in + o % f_in], f_out));
        let dw = (0..f_out * f_in).map(|o| product(&|i| dy[i * f_out + o / f_in], &|i| x[i * f_in + o % f_in], n));
        let db = (0..f_out).map(|o| product(&|i| dy[i * f_out + o], &|_| 1.0, n));
        let what = |of: &str| format!("{d:?}: {of}");
        let (x, dy) = (backend.upload_batch(n, &x), backend.upload_batch(n, &dy));
        let (w, b) = (backend.upload(&w), backend.upload(&b));
        let got = backend.download_batch(n, &backend.linear_fwd(&d, &x, &w, Some(&b), Activation::Identity));
        assert_close(&what("y"), &got, &y, 1e-5, 0.0);
        let got = backend.download_batch(n, &backend.linear_fwd(&d, &x, &w, Some(&b), Activation::Relu));
        let rectified: Vec<f64> = y.iter().map(|y| y.max(0.0)).collect();
        assert_close(&what("y with ReLU"), &got, &rectified, 1e-5, 1e-5);
        let got = backend.download_batch(n, &backend.linear_bwd_input(&d, &dy, &w));
        assert_close(&what("dx"), &got, &dx.collect::<Vec<f64>>(), 1e-5, 0.0);
        let got = backend.download(&backend.linear_bwd_weight(&d, &x, &dy));
        assert_close(&what("dw"), &got, &dw.collect::<Vec<f64>>(), 1e-5, 0.0);
        let got = backend.download(&backend.bias_bwd(&ChannelDims::new([n, f_out, 1, 1]), &dy));
        assert_close(&what("db"), &got, &db.collect::<Vec<f64>>(), 1e-5, 1e-5);
    }
}

/// How a parameter of [`updates`] is held, by its number.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    Free,
    Masked,
    Pulled,
}

/// A parameter and all that belongs to it, in f64.
struct Param {
    held: Held,
    rho: f64,
    w: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    mask: Vec<f64>,
    z: Vec<f64>,
    u: Vec<f64>,
}

/// Lengths around a block of 1024 elements, and one of more elements than a thread of the CPU takes at a time.
const LENGTHS: [usize; 10] = [1, 3, 4, 1023, 1024, 1025, 2, 2050, 17_000, 5];

impl Param {
    fn new(i: usize) -> Self {
        let len = LENGTHS[i % LENGTHS.len()];
        let numbers = |kind: usize| wide(&normal((10 * i + kind) as u64, len));
        let mask = numbers(1).iter().map(|&v| f64::from(u8::from(v > 0.0))).collect();
        let held = [Held::Free, Held::Masked, Held::Pulled][i % 3];
        // Sparse, and yet no mask.
        let mut z = numbers(2);
        z.iter_mut().step_by(3).for_each(|z| *z = 0.0);
        let rho = f64::from(0.25 + 0.125 * i as f32);
        Param { held, rho, w: numbers(0), m: vec![0.0; len], v: vec![0.0; len], mask, z, u: numbers(3) }
    }

    fn gradient(&self, i: usize, t: u32) -> Vec<f32> {
        normal(u64::from(t) * 1000 + i as u64, self.w.len())
    }

    /// An update by `rule(gradient, m, v, w)`.
    fn update(&mut self, g: &[f32], rule: impl Fn(f64, &mut f64, &mut f64, &mut f64)) {
        for i in 0..g.len() {
            let pull = self.rho * (self.w[i] - self.z[i] + self.u[i]);
            let g = f64::from(g[i]) + if self.held == Held::Pulled { pull } else { 0.0 };
            rule(g, &mut self.m[i], &mut self.v[i], &mut self.w[i]);
            if self.held == Held::Masked && self.mask[i] == 0.0 {
                (self.m[i], self.v[i], self.w[i]) = (0.0, 0.0, 0.0);
            }
        }
    }
}

/// A parameter's buffers on a backend: weights, state, mask, z and u.
struct OnDevice<Buf> {
    w: Buf,
    m: Buf,
    v: Buf,
    mask: Buf,
    z: Buf,
    u: Buf,
}

fn constraint<'a, Buf>(param: &Param, [mask, z, u]: [&'a Buf; 3]) -> Constraint<'a, Buf> {
    match param.held {
        Held::Free => Constraint::Free,
        Held::Masked => Constraint::Mask(mask),
        Held::Pulled => Constraint::Penalty { rho: param.rho as f32, z, u },
    }
}

/// Both rules on more parameters than a launch's table has room for, three times.
pub fn updates<B: Backend>(backend: &B) {
    for adam in [false, true] {
        let mut params: Vec<Param> = (0..70).map(Param::new).collect();
        let up = |values: &[f64]| backend.upload(&values.iter().map(|&v| v as f32).collect::<Vec<f32>>());
        let on_device =
            |p: &Param| OnDevice { w: up(&p.w), m: up(&p.m), v: up(&p.v), mask: up(&p.mask), z: up(&p.z), u: up(&p.u) };
        let mut bufs: Vec<OnDevice<B::Buf>> = params.iter().map(on_device).collect();
        for t in 1..=3 {
            let gradients: Vec<Vec<f32>> = params.iter().enumerate().map(|(i, p)| p.gradient(i, t)).collect();
            let uploaded: Vec<B::Buf> = gradients.iter().map(|g| backend.upload(g)).collect();
            let lr = 0.1 / t as f32;
            let all = bufs.iter_mut().zip(&params).zip(&uploaded);
            if adam {
                let step = AdamStep { lr, beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.02, t };
                let mut all: Vec<_> = all
                    .map(|((OnDevice { w, m, v, mask, z, u }, p), g)| AdamParam {
                        constraint: constraint(p, [mask, z, u]),
                        g,
                        m,
                        v,
                        w,
                    })
                    .collect();
                backend.adam_step(&step, &mut all);
            } else {
                let step = SgdStep { lr, momentum: 0.9, weight_decay: 0.02 };
                let mut all: Vec<_> = all
                    .map(|((OnDevice { w, v, mask, z, u, .. }, p), g)| SgdParam {
                        constraint: constraint(p, [mask, z, u]),
                        g,
                        v,
                        w,
                    })
                    .collect();
                backend.sgd_step(&step, &mut all);
            }
            for (p, g) in params.iter_mut().zip(&gradients) {
                p.update(g, |g, m, v, w| {
                    let g = g + f64::from(0.02_f32) * *w;
                    let lr = f64::from(lr);
                    if adam {
                        let (beta1, beta2) = (f64::from(0.9_f32), f64::from(0.99_f32));
                        *m = beta1 * *m + (1.0 - beta1) * g;
                        *v = beta2 * *v + (1.0 - beta2) * g * g;
                        let (m, v) = (*m / (1.0 - beta1.powi(t as i32)), *v / (1.0 - beta2.powi(t as i32)));
                        *w -= lr * m / (v.sqrt() + f64::from(1e-3_f32));
                    } else {
                        *v = f64::from(0.9_f32) * *v + g;
                        *w -= lr * *v;
                    }
                });
            }
        }
        for (i, (p, OnDevice { w, m, v, .. })) in params.iter().zip(&bufs).enumerate() {
            for (what, got, want) in [("weights", w, &p.w), ("v", v, &p.v), ("m", m, &p.m)] {
                let got = backend.download(got);
                assert_close(&format!("parameter {i}, Adam {adam}: {what}"), &got, want, 2e-5, 1e-7);
            }
        }
    }
}
