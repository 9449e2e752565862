//! Every backward pass in f64 against central differences: each op, and the losses of whole networks.

use std::sync::Arc;

use engine::autograd::ops;
use engine::autograd::tape::{Tape, Var};
use engine::autograd::tensor::{Shape, Tensor};
use engine::backend::cpu::Cpu;
use engine::backend::{ChannelStats, Loss, LossKind};
use engine::base::error::{Error, Result};
use engine::nn::models::{Mode, Network};

use crate::backends::{labels, normal, uniform};
use crate::compare::assert_close;
use crate::networks;
use crate::numdiff::check_gradient;

type Device = Cpu<f64>;

/// Small enough to step over no kink of these inputs, large enough that f64 does not cancel.
const STEP: f64 = 1e-6;
/// For whole networks: thirteen normalised layers make a large step of a small one, and there are thousands of kinks.
const NETWORK_STEP: f64 = 1e-7;
const TOLERANCE: f64 = 1e-5;

/// Every element of the inputs of an op.
const ALL: (f64, Option<usize>) = (STEP, None);

fn device() -> Device {
    Cpu::new(1).unwrap()
}

/// A variable of the function under test.
#[derive(Clone)]
struct Input {
    name: &'static str,
    shape: Shape,
    values: Vec<f64>,
}

impl Input {
    fn new(name: &'static str, shape: Shape, seed: u64) -> Self {
        let values = normal(seed, shape.len()).into_iter().map(f64::from).collect();
        Input { name, shape, values }
    }

    fn tensor(&self, device: &Device) -> Tensor<Device> {
        let buf = match self.shape {
            Shape::Plain(_) => device.buffer(&self.values),
            Shape::Batch(dims) => device.batch(dims[0], &self.values),
        };
        Tensor::new(buf, self.shape.clone())
    }
}

fn plain(name: &'static str, dims: &[usize], seed: u64) -> Input {
    Input::new(name, Shape::Plain(dims.to_vec()), seed)
}

fn batch(name: &'static str, dims: [usize; 4], seed: u64) -> Input {
    Input::new(name, Shape::Batch(dims), seed)
}

/// Values of a tensor in full precision.
fn values(device: &Device, tensor: &Tensor<Device>) -> Vec<f64> {
    match tensor.shape() {
        Shape::Plain(_) => tensor.buf().to_vec(),
        Shape::Batch(dims) => device.batch_values(dims[0], tensor.buf()),
    }
}

/// Checks the gradient of the scalar `f` with respect to every input, or to `samples` elements of each.
fn check(
    what: &str,
    inputs: &[Input],
    (step, samples): (f64, Option<usize>),
    f: impl for<'a> Fn(&Tape<'a, Device>, &[Var<Device>]) -> Result<Var<Device>>,
) {
    let device = device();
    let value = |inputs: &[Input]| {
        let tape = Tape::new(&device);
        let vars: Vec<_> = inputs.iter().map(|i| tape.leaf(i.tensor(&device))).collect();
        values(&device, f(&tape, &vars).unwrap().tensor())[0]
    };
    let tape = Tape::new(&device);
    let vars: Vec<_> = inputs.iter().map(|i| tape.leaf(i.tensor(&device))).collect();
    let loss = f(&tape, &vars).unwrap();
    let grads = tape.backward(&loss, &vars.iter().collect::<Vec<_>>()).unwrap();
    for (i, (input, gradient)) in inputs.iter().zip(&grads).enumerate() {
        let mut moved = inputs.to_vec();
        let at = |x: &[f64]| {
            moved[i].values.copy_from_slice(x);
            value(&moved)
        };
        let analytic = values(&device, gradient);
        check_gradient(&format!("{what}: {}", input.name), at, &input.values, &analytic, step, TOLERANCE, samples);
    }
}

/// Makes a scalar of any batch: random logits from it, and their cross-entropy.
fn score(tape: &Tape<'_, Device>, y: &Var<Device>) -> Result<Var<Device>> {
    let [n, c, h, w] = y.batch_dims("score")?;
    let features = c * h * w;
    let weight = tape.leaf(plain("", &[10, features], 90).tensor(tape.backend()));
    let bias = tape.leaf(plain("", &[10], 91).tensor(tape.backend()));
    let logits = ops::linear(tape, y, &weight, &bias, false)?;
    // A mean over features too, so that no logit saturates the softmax.
    let labels = tape.backend().labels(&labels(92, n, 10));
    ops::loss(tape, LossKind::CrossEntropy, 1.0 / (n * features) as f32, &logits, &labels)
}

#[test]
fn conv2d() {
    // n, c_in, h, w, c_out, k, stride, pad: also strides that leave a remainder and 1x1 at stride 2.
    for (case, [n, c_in, h, w, c_out, k, stride, pad]) in [
        [3, 1, 7, 7, 2, 5, 1, 2],
        [9, 3, 5, 4, 5, 3, 1, 1],
        [2, 2, 9, 7, 3, 3, 2, 1],
        [2, 3, 7, 8, 2, 1, 2, 0],
        [1, 2, 8, 9, 1, 3, 2, 0],
        [1, 2, 11, 10, 3, 3, 3, 1],
    ]
    .into_iter()
    .enumerate()
    {
        let inputs = [batch("x", [n, c_in, h, w], 1), plain("w", &[c_out, c_in, k, k], 2), plain("b", &[c_out], 3)];
        for relu in [false, true] {
            check(&format!("conv2d case {case} relu {relu}"), &inputs, (STEP, Some(60)), |tape, v| {
                score(tape, &ops::conv2d(tape, &v[0], &v[1], Some(&v[2]), (stride, pad), relu)?)
            });
        }
    }
}

#[test]
fn conv2d_pool() {
    // The same, and the side of the pooling's windows.
    for (case, [n, c_in, h, w, c_out, k, stride, pad, pool]) in
        [[3, 1, 8, 8, 2, 5, 1, 2, 2], [17, 2, 9, 7, 3, 3, 1, 1, 2], [2, 2, 11, 12, 3, 3, 2, 1, 3]]
            .into_iter()
            .enumerate()
    {
        let inputs = [batch("x", [n, c_in, h, w], 1), plain("w", &[c_out, c_in, k, k], 2), plain("b", &[c_out], 3)];
        check(&format!("conv2d_pool case {case}"), &inputs, (STEP, Some(60)), |tape, v| {
            score(tape, &ops::conv2d_pool(tape, &v[0], &v[1], Some(&v[2]), (stride, pad), pool)?)
        });
    }
}

#[test]
fn linear() {
    let inputs = [batch("x", [9, 2, 3, 1], 1), plain("w", &[11, 6], 2), plain("b", &[11], 3)];
    for relu in [false, true] {
        check(&format!("linear relu {relu}"), &inputs, ALL, |tape, v| {
            score(tape, &ops::linear(tape, &v[0], &v[1], &v[2], relu)?)
        });
    }
}

#[test]
fn batch_norm() {
    let dims = [5, 3, 4, 3];
    let inputs = [batch("x", dims, 1), plain("gamma", &[3], 2), plain("beta", &[3], 3), batch("residual", dims, 4)];
    for (evaluate, relu) in [(false, false), (false, true), (true, false), (true, true)] {
        check(&format!("batch_norm eval {evaluate} relu {relu}"), &inputs, ALL, |tape, v| {
            let device = tape.backend();
            let stats = ChannelStats { mean: device.buffer(&[0.1, -0.2, 0.3]), var: device.buffer(&[0.8, 1.1, 2.0]) };
            let bn = ops::BatchNorm { eps: 1e-5, gamma: &v[1], beta: &v[2], residual: Some(&v[3]), relu };
            score(tape, &ops::batch_norm(tape, &v[0], bn, evaluate.then(|| Arc::new(stats)))?.0)
        });
    }
}

#[test]
fn pooling() {
    let inputs = [batch("x", [3, 2, 7, 6], 1)];
    for (k, stride) in [(2, 2), (3, 2), (3, 1)] {
        check(&format!("max_pool2d {k} {stride}"), &inputs, ALL, |tape, v| {
            score(tape, &ops::max_pool2d(tape, &v[0], k, stride)?)
        });
    }
    check("global_avg_pool", &inputs, ALL, |tape, v| score(tape, &ops::global_avg_pool(tape, &v[0])?));
}

#[test]
fn add_and_relu() {
    let dims = [3, 2, 3, 3];
    let inputs = [batch("a", dims, 1), batch("b", dims, 2)];
    check("add", &inputs, ALL, |tape, v| score(tape, &ops::add(tape, &v[0], &v[1])?));
    check("relu", &inputs[..1], ALL, |tape, v| score(tape, &ops::relu(tape, &v[0])));
    // One variable used twice: its two gradients are added up.
    check("x + x", &inputs[..1], ALL, |tape, v| score(tape, &ops::add(tape, &v[0], &v[0])?));
    check("x + relu(x)", &inputs[..1], ALL, |tape, v| score(tape, &ops::add(tape, &v[0], &ops::relu(tape, &v[0]))?));
}

/// From any output's gradient: what the gradient of `Σ dy y` is, for a parameter, an input and a variable used twice.
#[test]
fn pull_back() {
    let device = device();
    let inputs = [batch("x", [9, 2, 3, 3], 1), plain("w", &[3, 2, 3, 3], 2), plain("b", &[3], 3)];
    let dy = batch("dy", [9, 3, 3, 3], 4);
    let forward = |tape: &Tape<'_, Device>, v: &[Var<Device>]| {
        let y = ops::conv2d(tape, &v[0], &v[1], Some(&v[2]), (1, 1), false).unwrap();
        ops::add(tape, &y, &ops::relu(tape, &y)).unwrap()
    };
    let leaves = |tape: &Tape<'_, Device>| inputs.iter().map(|i| tape.leaf(i.tensor(&device))).collect::<Vec<_>>();

    let tape = Tape::new(&device);
    let vars = leaves(&tape);
    let y = forward(&tape, &vars);
    let wrt: Vec<_> = vars.iter().collect();
    let pulled = tape.pull_back(&y, device.batch(9, &dy.values), &wrt).unwrap();

    let tape = Tape::new(&device);
    let vars = leaves(&tape);
    let y = forward(&tape, &vars);
    let sum = values(&device, y.tensor()).iter().zip(&dy.values).map(|(y, dy)| y * dy).sum();
    let functional = Tensor::new(device.buffer(&[sum]), Shape::Plain(vec![1]));
    let loss = tape.record(functional, &[&y], |_, _| vec![Some(device.batch(9, &dy.values))]);
    let wanted = tape.backward(&loss, &vars.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!([pulled.len(), wanted.len()], [inputs.len(); 2]);
    for ((input, pulled), wanted) in inputs.iter().zip(&pulled).zip(&wanted) {
        assert_close(input.name, &values(&device, pulled), &values(&device, wanted), 0.0, 0.0);
    }

    // And the derivative of that sum is what it says.
    let f = |w: &[f64]| {
        let tape = Tape::new(&device);
        let moved = Input { values: w.to_vec(), ..inputs[1].clone() };
        let mut vars = leaves(&tape);
        vars[1] = tape.leaf(moved.tensor(&device));
        let y = forward(&tape, &vars);
        values(&device, y.tensor()).iter().zip(&dy.values).map(|(y, dy)| y * dy).sum()
    };
    check_gradient("pull_back: w", f, &inputs[1].values, &values(&device, &pulled[1]), STEP, TOLERANCE, None);

    // A variable that the output does not depend on.
    let tape = Tape::new(&device);
    let vars = leaves(&tape);
    let y = ops::relu(&tape, &vars[0]);
    let dy = device.batch(9, &inputs[0].values);
    assert!(matches!(tape.pull_back(&y, dy, &[&vars[1]]), Err(Error::Shape { .. })));
}

/// What is pulled back through a loss is its gradient times that of the loss.
#[test]
fn pull_back_through_a_loss() {
    let (device, logits) = (device(), batch("logits", [9, 10, 1, 1], 1));
    let pulled = |dy: f64| {
        let tape = Tape::new(&device);
        let z = tape.leaf(logits.tensor(&device));
        let loss = ops::loss(&tape, LossKind::CrossEntropy, 0.25, &z, &device.labels(&labels(2, 9, 10))).unwrap();
        values(&device, &tape.pull_back(&loss, device.buffer(&[dy]), &[&z]).unwrap()[0])
    };
    let want: Vec<f64> = pulled(1.0).iter().map(|gradient| -2.5 * gradient).collect();
    assert_close("dlogits", &pulled(-2.5), &want, 1e-12, 0.0);
}

#[test]
fn losses() {
    let inputs = [batch("logits", [9, 10, 1, 1], 1)];
    for kind in [LossKind::CrossEntropy, LossKind::Margin] {
        check(&format!("{kind:?}"), &inputs, ALL, |tape, v| {
            ops::loss(tape, kind, 0.25, &v[0], &tape.backend().labels(&labels(2, 9, 10)))
        });
    }
}

/// The mean cross-entropy of a whole network with PyTorch's recorded weights, with respect to some elements of every
/// parameter and to the image.
fn network(network: Network, file: &str, mode: Mode) {
    let device = device();
    let (_, model) = networks::recorded(&device, file);
    let n = 2;
    let mut inputs: Vec<Input> = model
        .params()
        .iter()
        .map(|p| Input { name: "parameter", shape: p.shape().clone(), values: p.buf().to_vec() })
        .collect();
    let [c, h, w] = network.input();
    let shape = Shape::Batch([n, c, h, w]);
    let pixels = uniform(5, shape.len()).into_iter().map(f64::from).collect();
    inputs.push(Input { name: "image", shape, values: pixels });
    check(&format!("{network} {mode:?}"), &inputs, (NETWORK_STEP, Some(2)), |tape, v| {
        let (image, params) = v.split_last().expect("the image");
        // A model has no device of its own: the parameters are those on the tape.
        let logits = model.forward(tape, params, image, mode)?.logits;
        ops::loss(tape, LossKind::CrossEntropy, 1.0 / n as f32, &logits, &tape.backend().labels(&labels(6, n, 10)))
    });
}

#[test]
fn lenet() {
    network(Network::LeNet, "lenet", Mode::Eval);
}

#[test]
fn lenet_cifar() {
    network(Network::LeNetCifar, "lenet_cifar", Mode::Eval);
}

#[test]
fn resnet18() {
    network(Network::ResNet18, "resnet18", Mode::Eval);
    network(Network::ResNet18, "resnet18", Mode::Train);
}

#[test]
fn vgg16_bn() {
    network(Network::Vgg16Bn, "vgg16_bn", Mode::Eval);
    network(Network::Vgg16Bn, "vgg16_bn", Mode::Train);
}
