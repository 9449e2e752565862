//! Filters that are pruned for good emit exactly zero.

use engine::autograd::tape::Tape;
use engine::backend::cpu::Cpu;
use engine::nn::models::{Architecture, Mode, Model, Network};
use engine::prune::{Masks, Scheme, Target, hard_prune};

use super::{logits, params, random_model, sample_images, target, with_params};
use crate::compare::bits;

/// What pruning to `target` must empty of a network: channel spaces with the channels that no layer writes to.
fn dead_channels(architecture: &Architecture, values: &[Vec<f32>]) -> Vec<(usize, usize)> {
    let zero = |layer: usize, channel: usize| {
        let weight = &values[architecture.layers[layer].weight];
        let row = weight.len() / architecture.spaces[architecture.layers[layer].writes];
        weight[channel * row..][..row].iter().all(|&w| w == 0.0)
    };
    let writers =
        |space: usize| (0..architecture.layers.len()).filter(move |&l| architecture.layers[l].writes == space);
    let channels = |space: usize| {
        let dead = move |&c: &usize| writers(space).count() > 0 && writers(space).all(|l| zero(l, c));
        (0..architecture.spaces[space]).filter(dead).map(move |c| (space, c))
    };
    (0..architecture.spaces.len()).flat_map(channels).collect()
}

/// The same network, with other weights wherever a dead channel is read.
fn poisoned(backend: &Cpu<f32>, model: &Model<Cpu<f32>>, dead: &[(usize, usize)]) -> Model<Cpu<f32>> {
    let architecture = model.architecture();
    let mut values = params(backend, model);
    for layer in &architecture.layers {
        let weight = &mut values[layer.weight];
        let row = weight.len() / architecture.spaces[layer.writes];
        let len = row / architecture.spaces[layer.reads];
        for &(_, channel) in dead.iter().filter(|(space, _)| *space == layer.reads) {
            for row in weight.chunks_exact_mut(row) {
                row[channel * len..][..len].iter_mut().for_each(|w| *w = 100.0 * *w + 77.0);
            }
        }
    }
    with_params(backend, model, &values)
}

/// Whoever reads a pruned channel, with whatever weights, computes the same bits: the channel is exactly zero.
#[test]
fn nobody_can_see_a_pruned_channel() {
    let backend = Cpu::<f32>::new(2).unwrap();
    let cases = Network::ALL.iter().flat_map(|&network| {
        let (width, schemes): (_, &[Scheme]) = match network {
            Network::LeNet => (4, &[Scheme::Filter]),
            Network::LeNetCifar => (2, &[Scheme::Filter]),
            Network::Vgg16Bn => (4, &[Scheme::Filter, Scheme::BnFilter]),
            Network::ResNet18 => (4, &[Scheme::Filter, Scheme::BnFilter, Scheme::Tied]),
        };
        schemes.iter().map(move |&scheme| (network, width, scheme))
    });
    for (network, width, scheme) in cases {
        let mut model = random_model(&backend, network, width, 3);
        let dense = with_params(&backend, &model, &params(&backend, &model));
        let target = target(scheme, 0.5);
        hard_prune(&backend, &target, &mut model).unwrap();
        let dead = dead_channels(model.architecture(), &params(&backend, &model));
        let spaces = model.architecture().spaces.len();
        assert!(dead.len() > spaces, "{network} {scheme}: {} dead channels in {spaces} spaces", dead.len());
        let images = sample_images(&backend, network, 11);
        for mode in [Mode::Train, Mode::Eval] {
            let seen = |model: &Model<Cpu<f32>>| logits(&backend, model, mode, &images);
            let pruned = seen(&model);
            assert!(pruned.iter().all(|v| v.is_finite()), "{network} {scheme} {mode:?}");
            assert_ne!(pruned[..10], pruned[10..20], "{network} {scheme} {mode:?}: the images can be told apart");
            assert_eq!(bits(&seen(&poisoned(&backend, &model, &dead))), bits(&pruned), "{network} {scheme} {mode:?}");
            assert_ne!(bits(&seen(&poisoned(&backend, &dense, &dead))), bits(&seen(&dense)), "the poison works");
        }
    }
}

/// Steps of training do not move the running means of pruned filters away from zero, and nothing is left to shift them.
#[test]
fn a_pruned_filter_has_no_bias_scale_shift_or_running_mean() {
    let backend = Cpu::<f32>::new(2).unwrap();
    for scheme in [Scheme::Filter, Scheme::BnFilter, Scheme::Tied, Scheme::Irregular] {
        let mut model = random_model(&backend, Network::Vgg16Bn, 4, 2);
        // So few weights are left that whole filters go, in the wide layers.
        hard_prune(&backend, &target(scheme, if scheme == Scheme::Irregular { 0.97 } else { 0.75 }), &mut model)
            .unwrap();
        let images = sample_images(&backend, Network::Vgg16Bn, 8);
        let tape = Tape::new(&backend);
        let x = tape.leaf(images.clone());
        let stats = model.forward(&tape, &model.leaves(&tape), &x, Mode::Train).unwrap().stats;
        drop(tape);
        let check = |model: &Model<Cpu<f32>>| {
            let values: std::collections::BTreeMap<String, Vec<f32>> =
                model.state(&backend).into_iter().map(|(name, _, values)| (name, values)).collect();
            let (architecture, mut filters) = (model.architecture(), 0);
            for layer in &architecture.layers[..architecture.layers.len() - 1] {
                let norm = layer.norm.unwrap();
                let weight = &values[&architecture.params[layer.weight].name];
                let row = weight.len() / architecture.spaces[layer.writes];
                for (filter, weights) in weight.chunks_exact(row).enumerate() {
                    let dead = weights.iter().all(|&w| w == 0.0);
                    filters += usize::from(dead);
                    for param in [layer.bias.unwrap(), norm.gamma, norm.beta] {
                        let v = values[&architecture.params[param].name][filter];
                        assert_eq!(v == 0.0, dead, "{scheme}: {} of filter {filter}", architecture.params[param].name);
                    }
                    let mean = values[&format!("{}.running_mean", architecture.norms[norm.norm].name)][filter];
                    assert_eq!(mean == 0.0, dead, "{scheme}: running mean of filter {filter} of {}", layer.name);
                }
            }
            filters
        };
        assert!(check(&model) > 0, "{scheme}");
        model.update_running_stats(&backend, stats).unwrap();
        check(&model);
    }
}

/// Masks of one network on another of the same architecture, and on itself.
#[test]
fn masks_prune_another_network_in_the_same_places() {
    let backend = Cpu::<f32>::new(1).unwrap();
    for (network, scheme) in [(Network::LeNet, Scheme::Irregular), (Network::ResNet18, Scheme::Filter)] {
        let mut pruned = random_model(&backend, network, 2, 1);
        hard_prune(&backend, &target(scheme, 0.5), &mut pruned).unwrap();
        let masks = Masks::of(&backend, &pruned);
        let before = pruned.state(&backend);
        masks.apply(&backend, &mut pruned).unwrap();
        assert_eq!(pruned.state(&backend), before, "{network}: nothing to do");

        let mut other = random_model(&backend, network, 2, 2);
        let dense = other.state(&backend);
        masks.apply(&backend, &mut other).unwrap();
        for (((name, _, pruned), (_, _, dense)), (_, _, other)) in before.iter().zip(dense).zip(other.state(&backend)) {
            let want: Vec<f32> = pruned.iter().zip(dense).map(|(&p, d)| if p == 0.0 { 0.0 } else { d }).collect();
            assert_eq!(bits(&other), bits(&want), "{network}: {name}");
        }
    }
}

/// Fully connected layers can be left alone.
#[test]
fn linear_layers_only_if_asked() {
    let backend = Cpu::<f32>::new(1).unwrap();
    for linear in [false, true] {
        let mut model = random_model(&backend, Network::LeNet, 2, 1);
        let dense = params(&backend, &model);
        hard_prune(&backend, &Target { linear, ..target(Scheme::Filter, 0.5) }, &mut model).unwrap();
        let pruned = params(&backend, &model);
        let names: Vec<&str> = model.architecture().params.iter().map(|p| p.name.as_str()).collect();
        let same: Vec<&str> = (0..names.len()).filter(|&i| pruned[i] == dense[i]).map(|i| names[i]).collect();
        let expected: &[&str] =
            if linear { &["fc2.weight", "fc2.bias"] } else { &["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"] };
        assert_eq!(same, expected);
    }
}

/// A tape that still holds the parameters is an error, not a network half pruned.
#[test]
fn parameters_on_a_tape_are_refused() {
    let backend = Cpu::<f32>::new(1).unwrap();
    let mut model = random_model(&backend, Network::LeNet, 2, 1);
    let tape = Tape::new(&backend);
    let leaves = model.leaves(&tape);
    assert!(hard_prune(&backend, &target(Scheme::Filter, 0.5), &mut model).is_err());
    drop(leaves);
    hard_prune(&backend, &target(Scheme::Filter, 0.5), &mut model).unwrap();
}
