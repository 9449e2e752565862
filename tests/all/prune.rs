//! Pruning: what is kept, what it costs, what is left, and networks to try it on.
//!
//! - `admm`: a problem with a known answer, and what an update does
//! - `groups`: which tensors are selected from together, and settings that do not fit
//! - `optimizer`: masks and penalties inside an update of the weights
//! - `pruned`: filters that are pruned for good emit exactly zero
//! - `report`: what is counted
//! - `selection`: exactly k, lower indices first, nearest point; projections of whole networks
//! - `shrinking`: small networks with the same logits

pub mod admm;
mod groups;
pub mod optimizer;
mod pruned;
mod report;
pub mod selection;
mod shrinking;

use std::sync::Arc;

use engine::autograd::tape::Tape;
use engine::autograd::tensor::Tensor;
use engine::backend::Backend;
use engine::data::{Dataset, DatasetName};
use engine::nn::models::{Architecture, Mode, Model, Network};
use engine::nn::params::Role;
use engine::prune::{Scheme, Target};

use crate::backends::{normal, uniform};

/// Every layer but the classifier.
fn target(scheme: Scheme, ratio: f64) -> Target {
    Target { scheme, ratio, linear: true }
}

/// `network` at `width` with random values everywhere: scales of either sign, shifts, biases and running statistics
/// too, so that nothing is zero that pruning should have set to zero.
fn random_model<B: Backend>(backend: &B, network: Network, width: usize, seed: u64) -> Model<B> {
    random_values(backend, Architecture::new(network, width, 10).unwrap(), seed)
}

fn random_values<B: Backend>(backend: &B, architecture: Architecture, seed: u64) -> Model<B> {
    let value = |i: usize| {
        let (spec, seed) = (&architecture.params[i], 1000 * seed + i as u64);
        let (scale, shift) = match spec.role {
            Role::ConvWeight | Role::LinearWeight => {
                ((2.0 / spec.shape[1..].iter().product::<usize>() as f32).sqrt(), 0.0)
            }
            Role::Bias { .. } | Role::Beta => (0.3, 0.05),
            Role::Gamma => (0.2, if i.is_multiple_of(2) { 1.0 } else { -1.0 }),
        };
        normal(seed, spec.len()).into_iter().map(|v| scale * v + shift).collect()
    };
    let values: Vec<Vec<f32>> = (0..architecture.params.len()).map(value).collect();
    let mut model = Model::new(backend, Arc::new(architecture), &values).unwrap();
    let mut state = model.state(backend).into_iter();
    let lookup = |name: &str, _: &[usize]| {
        let (_, shape, values) = state.next().expect("as many as the model has");
        Ok(match name {
            _ if name.ends_with("running_mean") => {
                normal(seed + 1, shape[0]).into_iter().map(|v| 0.2 * v + 0.1).collect()
            }
            _ if name.ends_with("running_var") => uniform(seed + 2, shape[0]).into_iter().map(|v| 0.5 + v).collect(),
            _ => values,
        })
    };
    model.load_state(backend, lookup).unwrap();
    model
}

/// `n` test images of the embedded sample that `network` takes.
fn sample_images<B: Backend>(backend: &B, network: Network, n: usize) -> Tensor<B> {
    let name = DatasetName::with_shape(network.input()).unwrap();
    let data = Dataset::sample(name).unwrap();
    let [c, h, w] = data.shape;
    let pixels: Vec<f32> = data.test.images[..n * c * h * w].iter().map(|&p| f32::from(p) / 255.0).collect();
    Tensor::upload(backend, [n, c, h, w], &pixels)
}

fn logits<B: Backend>(backend: &B, model: &Model<B>, mode: Mode, images: &Tensor<B>) -> Vec<f32> {
    let tape = Tape::new(backend);
    let x = tape.leaf(images.clone());
    model.forward(&tape, &model.leaves(&tape), &x, mode).unwrap().logits.tensor().values(backend)
}

/// Values of every parameter.
fn params<B: Backend>(backend: &B, model: &Model<B>) -> Vec<Vec<f32>> {
    model.params().iter().map(|p| p.values(backend)).collect()
}

/// The same network with these values of its parameters.
fn with_params<B: Backend>(backend: &B, model: &Model<B>, values: &[Vec<f32>]) -> Model<B> {
    let mut changed = Model::new(backend, model.architecture().clone(), values).unwrap();
    let state = model.state(backend);
    let lookup = |name: &str, _: &[usize]| {
        let param = model.architecture().params.iter().position(|p| p.name == name);
        let running = || state.iter().find(|(n, _, _)| n == name).expect("a running statistic").2.clone();
        Ok(param.map_or_else(running, |i| values[i].clone()))
    };
    changed.load_state(backend, lookup).unwrap();
    changed
}
