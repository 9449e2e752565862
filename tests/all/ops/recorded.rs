//! Every op on every case recorded from PyTorch, to 1e-5.

use engine::autograd::tensor::Param;
use engine::backend::{Activation, Backend, ChannelStats, Constraint, LossKind, NormBwd, NormFwd, RunningUpdate};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims, LogitDims, Pool2dDims};
use engine::nn::optim::{Optimizer, OptimizerConfig};

use crate::backends::{on_every_backend, relu_if, relu_output};
use crate::compare::assert_close;
use crate::oracle::Oracle;

on_every_backend! {
    conv2d, linear, max_pool2d, global_avg_pool2d, relu, batch_norm_eval, batch_norm_train, running_statistics,
    cross_entropy, margin, optimizers,
}

const RTOL: f64 = 1e-5;
const BN_EPS: f32 = 1e-5;

/// One recorded case on one backend.
struct Case<'a, B> {
    backend: &'a B,
    oracle: &'a Oracle,
    name: &'a str,
}

impl<B: Backend> Case<'_, B> {
    fn shape(&self, tensor: &str) -> &[usize] {
        self.oracle.shape(&format!("{}.{tensor}", self.name))
    }

    fn values(&self, tensor: &str) -> &[f32] {
        self.oracle.values(&format!("{}.{tensor}", self.name))
    }

    fn integers<const N: usize>(&self, tensor: &str) -> [usize; N] {
        self.oracle.integers(&format!("{}.{tensor}", self.name)).try_into().expect("as many as the README says")
    }

    fn image_dims(&self, tensor: &str) -> [usize; 4] {
        self.shape(tensor).try_into().expect("n c h w")
    }

    fn plain(&self, tensor: &str) -> B::Buf {
        self.backend.upload(self.values(tensor))
    }

    fn batch(&self, tensor: &str) -> B::Batch {
        self.backend.upload_batch(self.shape(tensor)[0], self.values(tensor))
    }

    #[track_caller]
    fn check_plain(&self, tensor: &str, got: &B::Buf) {
        self.check(tensor, &self.backend.download(got));
    }

    #[track_caller]
    fn check_batch(&self, tensor: &str, got: &B::Batch) {
        self.check(tensor, &self.backend.download_batch(self.shape(tensor)[0], got));
    }

    #[track_caller]
    fn check(&self, tensor: &str, got: &[f32]) {
        assert_close(&format!("{}.{tensor}", self.name), got, self.values(tensor), RTOL, 0.0);
    }
}

fn each_case<B: Backend>(backend: &B, op: &str, check: impl Fn(&Case<'_, B>)) {
    let oracle = Oracle::load("ops");
    for name in oracle.cases(op) {
        check(&Case { backend, oracle: &oracle, name: &name });
    }
}

pub fn conv2d<B: Backend>(backend: &B) {
    each_case(backend, "conv2d", |case| {
        let [n, c_in, h, width, c_out, k, stride, pad] = case.integers("dims");
        let d = Conv2dDims::new([n, c_in, h, width], c_out, k, stride, pad).unwrap();
        let (x, w, b, dy) = (case.batch("x"), case.plain("w"), case.plain("b"), case.batch("dy"));
        case.check_batch("y", &backend.conv2d_fwd(&d, &x, &w, Some(&b), Activation::Identity));
        case.check_batch("dx", &backend.conv2d_bwd_input(&d, &x, &dy, &w));
        case.check_plain("dw", &backend.conv2d_bwd_weight(&d, &x, &dy));
        case.check_plain("db", &backend.bias_bwd(&ChannelDims::new(d.y()), &dy));

        let rectified: Vec<f32> = case.values("y").iter().map(|y| y.max(0.0)).collect();
        let got = backend.download_batch(n, &backend.conv2d_fwd(&d, &x, &w, Some(&b), Activation::Relu));
        assert_close(&format!("{} with ReLU", case.name), &got, &rectified, RTOL, 0.0);

        let pixels = d.y()[2] * d.y()[3];
        let bias = |i: usize| case.values("b")[i / pixels % c_out];
        let without: Vec<f32> = case.values("y").iter().enumerate().map(|(i, y)| y - bias(i)).collect();
        let got = backend.download_batch(n, &backend.conv2d_fwd(&d, &x, &w, None, Activation::Identity));
        assert_close(&format!("{} without bias", case.name), &got, &without, RTOL, 0.0);
    });
}

pub fn linear<B: Backend>(backend: &B) {
    each_case(backend, "linear", |case| {
        let (n, f_out, f_in) = (case.shape("x")[0], case.shape("w")[0], case.shape("w")[1]);
        let d = LinearDims { n: n as u32, f_in: f_in as u32, f_out: f_out as u32 };
        let (x, w, b, dy) = (case.batch("x"), case.plain("w"), case.plain("b"), case.batch("dy"));
        case.check_batch("y", &backend.linear_fwd(&d, &x, &w, Some(&b), Activation::Identity));
        case.check_batch("dx", &backend.linear_bwd_input(&d, &dy, &w));
        case.check_plain("dw", &backend.linear_bwd_weight(&d, &x, &dy));
        case.check_plain("db", &backend.bias_bwd(&ChannelDims::new([n, f_out, 1, 1]), &dy));

        let rectified: Vec<f32> = case.values("y").iter().map(|y| y.max(0.0)).collect();
        let got = backend.download_batch(n, &backend.linear_fwd(&d, &x, &w, Some(&b), Activation::Relu));
        assert_close(&format!("{} with ReLU", case.name), &got, &rectified, RTOL, 0.0);
    });
}

pub fn max_pool2d<B: Backend>(backend: &B) {
    each_case(backend, "max_pool2d", |case| {
        let [n, c, h, w, k, stride] = case.integers("dims");
        let d = Pool2dDims::new([n, c, h, w], k, stride).unwrap();
        let (y, indices) = backend.max_pool2d_fwd(&d, &case.batch("x"));
        case.check_batch("y", &y);
        case.check_batch("dx", &backend.max_pool2d_bwd(&d, &indices, None, &case.batch("dy")));
    });
}

pub fn global_avg_pool2d<B: Backend>(backend: &B) {
    each_case(backend, "global_avg_pool2d", |case| {
        let d = ChannelDims::new(case.image_dims("x"));
        case.check_batch("y", &backend.avg_pool_fwd(&d, &case.batch("x")));
        case.check_batch("dx", &backend.avg_pool_bwd(&d, &case.batch("dy")));
    });
}

pub fn relu<B: Backend>(backend: &B) {
    each_case(backend, "relu", |case| {
        let y = backend.activation_fwd(Activation::Relu, &case.batch("x"));
        case.check_batch("y", &y);
        case.check_batch("dx", &backend.activation_bwd(relu_output(&y), &case.batch("dy")));
    });
}

pub fn batch_norm_eval<B: Backend>(backend: &B) {
    each_case(backend, "batch_norm", |case| {
        let stats = ChannelStats { mean: case.plain("running_mean"), var: case.plain("running_var") };
        batch_norm(case, "eval", &stats);
    });
}

pub fn batch_norm_train<B: Backend>(backend: &B) {
    each_case(backend, "batch_norm", |case| {
        let stats = backend.channel_stats(&ChannelDims::new(case.image_dims("x")), &case.batch("x"));
        case.check_plain("train.mean", &stats.mean);
        case.check_plain("train.var", &stats.var);
        batch_norm(case, "train", &stats);
    });
}

/// The normalisation and its gradients, alone and with the residual and the ReLU fused in.
fn batch_norm<B: Backend>(case: &Case<'_, B>, mode: &str, stats: &ChannelStats<B::Buf>) {
    let d = ChannelDims::new(case.image_dims("x"));
    let batch_stats = mode == "train";
    let (x, dy, gamma, beta) = (case.batch("x"), case.batch("dy"), case.plain("gamma"), case.plain("beta"));
    let fwd = |residual, relu| {
        let fwd = NormFwd { eps: BN_EPS, x: &x, gamma: &gamma, beta: &beta, residual, activation: relu_if(relu) };
        case.backend.batch_norm_fwd(&d, &fwd, stats)
    };
    let bwd = |activated, residual, dy: &B::Batch| {
        let bwd = NormBwd { eps: BN_EPS, x: &x, stats, batch_stats, gamma: &gamma, beta: &beta, activated, residual };
        case.backend.batch_norm_bwd(&d, &bwd, case.backend.copy_batch(dy))
    };
    case.check_batch(&format!("{mode}.y"), &fwd(None, false));
    let grads = bwd(None, false, &dy);
    // With two pixels a channel all but a thousandth of the gradient cancels; the rounding errors are those of what cancels.
    let (var, values) = (case.backend.download(&stats.var), case.backend.download_batch(d.n as usize, &grads.dx));
    let scaled = |(i, dy): (usize, &f32)| {
        let channel = i / d.hw as usize % d.c as usize;
        f64::from(*dy * case.values("gamma")[channel]) / f64::from(var[channel] + BN_EPS).sqrt()
    };
    let terms = case.values("dy").iter().enumerate().map(|of| scaled(of).powi(2)).sum::<f64>();
    let atol = 1e-6 * (terms / values.len() as f64).sqrt();
    let name = format!("{mode}.dx");
    assert_close(&format!("{}.{name}", case.name), &values, case.values(&name), RTOL, atol);
    case.check_plain(&format!("{mode}.dgamma"), &grads.dgamma);
    case.check_plain(&format!("{mode}.dbeta"), &grads.dbeta);
    assert!(grads.dresidual.is_none());

    // With a ReLU last the gradient is that of the masked dy, which is also the residual's.
    let values = |buf: &B::Batch| case.backend.download_batch(d.n as usize, buf);
    let y = fwd(Some(&dy), true);
    let masked = case.backend.activation_bwd(relu_output(&y), &dy);
    let want = bwd(None, false, &masked);
    let got = bwd(Some(relu_output(&y)), true, &dy);
    assert_close("dx behind a ReLU", &values(&got.dx), &values(&want.dx), RTOL, 0.0);
    let (got_dgamma, want_dgamma) = (case.backend.download(&got.dgamma), case.backend.download(&want.dgamma));
    assert_close("dgamma behind a ReLU", &got_dgamma, &want_dgamma, RTOL, 0.0);
    let (got_dbeta, want_dbeta) = (case.backend.download(&got.dbeta), case.backend.download(&want.dbeta));
    assert_close("dbeta behind a ReLU", &got_dbeta, &want_dbeta, RTOL, 0.0);
    assert_eq!(got.dresidual.map(|dy| values(&dy)), Some(values(&masked)), "the residual's gradient");
    let linear = bwd(None, true, &dy);
    assert_eq!(linear.dresidual.map(|dy| values(&dy)), Some(values(&dy)), "without a ReLU");

    // dy as the residual: any values will do.
    let pairs = case.values(&format!("{mode}.y")).iter().zip(case.values("dy"));
    let want: Vec<f32> = pairs.map(|(y, residual)| (y + residual).max(0.0)).collect();
    let got = case.backend.download_batch(d.n as usize, &fwd(Some(&dy), true));
    assert_close(&format!("{} {mode} with residual and ReLU", case.name), &got, &want, RTOL, 0.0);
}

pub fn running_statistics<B: Backend>(backend: &B) {
    each_case(backend, "batch_norm", |case| {
        let d = ChannelDims::new(case.image_dims("x"));
        let count = (d.n * d.hw) as f32;
        let batch = backend.channel_stats(&d, &case.batch("x"));
        let mut running = ChannelStats { mean: case.plain("running_mean"), var: case.plain("running_var") };
        let unbias = count / (count - 1.0);
        backend.update_running_stats(0.1, &mut [RunningUpdate { unbias, batch: &batch, running: &mut running }]);
        case.check_plain("train.running_mean", &running.mean);
        case.check_plain("train.running_var", &running.var);
    });
}

pub fn cross_entropy<B: Backend>(backend: &B) {
    each_case(backend, "losses", |case| {
        let n = case.shape("logits")[0];
        losses(case, "cross_entropy", LossKind::CrossEntropy, 1.0 / n as f32);

        let d = LogitDims { n: n as u32, classes: case.shape("logits")[1] as u32 };
        let mut metrics = backend.metrics();
        for _ in 0..2 {
            backend.metrics_add(&d, &case.batch("logits"), &backend.labels(&case_labels(case)), &mut metrics);
        }
        let counts = backend.metrics_read(&metrics);
        assert_eq!(counts.samples, 2 * n as u64);
        let mean = f64::from(case.oracle.scalar(&format!("{}.cross_entropy.mean", case.name)));
        assert_close(&format!("{} metrics", case.name), &[counts.mean_loss()], &[mean], RTOL, 0.0);
    });
}

pub fn margin<B: Backend>(backend: &B) {
    each_case(backend, "losses", |case| losses(case, "margin", LossKind::Margin, 1.0));
}

fn case_labels<B: Backend>(case: &Case<'_, B>) -> Vec<u8> {
    case.values("labels").iter().map(|&label| label as u8).collect()
}

/// The weighted sum and its gradient on the whole batch, then the loss of each image alone.
fn losses<B: Backend>(case: &Case<'_, B>, name: &str, kind: LossKind, weight: f32) {
    let (backend, labels) = (case.backend, case_labels(case));
    let (n, classes) = (case.shape("logits")[0], case.shape("logits")[1]);
    let d = LogitDims { n: n as u32, classes: classes as u32 };
    let recorded = case.values(&format!("{name}.loss"));
    let whole = backend.loss_fwd(&d, kind, weight, &case.batch("logits"), &backend.labels(&labels));
    let sum: f64 = recorded.iter().map(|&loss| f64::from(weight) * f64::from(loss)).sum();
    assert_close(&format!("{} {name} sum", case.name), &backend.download(&whole.loss), &[sum], RTOL, 0.0);
    case.check_batch(&format!("{name}.dlogits"), &whole.dlogits);

    let d = LogitDims { n: 1, ..d };
    let alone = |i: usize| {
        let logits = backend.upload_batch(1, &case.values("logits")[i * classes..][..classes]);
        backend.download(&backend.loss_fwd(&d, kind, 1.0, &logits, &backend.labels(&labels[i..=i])).loss)[0]
    };
    case.check(&format!("{name}.loss"), &(0..n).map(alone).collect::<Vec<f32>>());
}

pub fn optimizers<B: Backend>(backend: &B) {
    let oracle = Oracle::load("optim");
    let cases = oracle.metadata("cases").as_object().expect("cases by name");
    for (name, constants) in cases {
        let constant = |key: &str| constants[key].as_f64().unwrap_or_else(|| panic!("{name}: no {key}")) as f32;
        let weight_decay = constant("weight_decay");
        let config = if constants.get("momentum").is_some() {
            OptimizerConfig::Sgd { lr: 1.0, momentum: constant("momentum"), weight_decay }
        } else {
            let (beta1, beta2, eps) = (constant("beta1"), constant("beta2"), constant("eps"));
            OptimizerConfig::Adam { lr: 1.0, beta1, beta2, eps, weight_decay }
        };
        let values = oracle.values(&format!("{name}.params"));
        let shape = [values.len()];
        let mut params = [Param::upload(backend, &shape, values)];
        let mut optimizer = Optimizer::new(backend, &config, &params);
        let grads = oracle.values(&format!("{name}.grads")).chunks(values.len());
        for (step, (grads, &lr)) in grads.zip(oracle.values(&format!("{name}.lr"))).enumerate() {
            optimizer
                .step(backend, lr, &[Param::upload(backend, &shape, grads)], &mut params, |_| Constraint::Free)
                .unwrap();
            let recorded = format!("{name}.step{step}.params");
            assert_close(&recorded, &params[0].values(backend), oracle.values(&recorded), RTOL, 0.0);
        }
        assert_eq!(optimizer.updates(), 6, "{name}");
    }
}
