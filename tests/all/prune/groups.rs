//! Which tensors are selected from together, and settings that do not fit.

use engine::base::error::Error;
use engine::nn::models::{Architecture, Network};
use engine::nn::params::LayerSpec;
use engine::prune::{Group, Scheme, Slice, Target, groups};

use super::target;

fn architecture(network: Network, width: usize) -> Architecture {
    Architecture::new(network, width, 10).unwrap()
}

fn refusal(architecture: &Architecture, target: &Target) -> String {
    match groups(architecture, target) {
        Err(e @ Error::Usage(_)) => e.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// The layers of each group, by name.
fn layers(architecture: &Architecture, groups: &[Group]) -> Vec<Vec<String>> {
    groups.iter().map(|g| g.layers.iter().map(|&l| architecture.layers[l].name.clone()).collect()).collect()
}

#[test]
fn layers_read_what_others_write() {
    let name = |l: &LayerSpec| l.name.clone();
    let vgg = architecture(Network::Vgg16Bn, 1);
    for (i, layer) in vgg.layers.iter().enumerate() {
        assert_eq!((layer.reads, layer.writes), (i, i + 1), "{}", layer.name);
        assert_eq!(vgg.spaces[layer.writes], vgg.params[layer.weight].shape[0], "{}", layer.name);
    }
    let resnet = architecture(Network::ResNet18, 1);
    let writers = |space: usize| resnet.layers.iter().filter(|l| l.writes == space).map(name).collect::<Vec<_>>();
    let readers = |space: usize| resnet.layers.iter().filter(|l| l.reads == space).map(name).collect::<Vec<_>>();
    let find = |name: &str| resnet.layers.iter().find(|l| l.name == name).unwrap();
    let stream = find("layer2.1.conv2").writes;
    assert_eq!(writers(stream), ["layer2.0.conv2", "layer2.0.shortcut.0", "layer2.1.conv2"]);
    assert_eq!(readers(stream), ["layer2.1.conv1", "layer3.0.conv1", "layer3.0.shortcut.0"]);
    assert_eq!(writers(find("conv1").writes), ["conv1", "layer1.0.conv2", "layer1.1.conv2"]);
    assert_eq!(readers(0), ["conv1"]);
    assert_eq!(readers(find("layer4.1.conv2").writes), ["layer4.1.conv1", "linear"]);
    for layer in &resnet.layers {
        let inputs = resnet.params[layer.weight].shape[1];
        assert_eq!(inputs, resnet.spaces[layer.reads], "{}", layer.name);
        if let Some(norm) = layer.norm {
            assert_eq!(resnet.params[norm.gamma].shape, [resnet.spaces[layer.writes]], "{}", layer.name);
            let of = |param: usize| resnet.params[param].name.rsplit_once('.').unwrap().0.to_string();
            let expected = layer.name.replace("conv", "bn").replace("shortcut.0", "shortcut.1");
            assert_eq!((of(norm.gamma), of(norm.beta)), (expected.clone(), expected.clone()));
            assert_eq!(resnet.norms[norm.norm].name, expected);
        }
    }
}

#[test]
fn each_prunable_layer_is_in_one_group() {
    for (network, &scheme) in Network::ALL.iter().flat_map(|&n| Scheme::ALL.iter().map(move |s| (n, s))) {
        if scheme == Scheme::BnFilter && matches!(network, Network::LeNet | Network::LeNetCifar) {
            continue;
        }
        let architecture = architecture(network, 4);
        for linear in [true, false] {
            let groups = groups(&architecture, &Target { scheme, ratio: 0.5, linear }).unwrap();
            let mut covered: Vec<usize> = groups.iter().flat_map(|g| g.layers.clone()).collect();
            covered.sort_unstable();
            let conv = |l: &usize| architecture.params[architecture.layers[*l].weight].shape.len() == 4;
            let expected = 0..architecture.layers.len() - 1;
            assert_eq!(covered, expected.filter(|l| linear || conv(l)).collect::<Vec<_>>(), "{network} {scheme}");
            assert!(groups.iter().all(|g| g.keep == g.items / 2), "{network} {scheme}");
        }
    }
}

#[test]
fn items_of_every_scheme() {
    let lenet = architecture(Network::LeNet, 4);
    // conv1 8×1×5×5, conv2 16×8×5×5, fc1 256×784.
    for (scheme, slice, items) in [
        (Scheme::Irregular, Slice::Element, [200, 3200, 200_704]),
        (Scheme::Filter, Slice::Row, [8, 16, 256]),
        (Scheme::Column, Slice::Column, [25, 200, 784]),
        (Scheme::Tied, Slice::Row, [8, 16, 256]),
    ] {
        let groups = groups(&lenet, &target(scheme, 0.75)).unwrap();
        assert_eq!(groups.iter().map(|g| g.items).collect::<Vec<_>>(), items, "{scheme}");
        assert!(groups.iter().all(|g| g.slice == slice), "{scheme}");
        assert!(groups.iter().all(|g| g.keep == g.items - (0.75 * g.items as f64).round() as usize), "{scheme}");
    }
    let resnet = architecture(Network::ResNet18, 2);
    let bn = groups(&resnet, &target(Scheme::BnFilter, 0.5)).unwrap();
    assert_eq!(bn.len(), 20);
    for group in &bn {
        let layer = &resnet.layers[group.layers[0]];
        assert_eq!(group.members, [layer.norm.unwrap().gamma]);
        assert_eq!((group.slice, group.items), (Slice::Element, resnet.spaces[layer.writes]));
    }
    let tied = groups(&resnet, &target(Scheme::Tied, 0.5)).unwrap();
    let shared: Vec<_> = layers(&resnet, &tied).into_iter().filter(|g| g.len() > 1).collect();
    assert_eq!(shared.len(), 4);
    assert_eq!(shared[0], ["conv1", "layer1.0.conv2", "layer1.1.conv2"]);
}

/// Every pair of widths that the paper prunes between.
#[test]
fn a_width_is_pruned_to_exactly_the_smaller_one() {
    for large in [2, 4, 8, 16] {
        for small in [1, 2, 4, 8].into_iter().filter(|&s| s < large) {
            for network in [Network::LeNet, Network::LeNetCifar, Network::ResNet18, Network::Vgg16Bn] {
                let (from, to) = (architecture(network, large), architecture(network, small));
                let ratio = 1.0 - small as f64 / large as f64;
                let kept: Vec<usize> =
                    groups(&from, &target(Scheme::Filter, ratio)).unwrap().iter().map(|g| g.keep).collect();
                let outputs: Vec<usize> = to.layers.iter().map(|l| to.spaces[l.writes]).collect();
                assert_eq!(kept, outputs[..outputs.len() - 1], "{network} {large} to {small}");
            }
        }
    }
}

/// What goes is the share of the items rounded to the nearest number, in every group by itself.
#[test]
fn shares_are_rounded_to_the_nearest() {
    let keeps = |network, width, scheme, ratio| -> Vec<usize> {
        groups(&architecture(network, width), &target(scheme, ratio)).unwrap().iter().map(|g| g.keep).collect()
    };
    // LeNet w=4: 200, 3200 and 200,704 weights; 8, 16 and 256 filters; 25, 200 and 784 columns.
    for (scheme, ratio, kept) in [
        // 66, 1056 and 66,232.32 weights go.
        (Scheme::Irregular, 0.33, [134, 2144, 134_472]),
        // 133.4, 2134.4 and 133,869.568.
        (Scheme::Irregular, 0.667, [67, 1066, 66_834]),
        // 2.4, 4.8 and 76.8 filters.
        (Scheme::Filter, 0.3, [6, 11, 179]),
        // 2.64, 5.28 and 84.48.
        (Scheme::Filter, 0.33, [5, 11, 172]),
        (Scheme::Tied, 0.33, [5, 11, 172]),
        // 5.336, 10.672 and 170.752.
        (Scheme::Filter, 0.667, [3, 5, 85]),
        // 8.25, 66 and 258.72 columns.
        (Scheme::Column, 0.33, [17, 134, 525]),
        // 0.25, 2 and 7.84: a share that rounds to nothing.
        (Scheme::Column, 0.01, [25, 198, 776]),
    ] {
        assert_eq!(keeps(Network::LeNet, 4, scheme, ratio), kept, "{scheme} {ratio}");
    }
    // ResNet-18 w=3 has stages of 12, 24, 48 and 96 channels: 4.8, 9.6, 19.2 and 38.4 go.
    let stages = [(12, 7), (24, 14), (48, 29), (96, 58)];
    for scheme in [Scheme::Filter, Scheme::BnFilter, Scheme::Tied] {
        for group in groups(&architecture(Network::ResNet18, 3), &target(scheme, 0.4)).unwrap() {
            let (_, keep) = stages.into_iter().find(|(items, _)| *items == group.items).unwrap();
            assert_eq!(group.keep, keep, "{scheme} {}", group.items);
        }
    }
}

/// The proposal is rounded down: rounded up it would not be what it says.
#[test]
fn the_largest_ratio_is_rounded_down() {
    let message = |width, scheme| refusal(&architecture(Network::LeNet, width), &target(scheme, 0.999));
    // One of six and of twelve is left.
    assert_eq!(message(3, Scheme::Filter), "ratio: 0.999 would leave conv1 (6 filters) empty; use at most 0.8333");
    assert_eq!(message(6, Scheme::Filter), "ratio: 0.999 would leave conv1 (12 filters) empty; use at most 0.9166");
    let weights = refusal(&architecture(Network::LeNet, 3), &target(Scheme::Irregular, 0.9999));
    assert_eq!(weights, "ratio: 0.9999 would leave conv1 (150 weights) empty; use at most 0.9933");
}

#[test]
fn ratios_out_of_range_are_refused() {
    let lenet = architecture(Network::LeNet, 4);
    for ratio in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
        let message = refusal(&lenet, &target(Scheme::Filter, ratio));
        assert_eq!(message, format!("ratio: must be in [0, 1), got {ratio}"));
    }
    assert!(groups(&lenet, &target(Scheme::Filter, 0.0)).unwrap().iter().all(|g| g.keep == g.items));
}

#[test]
fn a_ratio_that_empties_a_layer_is_refused_and_the_one_it_names_works() {
    let lenet = architecture(Network::LeNet, 4);
    let message = refusal(&lenet, &target(Scheme::Filter, 0.99));
    assert_eq!(message, "ratio: 0.99 would leave conv1 (8 filters) empty; use at most 0.875");
    assert!(refusal(&lenet, &target(Scheme::Column, 0.99)).contains("conv1 (25 columns)"));
    for network in [Network::LeNet, Network::LeNetCifar, Network::ResNet18, Network::Vgg16Bn] {
        for width in 1..=5 {
            let architecture = architecture(network, width);
            let message = refusal(&architecture, &target(Scheme::Filter, 0.999));
            let most: f64 = message.rsplit(' ').next().unwrap().parse().unwrap();
            groups(&architecture, &target(Scheme::Filter, most)).unwrap();
        }
    }
}

#[test]
fn scales_need_batch_normalisation() {
    for linear in [true, false] {
        let message =
            refusal(&architecture(Network::LeNet, 2), &Target { scheme: Scheme::BnFilter, ratio: 0.5, linear });
        assert_eq!(
            message,
            "scheme 'bn-filter' needs batch normalisation behind every layer; network 'lenet' has none behind conv1; \
             use filter"
        );
    }
}
