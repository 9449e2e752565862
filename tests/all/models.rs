//! The networks: sizes, names, and whole passes against PyTorch.

use engine::autograd::ops;
use engine::autograd::tape::{Tape, Var};
use engine::autograd::tensor::{Param, Shape, Tensor};
use engine::backend::cpu::Cpu;
use engine::backend::{Activation, Backend};
use engine::base::error::{Error, Result};
use engine::nn::models::{Architecture, Mode, Model, Network};

use crate::backends::{labels, on_every_backend, uniform};
use crate::compare::assert_close;
use crate::networks::{NETWORKS, pass, recorded, zeros};
use crate::oracle::Oracle;

on_every_backend! {
    lenet_agrees_with_pytorch, lenet_cifar_agrees_with_pytorch, resnet18_agrees_with_pytorch,
    vgg16_bn_agrees_with_pytorch, a_batch_is_its_samples,
}

#[test]
fn parameter_counts() {
    for (network, width, count) in [
        (Network::LeNet, 1, 13_514),
        (Network::LeNet, 16, 3_274_634),
        (Network::LeNetCifar, 1, 62_006),
        (Network::ResNet18, 1, 44_622),
        (Network::ResNet18, 16, 11_173_962),
        (Network::Vgg16Bn, 16, 14_728_266),
    ] {
        assert_eq!(Architecture::new(network, width, 10).unwrap().parameters(), count, "{network} w={width}");
    }
}

#[test]
fn names_shapes_and_order_are_pytorchs() {
    assert_eq!(NETWORKS.map(|(network, _)| network), Network::ALL, "networks that PyTorch has recorded");
    for (network, file) in NETWORKS {
        let (oracle, architecture) = (Oracle::load(file), Architecture::new(network, 1, 10).unwrap());
        let names: Vec<&str> = architecture.params.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, oracle.names("parameters"), "{file}");
        assert_eq!(oracle.metadata("parameter_count"), architecture.parameters());
        for param in &architecture.params {
            assert_eq!(param.shape, oracle.shape(&format!("state.{}", param.name)), "{file}: {}", param.name);
        }
        let statistics =
            architecture.norms.iter().flat_map(|n| ["mean", "var"].map(|which| format!("{}.running_{which}", n.name)));
        let recorded = oracle.names("state_dict").into_iter().filter(|name| name.contains(".running_"));
        assert_eq!(statistics.collect::<Vec<_>>(), recorded.collect::<Vec<_>>(), "{file}");
    }
}

#[test]
fn multiply_adds_of_one_image() {
    // conv1 28² × 2 × 25, conv2 14² × 4 × 2 × 25, fc1 196 × 64, fc2 64 × 10.
    let lenet = Architecture::new(Network::LeNet, 1, 10).unwrap();
    assert_eq!(lenet.multiply_adds, 39_200 + 39_200 + 12_544 + 640);
    // VGG-16: side and channels of each convolution, all 3×3, and the classifier.
    let vgg = [(32, 3, 64), (32, 64, 64), (16, 64, 128), (16, 128, 128), (8, 128, 256), (8, 256, 256), (8, 256, 256)]
        .into_iter()
        .chain([(4, 256, 512), (4, 512, 512), (4, 512, 512), (2, 512, 512), (2, 512, 512), (2, 512, 512)]);
    let vgg = vgg.map(|(side, c_in, c_out)| side * side * c_in * c_out * 9).sum::<u64>() + 512 * 10;
    assert_eq!(Architecture::new(Network::Vgg16Bn, 16, 10).unwrap().multiply_adds, vgg);
    // ResNet-18: the stem, four 3×3 convolutions a stage (the first from half the channels, and a 1×1 beside it).
    let stage = |side: u64, c: u64| side * side * c * (9 * (c / 2 + 3 * c) + c / 2);
    let resnet = 32 * 32 * (3 * 64 + 4 * 64 * 64) * 9 + stage(16, 128) + stage(8, 256) + stage(4, 512) + 512 * 10;
    assert_eq!(Architecture::new(Network::ResNet18, 16, 10).unwrap().multiply_adds, resnet);
}

#[test]
fn widths_and_classes_have_a_least_and_a_most() {
    for (width, classes, fits) in
        [(1, 1, true), (64, 256, true), (0, 10, false), (65, 10, false), (1, 0, false), (1, 257, false)]
    {
        assert_eq!(Architecture::new(Network::LeNet, width, classes).is_ok(), fits, "w={width}, {classes} classes");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(matches!(Architecture::new(Network::LeNet, 0, 10), Err(Error::Usage(_))));
    let lenet = Architecture::new(Network::LeNet, 1, 10).unwrap();
    lenet.check_data([1, 28, 28], 10).unwrap();
    let message = lenet.check_data([3, 32, 32], 10).unwrap_err().to_string();
    assert!(message.contains("28x28x1") && message.contains("32x32x3"), "{message}");

    let backend = Cpu::<f32>::new(1).unwrap();
    let model = zeros(&backend, Network::LeNet);
    assert!(matches!(Model::new(&backend, model.architecture().clone(), &[]), Err(Error::Shape { .. })));
    let tape = Tape::new(&backend);
    for dims in [[2, 1, 28, 27], [2, 3, 32, 32]] {
        let x = tape.leaf(Tensor::new(backend.batch(2, &vec![0.0; dims.iter().product()]), Shape(dims)));
        assert!(matches!(model.forward(&tape, &model.leaves(&tape), &x, Mode::Eval), Err(Error::Shape { .. })));
    }
}

#[test]
fn ops_refuse_shapes_that_do_not_fit() {
    let backend = Cpu::<f32>::new(1).unwrap();
    let tape = Tape::new(&backend);
    let ones = |dims: &[usize]| vec![1.0; dims.iter().product()];
    let batch = |dims: [usize; 4]| tape.leaf(Tensor::upload(&backend, dims, &ones(&dims)));
    let param = |dims: &[usize]| tape.param(Param::upload(&backend, dims, &ones(dims)));
    let refused = |what: &str, result: Result<Var<Cpu<f32>>>| {
        assert!(matches!(result, Err(Error::Shape { .. })), "{what} is not refused");
    };
    let (x, w, conv) = (batch([2, 3, 4, 5]), param(&[6, 3, 3, 3]), (1, 1));
    let (channels, other) = (param(&[3]), param(&[4]));
    refused(
        "a weight of other channels",
        ops::conv2d(&tape, &x, &param(&[6, 2, 3, 3]), None, conv, Activation::Identity),
    );
    refused("a bias of other filters", ops::conv2d(&tape, &x, &w, Some(&other), conv, Activation::Relu));
    refused(
        "a kernel larger than the image",
        ops::conv2d(&tape, &x, &param(&[6, 3, 7, 7]), None, (1, 0), Activation::Identity),
    );
    refused("windows larger than the image", ops::conv2d_pool(&tape, &x, &w, None, conv, Activation::Relu, 5));
    refused("a pooled bias of other filters", ops::conv2d_pool(&tape, &x, &w, Some(&other), conv, Activation::Relu, 2));
    refused("a matrix of other inputs", ops::linear(&tape, &x, &param(&[4, 59]), &other, Activation::Identity));
    refused("a bias of other outputs", ops::linear(&tape, &x, &param(&[4, 60]), &channels, Activation::Identity));
    refused("other images", ops::add(&tape, &x, &batch([1, 3, 4, 5])));
    refused("windows larger than the image", ops::max_pool2d(&tape, &x, 5, 1));
    for (what, gamma, beta, residual) in [
        ("a scale of other channels", &other, &channels, None),
        ("a shift of other channels", &channels, &other, None),
        ("another residual", &channels, &channels, Some(batch([2, 3, 5, 4]))),
    ] {
        let bn =
            ops::BatchNorm { eps: 1e-5, gamma, beta, residual: residual.as_ref(), activation: Activation::Identity };
        refused(what, ops::batch_norm(&tape, &x, bn, None).map(|(y, _)| y));
    }
}

#[test]
fn a_failed_load_leaves_the_model_as_it_was() {
    let backend = Cpu::<f32>::new(1).unwrap();
    let (_, mut model) = recorded(&backend, "resnet18");
    let before = model.state(&backend);
    let fail_at_the_end = |name: &str, shape: &[usize]| match name {
        "layer4.1.bn2.running_var" => Err(Error::Failed("cut short".into())),
        _ => Ok(vec![7.0; shape.iter().product()]),
    };
    assert!(model.load_state(&backend, fail_at_the_end).is_err());
    assert_eq!(model.state(&backend), before);
}

/// What is left of PyTorch's values in f64, recorded as f32, is their rounding: the differences in f32 are rounding, too.
#[test]
fn f64_agrees_with_pytorch_to_f32() {
    for (_, file) in NETWORKS {
        agrees_with_pytorch_to(&Cpu::<f64>::new(2).unwrap(), file, |_, _| 2e-7);
    }
}

fn lenet_agrees_with_pytorch<B: Backend>(backend: &B) {
    agrees_with_pytorch(backend, "lenet");
}

fn lenet_cifar_agrees_with_pytorch<B: Backend>(backend: &B) {
    agrees_with_pytorch(backend, "lenet_cifar");
}

fn resnet18_agrees_with_pytorch<B: Backend>(backend: &B) {
    agrees_with_pytorch(backend, "resnet18");
}

fn vgg16_bn_agrees_with_pytorch<B: Backend>(backend: &B) {
    agrees_with_pytorch(backend, "vgg16_bn");
}

fn agrees_with_pytorch<B: Backend>(backend: &B, file: &str) {
    agrees_with_pytorch_to(backend, file, Oracle::rtol);
}

/// Logits, loss and input gradient in both modes; in train mode the parameters' gradients and the running statistics.
fn agrees_with_pytorch_to<B: Backend>(backend: &B, file: &str, rtol: fn(&Oracle, &str) -> f64) {
    let (oracle, mut model) = recorded(backend, file);
    let check = |name: &str, got: &[f32]| {
        let atol = 1e-5 * cancelled_scale(&oracle, name);
        assert_close(&format!("{file}: {name}"), got, oracle.values(name), rtol(&oracle, name), atol);
    };
    let labels = crate::networks::labels(&oracle, "labels");
    for (mode, name) in [(Mode::Eval, "eval"), (Mode::Train, "train")] {
        let x = Tensor::upload(backend, oracle.shape("x").try_into().unwrap(), oracle.values("x"));
        let pass = pass(backend, &model, mode, 1.0 / labels.len() as f32, x, &labels);
        check(&format!("{name}.logits"), &pass.logits);
        check(&format!("{name}.loss"), &pass.loss.values(backend));
        check(&format!("{name}.dx"), &pass.dx.values(backend));
        if mode == Mode::Train {
            assert_eq!(pass.grads.len(), model.architecture().params.len());
            for (param, grad) in model.architecture().params.iter().zip(&pass.grads) {
                check(&format!("grad.{}", param.name), &grad.values(backend));
            }
        }
        model.update_running_stats(backend, pass.stats).unwrap();
    }
    for (name, _, values) in model.state(backend) {
        let (after, before) = (format!("after.{name}"), format!("state.{name}"));
        if name.contains(".running_") {
            check(&after, &values);
        } else {
            assert_eq!(values, oracle.values(&before), "{file}: {name} must not move");
        }
    }
}

/// The gradient of a convolution's bias in front of a batch norm is exactly zero: a sum that cancels, whose rounding
/// errors are relative to its terms. Their scale is that of the same layer's weight gradient; 0 for any other tensor.
fn cancelled_scale(oracle: &Oracle, name: &str) -> f64 {
    if oracle.values(name).iter().any(|&v| v != 0.0) {
        return 0.0;
    }
    let weight = oracle.values(&name.replace(".bias", ".weight"));
    (weight.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / weight.len() as f64).sqrt()
}

/// In eval mode: logits and input gradients of a batch are those of its samples alone, parameter gradients their sum,
/// whether or not the batch fills the backend's blocks.
fn a_batch_is_its_samples<B: Backend>(backend: &B) {
    for (network, file) in NETWORKS {
        let (_, model) = recorded(backend, file);
        let [c, h, w] = network.input();
        let features = c * h * w;
        let (images, labels) = (uniform(1, 17 * features), labels(2, 17, 10));
        let run = |first: usize, n: usize| {
            let x = Tensor::upload(backend, [n, c, h, w], &images[first * features..][..n * features]);
            pass(backend, &model, Mode::Eval, 1.0, x, &labels[first..][..n])
        };
        let alone: Vec<_> = (0..17).map(|i| run(i, 1)).collect();
        for n in [9, 17] {
            let what = |of: &str| format!("{file}: {of} of a batch of {n}");
            let batch = run(0, n);
            let logits: Vec<f32> = alone[..n].iter().flat_map(|a| a.logits.clone()).collect();
            assert_close(&what("logits"), &batch.logits, &logits, 1e-5, 0.0);
            let dx: Vec<f32> = alone[..n].iter().flat_map(|a| a.dx.values(backend)).collect();
            assert_close(&what("dx"), &batch.dx.values(backend), &dx, 1e-5, 0.0);
            for (i, param) in model.architecture().params.iter().enumerate() {
                let mut sum = vec![0.0; param.len()];
                for sample in &alone[..n] {
                    let grad = sample.grads[i].values(backend);
                    sum.iter_mut().zip(grad).for_each(|(sum, g)| *sum += f64::from(g));
                }
                assert_close(&what(&param.name), &batch.grads[i].values(backend), &sum, 1e-5, 0.0);
            }
        }
    }
}
