//! Gradients by central differences, in f64: of every op through the tape, and of whole networks.

use std::sync::Arc;

use engine::backend::cpu::Cpu;
use engine::backend::{ChannelStats, Loss, LossKind, Memory};
use engine::models::{Mode, Network};
use engine::ops::{self, BatchNorm};
use engine::rng::{Rng, Stream};
use engine::tape::{Tape, Var};
use engine::tensor::{Shape, Tensor};

use crate::backends::labels;
use crate::networks::{self, NETWORKS, recorded};
use crate::numdiff::check_gradient;

type Device = Cpu<f64>;

/// Of the differences of one op: far from the kinks of the values drawn, which the ops' own smoothness then decides.
const OP_STEP: f64 = 1e-5;
const OP_TOLERANCE: f64 = 1e-7;

fn device() -> Device {
    Cpu::new(2).unwrap()
}

fn normal(seed: u64, len: usize) -> Vec<f64> {
    let rng = Rng::new(seed, Stream::Init, 0);
    (0..len as u64).map(|e| rng.normal_at(e)).collect()
}

/// A tensor in the backend's own precision.
fn tensor(backend: &Device, shape: &Shape, values: &[f64]) -> Tensor<Device> {
    let buf = match shape {
        Shape::Plain(_) => backend.buffer(values),
        Shape::Batch(dims) => backend.batch(dims[0], values),
    };
    Tensor::new(buf, shape.clone())
}

/// The values of a tensor in the backend's own precision.
fn values(backend: &Device, tensor: &Tensor<Device>) -> Vec<f64> {
    match tensor.shape() {
        Shape::Plain(_) => tensor.buf().to_vec(),
        Shape::Batch(dims) => backend.batch_values(dims[0], tensor.buf()),
    }
}

/// An op of some inputs on a tape.
type Op<'o> = &'o dyn Fn(&Tape<'_, Device>, &[Var<Device>]) -> Var<Device>;

/// Makes a scalar of an op's output: three random combinations of each sample as logits, and their cross-entropy.
fn to_loss(tape: &Tape<'_, Device>, y: &Var<Device>) -> Var<Device> {
    if y.shape().len() == 1 && matches!(y.shape(), Shape::Plain(_)) {
        return y.clone();
    }
    let backend = tape.backend();
    let [n, features] = [y.shape().dims()[0], y.shape().dims()[1..].iter().product()];
    let scale = 1.0 / (features as f64).sqrt();
    let w: Vec<f64> = normal(1000, 3 * features).iter().map(|v| v * scale).collect();
    let w = tape.leaf(tensor(backend, &Shape::Plain(vec![3, features]), &w));
    let b = tape.leaf(tensor(backend, &Shape::Plain(vec![3]), &[0.0; 3]));
    let logits = ops::linear(tape, y, &w, &b, false).unwrap();
    ops::loss(tape, LossKind::CrossEntropy, 1.0, &logits, &backend.labels(&labels(1001, n, 3))).unwrap()
}

/// Checks the gradient of `op` with respect to each of its inputs, which are drawn.
#[track_caller]
fn check_op(what: &str, shapes: &[Shape], op: Op<'_>) {
    let inputs: Vec<Vec<f64>> = shapes.iter().enumerate().map(|(i, s)| normal(i as u64, s.len())).collect();
    check_op_at(what, shapes, &inputs, op);
}

/// [`check_op`] at given values.
#[track_caller]
fn check_op_at(what: &str, shapes: &[Shape], inputs: &[Vec<f64>], op: Op<'_>) {
    let backend = device();
    let leaves = |tape: &Tape<'_, Device>, inputs: &[Vec<f64>]| -> Vec<Var<Device>> {
        shapes.iter().zip(inputs).map(|(shape, values)| tape.leaf(tensor(&backend, shape, values))).collect()
    };
    let tape = Tape::new(&backend);
    let vars = leaves(&tape, inputs);
    let loss = to_loss(&tape, &op(&tape, &vars));
    let grads = tape.backward(&loss, &vars.iter().collect::<Vec<_>>()).unwrap();
    for (i, grad) in grads.iter().enumerate() {
        let mut moved = inputs.to_vec();
        let f = |point: &[f64]| {
            moved[i] = point.to_vec();
            let tape = Tape::new(&backend);
            let vars = leaves(&tape, &moved);
            to_loss(&tape, &op(&tape, &vars)).buf()[0]
        };
        let (what, grad) = (format!("{what}: input {i}"), values(&backend, grad));
        check_gradient(&what, f, &inputs[i], &grad, OP_STEP, OP_TOLERANCE, Some(120));
    }
}

fn plain(dims: &[usize]) -> Shape {
    Shape::Plain(dims.to_vec())
}

#[test]
fn conv2d() {
    for (x, c_out, k, stride, pad) in [
        ([3, 1, 6, 6], 2, 5, 1, 2),
        ([9, 3, 5, 4], 4, 3, 1, 1),
        ([2, 2, 9, 7], 3, 3, 2, 1),
        ([5, 4, 6, 7], 3, 1, 2, 0),
        ([2, 3, 8, 8], 2, 3, 2, 0),
        ([1, 2, 2, 2], 2, 5, 3, 2),
    ] {
        let shapes = [Shape::Batch(x), plain(&[c_out, x[1], k, k]), plain(&[c_out])];
        let what = format!("{x:?}, {c_out} filters {k}x{k}, stride {stride}, padding {pad}");
        for relu in [false, true] {
            check_op(&format!("{what}, ReLU {relu}"), &shapes, &|tape, v| {
                ops::conv2d(tape, &v[0], &v[1], Some(&v[2]), (stride, pad), relu).unwrap()
            });
        }
        check_op(&format!("{what}, no bias"), &shapes[..2], &|tape, v| {
            ops::conv2d(tape, &v[0], &v[1], None, (stride, pad), false).unwrap()
        });
    }
}

#[test]
fn linear() {
    for (x, f_out) in [([1, 7, 1, 1], 3), ([9, 2, 3, 2], 5), ([17, 10, 1, 1], 1)] {
        let shapes = [Shape::Batch(x), plain(&[f_out, x[1] * x[2] * x[3]]), plain(&[f_out])];
        for relu in [false, true] {
            check_op(&format!("{x:?} to {f_out}, ReLU {relu}"), &shapes, &|tape, v| {
                ops::linear(tape, &v[0], &v[1], &v[2], relu).unwrap()
            });
        }
    }
}

/// Statistics of five channels, away from 0 and 1.
fn running(backend: &Device) -> Arc<ChannelStats<<Device as Memory>::Buf>> {
    let (mean, var) = (backend.buffer(&[0.3, -0.2, 1.0, 0.0, -1.5]), backend.buffer(&[0.5, 1.5, 2.0, 1.0, 0.1]));
    Arc::new(ChannelStats { mean, var })
}

#[test]
fn batch_norm() {
    let stats = running(&device());
    for x in [[3, 5, 4, 2], [9, 5, 1, 1], [8, 5, 3, 3]] {
        let shapes = [Shape::Batch(x), plain(&[5]), plain(&[5]), Shape::Batch(x)];
        for running in [None, Some(&stats)] {
            for (inputs, relu) in [(3, false), (3, true), (4, false), (4, true)] {
                let what = format!("{x:?}, batch statistics {}, {inputs} inputs, ReLU {relu}", running.is_none());
                check_op(&what, &shapes[..inputs], &|tape, v| {
                    let bn = BatchNorm { eps: 1e-5, gamma: &v[1], beta: &v[2], residual: v.get(3), relu };
                    ops::batch_norm(tape, &v[0], bn, running.cloned()).unwrap().0
                });
            }
        }
    }
}

#[test]
fn pooling() {
    for x in [[2, 3, 6, 7], [9, 1, 5, 5]] {
        for (k, stride) in [(2, 2), (3, 2), (2, 1), (3, 1)] {
            let what = format!("max-pool {k} at {stride} of {x:?}");
            check_op(&what, &[Shape::Batch(x)], &|tape, v| ops::max_pool2d(tape, &v[0], k, stride).unwrap());
        }
        check_op("average", &[Shape::Batch(x)], &|tape, v| ops::global_avg_pool(tape, &v[0]).unwrap());
    }
}

#[test]
fn elementwise() {
    let x = Shape::Batch([9, 2, 3, 1]);
    check_op("add", &[x.clone(), x.clone()], &|tape, v| ops::add(tape, &v[0], &v[1]).unwrap());
    check_op("ReLU", &[x.clone()], &|tape, v| ops::relu(tape, &v[0]));
    check_op("a value used twice", &[x.clone()], &|tape, v| {
        let y = ops::add(tape, &v[0], &ops::relu(tape, &v[0])).unwrap();
        ops::add(tape, &y, &v[0]).unwrap()
    });
}

#[test]
fn losses() {
    let shape = Shape::Batch([9, 10, 1, 1]);
    // Margins on both sides of the point where the loss saturates.
    let logits: Vec<f64> = normal(7, 90).iter().map(|v| 30.0 * v).collect();
    for kind in [LossKind::CrossEntropy, LossKind::Margin] {
        for weight in [1.0, 0.125] {
            check_op_at(
                &format!("{kind:?}"),
                std::slice::from_ref(&shape),
                std::slice::from_ref(&logits),
                &|tape, v| ops::loss(tape, kind, weight, &v[0], &tape.backend().labels(&labels(8, 9, 10))).unwrap(),
            );
        }
    }
}

#[test]
fn lenet() {
    check_network(Network::LeNet);
}

#[test]
fn lenet_cifar() {
    check_network(Network::LeNetCifar);
}

#[test]
fn resnet18() {
    check_network(Network::ResNet18);
}

#[test]
fn vgg16_bn() {
    check_network(Network::Vgg16Bn);
}

/// The whole loss with respect to every parameter and the images, in both modes.
///
/// A step moves thousands of ReLUs and max-pools a little, so it is small: few pass a kink, and then by little.
fn check_network(network: Network) {
    const STEP: f64 = 1e-7;
    const TOLERANCE: f64 = 1e-5;
    let backend = device();
    let (_, file) = NETWORKS.into_iter().find(|(n, _)| *n == network).unwrap();
    let (oracle, mut model) = recorded(&backend, file);
    let labels = networks::labels(&oracle, "labels");
    let shape = model.input(labels.len());
    let images: Vec<f64> = oracle.values("x").iter().map(|&v| v.into()).collect();
    let weight = 1.0 / labels.len() as f32;
    // Of every parameter a few elements: ResNet-18 has 62 parameters, LeNet 8.
    let samples = Some(2 + 80 / model.params().len());
    for mode in [Mode::Eval, Mode::Train] {
        let found = networks::pass(&backend, &model, mode, weight, tensor(&backend, &shape, &images), &labels);
        let loss = |model: &_, x: &[f64]| loss(&backend, model, mode, weight, tensor(&backend, &shape, x), &labels);
        let what = |of: &str| format!("{network} in {mode:?} mode: {of}");
        let dx = values(&backend, &found.dx);
        check_gradient(&what("images"), |x| loss(&model, x), &images, &dx, STEP, TOLERANCE, Some(20));
        for (i, grad) in found.grads.iter().enumerate() {
            let (original, name) = (model.params()[i].clone(), model.architecture().params[i].name.clone());
            let set = |w: &[f64]| {
                model.params_mut()[i] = tensor(&backend, original.shape(), w);
                loss(&model, &images)
            };
            let (w, grad) = (values(&backend, &original), values(&backend, grad));
            check_gradient(&what(&name), set, &w, &grad, STEP, TOLERANCE, samples);
            model.params_mut()[i] = original;
        }
    }
}

/// The forward pass of [`networks::pass`] alone, in full precision.
fn loss(
    backend: &Device,
    model: &engine::models::Model<Device>,
    mode: Mode,
    weight: f32,
    x: Tensor<Device>,
    labels: &[u8],
) -> f64 {
    let tape = Tape::new(backend);
    let logits = model.forward(&tape, &model.leaves(&tape), &tape.leaf(x), mode).unwrap().logits;
    ops::loss(&tape, LossKind::CrossEntropy, weight, &logits, &backend.labels(labels)).unwrap().buf()[0]
}
