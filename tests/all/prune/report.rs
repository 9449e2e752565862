//! What is counted.

use engine::backend::cpu::Cpu;
use engine::nn::models::{Architecture, Network};
use engine::prune::{LayerSparsity, Scheme, SparsityReport, hard_prune, shrink};

use super::{params, random_model, target, with_params};

fn cpu() -> Cpu<f32> {
    Cpu::new(1).unwrap()
}

#[test]
fn a_dense_network_has_everything() {
    let backend = cpu();
    for &network in Network::ALL {
        let model = random_model(&backend, network, 1, 1);
        let report = SparsityReport::of(&backend, &model);
        assert_eq!((report.compression, report.conv_compression), (1.0, 1.0), "{network}");
        assert_eq!(report.parameters_kept, model.architecture().parameters());
        assert_eq!(report.multiply_adds_kept, model.architecture().multiply_adds);
        assert_eq!(report.multiply_adds, report.layers.iter().map(|l| l.multiply_adds).sum::<u64>());
        for l in &report.layers {
            let kept = (l.filters_kept, l.columns_kept, l.weights_kept, l.multiply_adds_kept);
            assert_eq!(kept, (l.filters, l.columns, l.weights, l.multiply_adds), "{network}: {}", l.name);
        }
    }
}

/// LeNet w=4 to a quarter of its filters, counted by hand. Weights that read a removed filter are still there.
#[test]
fn filters_of_lenet() {
    let backend = cpu();
    let mut model = random_model(&backend, Network::LeNet, 4, 1);
    hard_prune(&backend, &target(Scheme::Filter, 0.75), &mut model).unwrap();
    let report = SparsityReport::of(&backend, &model);
    let layer = |name: &str, filters, columns, positions: u64| LayerSparsity {
        name: name.to_string(),
        filters,
        filters_kept: filters / 4,
        columns,
        columns_kept: columns,
        weights: filters * columns,
        weights_kept: filters / 4 * columns,
        multiply_adds: (filters * columns) as u64 * positions,
        multiply_adds_kept: (filters / 4 * columns) as u64 * positions,
    };
    let fc2 =
        LayerSparsity { filters_kept: 10, weights_kept: 2560, multiply_adds_kept: 2560, ..layer("fc2", 10, 256, 1) };
    assert_eq!(
        report.layers,
        [layer("conv1", 8, 25, 28 * 28), layer("conv2", 16, 200, 14 * 14), layer("fc1", 256, 784, 1), fc2]
    );
    let (weights, biases) = (200 + 3200 + 200_704 + 2560, 8 + 16 + 256 + 10);
    assert_eq!(report.parameters, weights + biases);
    let kept = 50 + 800 + 50_176 + 2560 + 2 + 4 + 64 + 10;
    assert_eq!(report.parameters_kept, kept);
    assert_eq!(report.conv_compression, 4.0);
    assert_eq!(report.compression, (weights + biases) as f64 / kept as f64);
    let all = 200 * 784 + 3200 * 196 + 200_704 + 2560;
    assert_eq!((report.multiply_adds, report.multiply_adds_kept), (all, (all - 2560) / 4 + 2560));
    let read: SparsityReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(read, report);
}

#[test]
fn columns_and_weights_of_lenet() {
    let backend = cpu();
    let pruned = |scheme| {
        let mut model = random_model(&backend, Network::LeNet, 4, 1);
        hard_prune(&backend, &target(scheme, 0.5), &mut model).unwrap();
        SparsityReport::of(&backend, &model).layers
    };
    let columns = pruned(Scheme::Column);
    // round(25 / 2) of conv1's 25 columns go.
    assert_eq!((columns[0].columns_kept, columns[0].filters_kept, columns[0].weights_kept), (12, 8, 96));
    assert_eq!((columns[1].columns_kept, columns[1].filters_kept, columns[1].weights_kept), (100, 16, 1600));
    let weights = pruned(Scheme::Irregular);
    assert_eq!(weights.iter().map(|l| l.weights_kept).collect::<Vec<_>>(), [100, 1600, 100_352, 2560]);
    assert_eq!(weights[1].multiply_adds_kept, 1600 * 196);
}

/// What is left of a shrunk network is all of it, and only then are the weights that read removed filters gone.
#[test]
fn a_shrunk_network_is_dense() {
    let backend = cpu();
    let mut model = random_model(&backend, Network::LeNet, 4, 1);
    hard_prune(&backend, &target(Scheme::Filter, 0.75), &mut model).unwrap();
    let report = SparsityReport::of(&backend, &shrink(&backend, &model).unwrap().model);
    assert_eq!(report.parameters, 13_514);
    assert_eq!(report.compression, 1.0);
}

#[test]
fn a_network_without_weights_has_finite_numbers() {
    let backend = cpu();
    let model = random_model(&backend, Network::LeNet, 1, 1);
    let zeros: Vec<Vec<f32>> = params(&backend, &model).iter().map(|p| vec![0.0; p.len()]).collect();
    let report = SparsityReport::of(&backend, &with_params(&backend, &model, &zeros));
    assert_eq!((report.parameters_kept, report.multiply_adds_kept), (0, 0));
    assert!(report.compression.is_finite() && report.conv_compression.is_finite());
}

#[test]
fn the_text_is_an_aligned_table_and_a_line_of_totals() {
    let backend = cpu();
    let mut model = random_model(&backend, Network::LeNet, 4, 1);
    hard_prune(&backend, &target(Scheme::Filter, 0.75), &mut model).unwrap();
    let expected = "\
layer  filters  columns       weights       multiply-adds  compression
conv1      2/8    25/25        50/200  39.2 k of 156.8 k         4.0x
";
    let text = SparsityReport::of(&backend, &model).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[..5].iter().all(|line| line.len() == lines[0].len()), "{text}");
    let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    for (line, expected) in lines.iter().zip(expected.lines()) {
        assert_eq!(words(line), words(expected), "{text}");
    }
    assert_eq!(lines[5], "conv layers 4.0x, network 3.9x, multiply-adds 248.7 k of 987.3 k");
}

#[test]
fn multiply_adds_of_the_widest_network_in_the_paper() {
    let resnet = Architecture::new(Network::ResNet18, 16, 10).unwrap();
    // 555.4 M is what the usual ResNet-18 for CIFAR has, batch normalisation not counted.
    assert_eq!(resnet.multiply_adds, 555_422_720);
}

/// Below a thousand as they are, then thousands and millions with a digit; ratios with a digit too.
#[test]
fn numbers_of_the_text_are_short() {
    let text = |multiply_adds_kept, multiply_adds| {
        let layer = LayerSparsity {
            name: "conv1".to_string(),
            filters: 3,
            filters_kept: 2,
            columns: 5,
            columns_kept: 4,
            weights: 7,
            weights_kept: 6,
            multiply_adds,
            multiply_adds_kept,
        };
        let report = SparsityReport {
            layers: vec![layer],
            parameters: 30,
            parameters_kept: 11,
            conv_compression: 2.34,
            compression: 1.76,
            multiply_adds,
            multiply_adds_kept,
        };
        let text = report.text();
        let [_, layer, totals] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let layer: Vec<&str> = layer.split_whitespace().collect();
        (layer.join(" "), totals.to_string())
    };
    for (kept, all, shown) in [
        (0, 999, "0 of 999"),
        (1_000, 1_049, "1.0 k of 1.0 k"),
        (12_350, 999_940, "12.3 k of 999.9 k"),
        (1_000_000, 555_422_720, "1.0 M of 555.4 M"),
        (999_999, 12_360_000, "1000.0 k of 12.4 M"),
    ] {
        let (layer, totals) = text(kept, all);
        assert_eq!(layer, format!("conv1 2/3 4/5 6/7 {shown} 1.2x"));
        assert_eq!(totals, format!("conv layers 2.3x, network 1.8x, multiply-adds {shown}"));
    }
}
