//! Every backward pass in f64 against central differences: each op, and the losses of whole networks.

use std::sync::Arc;

use engine::autograd::ops;
use engine::autograd::tape::{Gradients, ParamVar, Tape, Var};
use engine::autograd::tensor::{Param, Shape, Tensor};
use engine::backend::cpu::Cpu;
use engine::backend::{Activation, ChannelStats, Loss, LossKind};
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

/// Sizes of a variable of the function under test.
#[derive(Clone)]
enum Sizes {
    Batch([usize; 4]),
    Param(Vec<usize>),
}

impl Sizes {
    fn len(&self) -> usize {
        match self {
            Sizes::Batch(dims) => dims.iter().product(),
            Sizes::Param(dims) => dims.iter().product(),
        }
    }
}

/// A variable of the function under test.
#[derive(Clone)]
struct Input {
    name: &'static str,
    sizes: Sizes,
    values: Vec<f64>,
}

impl Input {
    fn new(name: &'static str, sizes: Sizes, seed: u64) -> Self {
        let values = normal(seed, sizes.len()).into_iter().map(f64::from).collect();
        Input { name, sizes, values }
    }
}

fn param(name: &'static str, dims: &[usize], seed: u64) -> Input {
    Input::new(name, Sizes::Param(dims.to_vec()), seed)
}

fn batch(name: &'static str, dims: [usize; 4], seed: u64) -> Input {
    Input::new(name, Sizes::Batch(dims), seed)
}

/// Inputs on a tape: the batches and the parameters among them, each in their order.
struct Vars {
    batches: Vec<Var<Device>>,
    params: Vec<ParamVar<Device>>,
}

impl Vars {
    fn new(tape: &Tape<'_, Device>, inputs: &[Input]) -> Self {
        let (device, mut vars) = (tape.backend(), Vars { batches: Vec::new(), params: Vec::new() });
        for Input { sizes, values, .. } in inputs {
            match sizes {
                Sizes::Batch(dims) => {
                    vars.batches.push(tape.leaf(Tensor::new(device.batch(dims[0], values), Shape(*dims))));
                }
                Sizes::Param(dims) => vars.params.push(tape.param(Param::new(device.buffer(values), dims.clone()))),
            }
        }
        vars
    }

    fn batches(&self) -> Vec<&Var<Device>> {
        self.batches.iter().collect()
    }

    fn params(&self) -> Vec<&ParamVar<Device>> {
        self.params.iter().collect()
    }
}

/// Values of a batch in full precision.
fn values(device: &Device, tensor: &Tensor<Device>) -> Vec<f64> {
    device.batch_values(tensor.shape().dims()[0], tensor.buf())
}

/// Gradients in full precision, in the order of `inputs`.
fn in_order(device: &Device, inputs: &[Input], gradients: &Gradients<Device>) -> Vec<Vec<f64>> {
    let (mut batches, mut params) = (gradients.tensors.iter(), gradients.params.iter());
    let next = |input: &Input| match input.sizes {
        Sizes::Batch(_) => values(device, batches.next().expect("a gradient for each batch")),
        Sizes::Param(_) => params.next().expect("a gradient for each parameter").buf().to_vec(),
    };
    inputs.iter().map(next).collect()
}

/// Checks the gradient of the scalar `f` with respect to every input, or to `samples` elements of each.
fn check(
    what: &str,
    inputs: &[Input],
    (step, samples): (f64, Option<usize>),
    f: impl for<'a> Fn(&Tape<'a, Device>, &Vars) -> Result<ParamVar<Device>>,
) {
    let device = device();
    let value = |inputs: &[Input]| {
        let tape = Tape::new(&device);
        f(&tape, &Vars::new(&tape, inputs)).unwrap().buf()[0]
    };
    let tape = Tape::new(&device);
    let vars = Vars::new(&tape, inputs);
    let loss = f(&tape, &vars).unwrap();
    let gradients = tape.backward(&loss, &vars.batches(), &vars.params()).unwrap();
    for (i, (input, analytic)) in inputs.iter().zip(in_order(&device, inputs, &gradients)).enumerate() {
        let mut moved = inputs.to_vec();
        let at = |x: &[f64]| {
            moved[i].values.copy_from_slice(x);
            value(&moved)
        };
        check_gradient(&format!("{what}: {}", input.name), at, &input.values, &analytic, step, TOLERANCE, samples);
    }
}

/// Makes a scalar of any batch: random logits from it, and their cross-entropy.
fn score(tape: &Tape<'_, Device>, y: &Var<Device>) -> Result<ParamVar<Device>> {
    let [n, c, h, w] = y.dims();
    let features = c * h * w;
    let vars = Vars::new(tape, &[param("", &[10, features], 90), param("", &[10], 91)]);
    let logits = ops::linear(tape, y, &vars.params[0], &vars.params[1], Activation::Identity)?;
    // A mean over features too, so that no logit saturates the softmax.
    let labels = tape.backend().labels(&labels(92, n, 10));
    Ok(ops::loss(tape, LossKind::CrossEntropy, 1.0 / (n * features) as f32, &logits, &labels))
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
        let inputs = [batch("x", [n, c_in, h, w], 1), param("w", &[c_out, c_in, k, k], 2), param("b", &[c_out], 3)];
        for &activation in Activation::ALL {
            check(&format!("conv2d case {case} {activation:?}"), &inputs, (STEP, Some(60)), |tape, v| {
                score(
                    tape,
                    &ops::conv2d(tape, &v.batches[0], &v.params[0], Some(&v.params[1]), (stride, pad), activation)?,
                )
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
        let inputs = [batch("x", [n, c_in, h, w], 1), param("w", &[c_out, c_in, k, k], 2), param("b", &[c_out], 3)];
        for &activation in Activation::ALL {
            check(&format!("conv2d_pool case {case} {activation:?}"), &inputs, (STEP, Some(60)), |tape, v| {
                let [w, b] = [0, 1].map(|i| &v.params[i]);
                score(tape, &ops::conv2d_pool(tape, &v.batches[0], w, Some(b), (stride, pad), activation, pool)?)
            });
        }
    }
}

#[test]
fn linear() {
    let inputs = [batch("x", [9, 2, 3, 1], 1), param("w", &[11, 6], 2), param("b", &[11], 3)];
    for &activation in Activation::ALL {
        check(&format!("linear {activation:?}"), &inputs, ALL, |tape, v| {
            score(tape, &ops::linear(tape, &v.batches[0], &v.params[0], &v.params[1], activation)?)
        });
    }
}

#[test]
fn batch_norm() {
    let dims = [5, 3, 4, 3];
    let inputs = [batch("x", dims, 1), param("gamma", &[3], 2), param("beta", &[3], 3), batch("residual", dims, 4)];
    let cases = Activation::ALL.iter().flat_map(|&a| [(false, a, 3), (true, a, 3), (false, a, 4), (true, a, 4)]);
    for (evaluate, activation, used) in cases {
        check(&format!("batch_norm eval {evaluate} {activation:?}, {used} inputs"), &inputs[..used], ALL, |tape, v| {
            let device = tape.backend();
            let stats = ChannelStats { mean: device.buffer(&[0.1, -0.2, 0.3]), var: device.buffer(&[0.8, 1.1, 2.0]) };
            let (gamma, beta, residual) = (&v.params[0], &v.params[1], v.batches.get(1));
            let bn = ops::BatchNorm { eps: 1e-5, gamma, beta, residual, activation };
            score(tape, &ops::batch_norm(tape, &v.batches[0], bn, evaluate.then(|| Arc::new(stats)))?.0)
        });
    }
}

#[test]
fn pooling() {
    let inputs = [batch("x", [3, 2, 7, 6], 1)];
    for (k, stride) in [(2, 2), (3, 2), (3, 1)] {
        check(&format!("max_pool2d {k} {stride}"), &inputs, ALL, |tape, v| {
            score(tape, &ops::max_pool2d(tape, &v.batches[0], k, stride)?)
        });
    }
    check("global_avg_pool", &inputs, ALL, |tape, v| score(tape, &ops::global_avg_pool(tape, &v.batches[0])));
}

#[test]
fn add_and_activations() {
    let dims = [3, 2, 3, 3];
    let inputs = [batch("a", dims, 1), batch("b", dims, 2)];
    check("add", &inputs, ALL, |tape, v| score(tape, &ops::add(tape, &v.batches[0], &v.batches[1])?));
    for &activation in Activation::ALL {
        check(&format!("{activation:?}"), &inputs[..1], ALL, |tape, v| {
            score(tape, &ops::activate(tape, &v.batches[0], activation))
        });
    }
    // One variable used twice: its two gradients are added up.
    check("x + x", &inputs[..1], ALL, |tape, v| score(tape, &ops::add(tape, &v.batches[0], &v.batches[0])?));
    check("x + relu(x)", &inputs[..1], ALL, |tape, v| {
        score(tape, &ops::add(tape, &v.batches[0], &ops::activate(tape, &v.batches[0], Activation::Relu))?)
    });
}

/// From any output's gradient: the gradient of `Σ dy y`, for a parameter, an input and a variable used twice.
#[test]
fn vjp() {
    let device = device();
    let inputs = [batch("x", [9, 2, 3, 3], 1), param("w", &[3, 2, 3, 3], 2), param("b", &[3], 3)];
    let dy = batch("dy", [9, 3, 3, 3], 4);
    let forward = |tape: &Tape<'_, Device>, v: &Vars| {
        let y =
            ops::conv2d(tape, &v.batches[0], &v.params[0], Some(&v.params[1]), (1, 1), Activation::Identity).unwrap();
        ops::add(tape, &y, &ops::activate(tape, &y, Activation::Relu)).unwrap()
    };
    let functional =
        |y: &Var<Device>| -> f64 { values(&device, y.tensor()).iter().zip(&dy.values).map(|(y, dy)| y * dy).sum() };

    let tape = Tape::new(&device);
    let vars = Vars::new(&tape, &inputs);
    let y = forward(&tape, &vars);
    let product = tape.vjp(&y, device.batch(9, &dy.values), &vars.batches(), &vars.params()).unwrap();
    let product = in_order(&device, &inputs, &product);

    let tape = Tape::new(&device);
    let vars = Vars::new(&tape, &inputs);
    let y = forward(&tape, &vars);
    let sum = Param::new(device.buffer(&[functional(&y)]), vec![1]);
    let loss = tape.record_scalar(sum, &y, device.batch(9, &dy.values));
    let wanted = tape.backward(&loss, &vars.batches(), &vars.params()).unwrap();
    for ((input, product), wanted) in inputs.iter().zip(&product).zip(in_order(&device, &inputs, &wanted)) {
        assert_close(input.name, product, &wanted, 0.0, 0.0);
    }

    // And the derivative of that sum is what it says.
    let f = |w: &[f64]| {
        let mut moved = inputs.clone();
        moved[1].values.copy_from_slice(w);
        let tape = Tape::new(&device);
        functional(&forward(&tape, &Vars::new(&tape, &moved)))
    };
    check_gradient("vjp: w", f, &inputs[1].values, &product[1], STEP, TOLERANCE, None);

    // A variable that the output does not depend on.
    let tape = Tape::new(&device);
    let vars = Vars::new(&tape, &inputs);
    let y = ops::activate(&tape, &vars.batches[0], Activation::Relu);
    let dy = device.batch(9, &inputs[0].values);
    assert!(matches!(tape.vjp(&y, dy, &[], &vars.params()[..1]), Err(Error::Shape { .. })));
}

/// The gradient of a value between two ops is the same whether the walk ends there or goes on: a normalisation works in it.
#[test]
fn of_a_value_in_between() {
    let device = device();
    let inputs = [batch("x", [9, 2, 3, 3], 1), param("gamma", &[2], 2), param("beta", &[2], 3)];
    let gradient = |goes_on: bool| {
        let tape = Tape::new(&device);
        let v = Vars::new(&tape, &inputs);
        let (gamma, beta) = (&v.params[0], &v.params[1]);
        let bn = ops::BatchNorm { eps: 1e-5, gamma, beta, residual: None, activation: Activation::Relu };
        let (y, _) = ops::batch_norm(&tape, &v.batches[0], bn, None).unwrap();
        let loss = score(&tape, &y).unwrap();
        let asked = if goes_on { vec![&y, &v.batches[0]] } else { vec![&y] };
        values(&device, &tape.backward(&loss, &asked, &[]).unwrap().tensors[0])
    };
    let ends = gradient(false);
    assert!(ends.iter().any(|dy| *dy != 0.0));
    assert_close("dy", &gradient(true), &ends, 0.0, 0.0);
}

#[test]
fn losses() {
    let inputs = [batch("logits", [9, 10, 1, 1], 1)];
    for kind in [LossKind::CrossEntropy, LossKind::Margin] {
        check(&format!("{kind:?}"), &inputs, ALL, |tape, v| {
            Ok(ops::loss(tape, kind, 0.25, &v.batches[0], &tape.backend().labels(&labels(2, 9, 10))))
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
        .map(|p| Input { name: "parameter", sizes: Sizes::Param(p.dims().to_vec()), values: p.buf().to_vec() })
        .collect();
    let [c, h, w] = network.input();
    let sizes = Sizes::Batch([n, c, h, w]);
    let pixels = uniform(5, sizes.len()).into_iter().map(f64::from).collect();
    inputs.push(Input { name: "image", sizes, values: pixels });
    check(&format!("{network} {mode:?}"), &inputs, (NETWORK_STEP, Some(2)), |tape, v| {
        // A model has no device of its own: the parameters are those on the tape.
        let logits = model.forward(tape, &v.params, &v.batches[0], mode)?.logits;
        let labels = tape.backend().labels(&labels(6, n, 10));
        Ok(ops::loss(tape, LossKind::CrossEntropy, 1.0 / n as f32, &logits, &labels))
    });
}

/// A test for each network in these modes. The compiler asks for a network that has none.
macro_rules! networks {
    ($($test:ident: $network:ident in [$($mode:ident),+];)+) => {
        $(
            #[test]
            fn $test() {
                $( network(Network::$network, stringify!($test), Mode::$mode); )+
            }
        )+

        const _: fn(Network) = |network| match network { $( Network::$network => {} )+ };
    };
}

networks! {
    lenet: LeNet in [Eval];
    lenet_cifar: LeNetCifar in [Eval];
    resnet18: ResNet18 in [Eval, Train];
    vgg16_bn: Vgg16Bn in [Eval, Train];
}
