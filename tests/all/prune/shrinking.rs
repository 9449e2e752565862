//! Small networks with the same logits.

use engine::backend::cpu::Cpu;
use engine::base::error::Error;
use engine::checkpoint::{ModelInfo, load_model, save_model};
use engine::nn::models::{Architecture, Mode, Model, Network};
use engine::prune::{Scheme, hard_prune, shrink};

use super::{logits, params, random_model, random_values, sample_images, target, with_params};
use crate::compare::assert_close;

type Net = Model<Cpu<f32>>;

fn cpu() -> Cpu<f32> {
    Cpu::new(2).unwrap()
}

fn pruned(backend: &Cpu<f32>, network: Network, width: usize, scheme: Scheme, ratio: f64) -> Net {
    let mut model = random_model(backend, network, width, 4);
    hard_prune(backend, &target(scheme, ratio), &mut model).unwrap();
    model
}

/// Both networks on real images, to 2e-5 of the logits' scale, in both modes: wide layers are convolved by Winograd's algorithm, whose
/// rounding is another, and batch statistics of few images enlarge it.
#[track_caller]
fn assert_same_logits(what: &str, backend: &Cpu<f32>, large: &Net, small: &Net) {
    let images = sample_images(backend, large.architecture().network, 20);
    for mode in [Mode::Eval, Mode::Train] {
        let (large, small) = (logits(backend, large, mode, &images), logits(backend, small, mode, &images));
        assert_ne!(large[..10], large[10..20], "{what}: the images can be told apart");
        assert_close(&format!("{what}, {mode:?}"), &small, &large, 2e-5, 0.0);
    }
}

fn shapes(architecture: &Architecture) -> Vec<(String, Vec<usize>)> {
    architecture.params.iter().map(|p| (p.name.clone(), p.shape.clone())).collect()
}

#[test]
fn becomes_the_network_of_the_smaller_width() {
    let backend = cpu();
    for (network, scheme, large, small) in [
        (Network::ResNet18, Scheme::Tied, 4, 1),
        (Network::ResNet18, Scheme::Tied, 2, 1),
        (Network::ResNet18, Scheme::Tied, 3, 2),
        (Network::LeNet, Scheme::Filter, 16, 1),
        (Network::LeNet, Scheme::Filter, 4, 2),
        (Network::LeNet, Scheme::Tied, 4, 1),
        (Network::LeNetCifar, Scheme::Filter, 4, 1),
        (Network::Vgg16Bn, Scheme::Filter, 4, 1),
        (Network::Vgg16Bn, Scheme::BnFilter, 4, 2),
    ] {
        let what = format!("{network} {scheme} {large} to {small}");
        let model = pruned(&backend, network, large, scheme, 1.0 - small as f64 / large as f64);
        let shrunk = shrink(&backend, &model).unwrap();
        let architecture = shrunk.model.architecture();
        let expected = Architecture::new(network, small, 10).unwrap();
        assert_eq!((architecture.width, &architecture.outputs), (small, &None), "{what}");
        assert_eq!(shapes(architecture), shapes(&expected), "{what}");
        assert_eq!(architecture.norms, expected.norms, "{what}");
        assert!(shrunk.stays.is_empty(), "{what}: {:?}", shrunk.stays);
        assert_same_logits(&what, &backend, &model, &shrunk.model);
    }
}

#[test]
fn nothing_goes_from_a_dense_network() {
    let backend = cpu();
    for &network in Network::ALL {
        let model = random_model(&backend, network, 2, 4);
        let shrunk = shrink(&backend, &model).unwrap();
        assert_eq!(shrunk.model.state(&backend), model.state(&backend), "{network}");
        assert!(shrunk.stays.is_empty(), "{network}");
    }
}

/// Convolutions inside a block lose their filters; of a residual stream only what all its layers have lost goes.
#[test]
fn independent_filters_of_a_residual_network_go_as_far_as_they_can() {
    let backend = cpu();
    let model = pruned(&backend, Network::ResNet18, 4, Scheme::Filter, 0.5);
    let shrunk = shrink(&backend, &model).unwrap();
    let (large, small) = (model.architecture(), shrunk.model.architecture());
    let outputs = |a: &Architecture, name: &str| {
        let layer = a.layers.iter().find(|l| l.name == name).unwrap();
        a.spaces[layer.writes]
    };
    for stage in 1..=4 {
        for block in 0..2 {
            let inner = format!("layer{stage}.{block}.conv1");
            assert_eq!(2 * outputs(small, &inner), outputs(large, &inner), "{inner}");
        }
        let stream = format!("layer{stage}.1.conv2");
        let (stay, all) = (outputs(small, &stream), outputs(large, &stream));
        assert!(stay > all / 2, "{stream}: {stay} of {all}");
        let line = shrunk.stays.iter().find(|line| line.starts_with(&format!("layer{stage} stream: "))).unwrap();
        let first = if stage == 1 { "conv1".to_string() } else { format!("layer{stage}.0.conv2") };
        for part in [
            format!("{stay} of {all} channels stay, because {first} keeps {}", all / 2),
            format!("{stream} keeps {} different ones", all / 2),
            "scheme 'tied' removes them together".to_string(),
        ] {
            assert!(line.contains(&part), "{line}\nlacks {part}");
        }
    }
    assert_eq!(shrunk.stays.len(), 4);
    assert_eq!(small.width, 4);
    assert!(small.outputs.is_some() && small.parameters() < large.parameters());
    assert_same_logits("resnet18 filter", &backend, &model, &shrunk.model);
    let again = shrink(&backend, &shrunk.model).unwrap();
    assert_eq!(again.model.state(&backend), shrunk.model.state(&backend), "shrunk twice");
}

/// Single weights and columns leave whole channels only by accident; whatever goes, the logits stay.
#[test]
fn other_schemes_keep_the_logits() {
    let backend = cpu();
    for (network, scheme, ratio) in [
        (Network::LeNet, Scheme::Irregular, 0.5),
        (Network::ResNet18, Scheme::Irregular, 0.97),
        (Network::ResNet18, Scheme::Column, 0.75),
        (Network::ResNet18, Scheme::BnFilter, 0.75),
    ] {
        let model = pruned(&backend, network, 4, scheme, ratio);
        let shrunk = shrink(&backend, &model).unwrap();
        assert_same_logits(&format!("{network} {scheme}"), &backend, &model, &shrunk.model);
    }
}

/// A filter without weights still emits its bias; such a channel stays.
#[test]
fn channels_that_emit_a_constant_stay() {
    let backend = cpu();
    for (network, companion) in [(Network::LeNet, "conv1.bias"), (Network::Vgg16Bn, "features.1.bias")] {
        let model = pruned(&backend, network, 4, Scheme::Filter, 0.5);
        let mut values = params(&backend, &model);
        let index = model.architecture().params.iter().position(|p| p.name == companion).unwrap();
        let dead = values[index].iter().position(|&v| v == 0.0).unwrap();
        values[index][dead] = 0.25;
        let model = with_params(&backend, &model, &values);
        let shrunk = shrink(&backend, &model).unwrap();
        let architecture = shrunk.model.architecture();
        assert_eq!(architecture.params[0].shape[0], model.architecture().params[0].shape[0] / 2 + 1, "{network}");
        assert_same_logits(&format!("{network} with a constant channel"), &backend, &model, &shrunk.model);
    }
}

/// A class has a logit whatever its weights are.
#[test]
fn a_class_without_weights_stays() {
    let backend = cpu();
    let model = random_model(&backend, Network::LeNet, 2, 1);
    let mut values = params(&backend, &model);
    // The row of class 3, and its bias.
    let row = values[6].len() / 10;
    values[6][3 * row..4 * row].fill(0.0);
    values[7][3] = 0.0;
    let model = with_params(&backend, &model, &values);
    let shrunk = shrink(&backend, &model).unwrap();
    assert_eq!(shrunk.model.state(&backend), model.state(&backend));
    assert!(shrunk.stays.is_empty(), "{:?}", shrunk.stays);
}

#[test]
fn a_layer_that_emits_nothing_keeps_one_channel() {
    let backend = cpu();
    let model = random_model(&backend, Network::LeNet, 2, 1);
    let mut values = params(&backend, &model);
    values[2].fill(0.0);
    values[3].fill(0.0);
    let shrunk = shrink(&backend, &with_params(&backend, &model, &values)).unwrap();
    assert_eq!(shrunk.model.architecture().outputs, Some(vec![4, 1, 128]));
    assert_eq!(shrunk.stays, ["conv2: 1 of 8 channels stays, because a layer cannot be empty"]);
}

#[test]
fn files_of_shrunk_networks_come_back() {
    let backend = cpu();
    let dir = tempfile::tempdir().unwrap();
    for (network, scheme) in [(Network::ResNet18, Scheme::Filter), (Network::ResNet18, Scheme::Tied)] {
        let path = dir.path().join(format!("{network}-{scheme}.safetensors"));
        let small = shrink(&backend, &pruned(&backend, network, 4, scheme, 0.75)).unwrap().model;
        let info = ModelInfo::new(small.architecture(), None, 3);
        save_model(&path, &small.state(&backend), &info).unwrap();
        let (loaded, read) = load_model(&backend, &path).unwrap();
        assert_eq!(read, info);
        assert_eq!(info.outputs.is_some(), scheme == Scheme::Filter);
        assert_eq!(loaded.state(&backend), small.state(&backend));
    }
}

/// Outputs that a file may claim and no network has.
#[test]
fn impossible_outputs_are_refused() {
    for (outputs, complaint) in [
        (vec![], "layer 0 must have 1 to 4, got none"),
        (vec![4, 8], "layer 2 must have 1 to 128, got none"),
        (vec![0, 8, 128], "layer 0 must have 1 to 4, got 0"),
        (vec![4, 9, 128], "layer 1 must have 1 to 8, got 9"),
        (vec![4, usize::MAX, 128], "layer 1 must have 1 to 8"),
        (vec![4, 8, 128, 10], "must be 3, one a layer but the classifier, got 4"),
    ] {
        refuses(Network::LeNet, 2, outputs, complaint);
    }
    let mut unequal = vec![4; 20];
    unequal[2] = 3;
    refuses(Network::ResNet18, 1, unequal, "cannot be added");
    assert!(Architecture::shrunk(Network::LeNet, 0, vec![1, 1, 1], 10).is_err());
}

/// Both as a call and in a file.
#[track_caller]
fn refuses(network: Network, width: usize, outputs: Vec<usize>, complaint: &str) {
    let backend = cpu();
    let refused = Architecture::shrunk(network, width, outputs.clone(), 10).err();
    let message = match refused {
        Some(e @ Error::Usage(_)) => e.to_string(),
        other => panic!("{outputs:?}: {other:?}"),
    };
    assert!(message.starts_with("outputs: ") && message.contains(complaint), "{message}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let model = random_values(&backend, Architecture::new(network, width, 10).unwrap(), 1);
    let info = ModelInfo { outputs: Some(outputs), ..ModelInfo::new(model.architecture(), None, 1) };
    save_model(&path, &model.state(&backend), &info).unwrap();
    match load_model(&backend, &path) {
        Err(e @ Error::Input { .. }) => assert!(e.to_string().contains(complaint), "{e}"),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("a file with outputs {:?} was loaded", info.outputs),
    }
}
