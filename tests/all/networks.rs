//! Networks with the weights recorded from PyTorch, and one pass through them.

use std::sync::Arc;

use engine::autograd::ops;
use engine::autograd::tape::Tape;
use engine::autograd::tensor::{Param, Tensor};
use engine::backend::{Backend, LossKind};
use engine::nn::models::{Architecture, Mode, Model, Network, Stats};

use crate::oracle::Oracle;

/// Every network with the name of its recorded file.
pub const NETWORKS: [(Network, &str); 4] = [
    (Network::LeNet, "lenet"),
    (Network::LeNetCifar, "lenet_cifar"),
    (Network::ResNet18, "resnet18"),
    (Network::Vgg16Bn, "vgg16_bn"),
];

/// `network` at w=1 with all weights zero.
pub fn zeros<B: Backend>(backend: &B, network: Network) -> Model<B> {
    let architecture = Arc::new(Architecture::new(network, 1, 10).unwrap());
    let values: Vec<Vec<f32>> = architecture.params.iter().map(|p| vec![0.0; p.len()]).collect();
    Model::new(backend, architecture, &values).unwrap()
}

/// The network of the recorded `file` with its weights and running statistics.
pub fn recorded<B: Backend>(backend: &B, file: &str) -> (Oracle, Model<B>) {
    let oracle = Oracle::load(file);
    let (network, _) = NETWORKS.into_iter().find(|(_, name)| *name == file).expect("one of the recorded networks");
    let mut model = zeros(backend, network);
    let lookup = |name: &str, shape: &[usize]| {
        let (recorded, values) = oracle.tensor(&format!("state.{name}"));
        assert_eq!(shape, recorded, "{file}: shape of {name}");
        Ok(values.to_vec())
    };
    model.load_state(backend, lookup).unwrap();
    (oracle, model)
}

/// Recorded labels as the engine takes them.
pub fn labels(oracle: &Oracle, name: &str) -> Vec<u8> {
    oracle.integers(name).into_iter().map(|label| label as u8).collect()
}

/// What one forward and backward pass computes.
pub struct Pass<B: Backend> {
    pub logits: Vec<f32>,
    pub loss: Param<B>,
    pub dx: Tensor<B>,
    /// In the order of the architecture.
    pub grads: Vec<Param<B>>,
    pub stats: Stats<B>,
}

/// A pass on `weight × Σ cross-entropy`.
pub fn pass<B: Backend>(
    backend: &B,
    model: &Model<B>,
    mode: Mode,
    weight: f32,
    x: Tensor<B>,
    labels: &[u8],
) -> Pass<B> {
    let tape = Tape::new(backend);
    let params = model.leaves(&tape);
    let x = tape.leaf(x);
    let output = model.forward(&tape, &params, &x, mode).unwrap();
    let labels = backend.labels(labels);
    let loss = ops::loss(&tape, LossKind::CrossEntropy, weight, &output.logits, &labels);
    let mut gradients = tape.backward(&loss, &[&x], &params.iter().collect::<Vec<_>>()).unwrap();
    Pass {
        logits: output.logits.tensor().values(backend),
        loss: loss.param().clone(),
        dx: gradients.tensors.remove(0),
        grads: gradients.params,
        stats: output.stats,
    }
}
