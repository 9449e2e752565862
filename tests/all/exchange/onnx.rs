//! `engine export --format onnx`: the message, field by field.

use std::collections::{BTreeMap, BTreeSet};

use engine::backend::cpu::Cpu;
use engine::checkpoint::load_model;
use engine::nn::models::Network;
use engine::prune::Scheme;

use crate::cli::models::{half, write};
use crate::cli::{engine, success};

/// A field's number and value.
#[derive(Clone, Debug)]
enum Field<'a> {
    Number(u64),
    Float(f32),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let len = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(len);
                bytes = rest;
                Field::Bytes(value)
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk().unwrap();
                bytes = rest;
                Field::Float(f32::from_le_bytes(*value))
            }
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

/// The messages, texts or bytes that a field holds.
fn all(message: &[u8], number: u64) -> Vec<Vec<u8>> {
    let bytes = |field: Field<'_>| match field {
        Field::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    fields(message).into_iter().filter(|(n, _)| *n == number).map(|(_, field)| bytes(field)).collect()
}

fn texts(message: &[u8], number: u64) -> Vec<String> {
    all(message, number).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

fn numbers(message: &[u8], number: u64) -> Vec<u64> {
    let number_of = |(n, field): (u64, Field<'_>)| match field {
        Field::Number(value) if n == number => Some(value),
        _ => None,
    };
    fields(message).into_iter().filter_map(number_of).collect()
}

/// Name and sizes of an input or output, the free one by its name.
fn value(info: &[u8]) -> String {
    let tensor = &all(&all(info, 2)[0], 1)[0];
    assert_eq!(numbers(tensor, 1), [1], "float");
    let dims = all(&all(tensor, 2)[0], 1);
    let size = |dim: &Vec<u8>| texts_or_numbers(dim).join("");
    format!("{} {}", texts(info, 1)[0], dims.iter().map(size).collect::<Vec<_>>().join("x"))
}

/// Of a dimension: a number in field 1, or a name in field 2.
fn texts_or_numbers(dim: &[u8]) -> Vec<String> {
    numbers(dim, 1).iter().map(u64::to_string).chain(texts(dim, 2)).collect()
}

struct Graph {
    /// Inputs, then outputs.
    values: Vec<String>,
    /// Operator, inputs, output, attributes as text.
    nodes: Vec<(String, Vec<String>, String, String)>,
    initialisers: BTreeMap<String, (Vec<u64>, Vec<u8>)>,
}

/// Exports a model and reads the graph.
fn export(network: Network, flags: &[&str]) -> (Graph, std::path::PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), network, 2, Some(half(Scheme::Filter)));
    let out = dir.path().join("model.onnx");
    let paths = ["--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    success(&engine(&[&["export", "--format", "onnx"], &paths[..], flags].concat()).output().unwrap());
    let bytes = std::fs::read(&out).unwrap();
    assert_eq!(numbers(&bytes, 1), [8], "IR version");
    assert_eq!(numbers(&all(&bytes, 8)[0], 2), [17], "operator set");
    let graph = &all(&bytes, 7)[0];
    let attribute = |message: &Vec<u8>| {
        let values = fields(message).into_iter().filter_map(|(n, field)| match field {
            Field::Number(value) if n != 20 => Some(value.to_string()),
            Field::Float(value) => Some(value.to_string()),
            _ => None,
        });
        format!("{}={}", texts(message, 1)[0], values.collect::<Vec<_>>().join(","))
    };
    let node = |node: Vec<u8>| {
        let attributes: Vec<String> = all(&node, 5).iter().map(attribute).collect();
        (texts(&node, 4)[0].clone(), texts(&node, 1), texts(&node, 2)[0].clone(), attributes.join(" "))
    };
    let initialiser = |tensor: Vec<u8>| {
        assert_eq!(numbers(&tensor, 2), [1], "float");
        (texts(&tensor, 8)[0].clone(), (numbers(&tensor, 1), all(&tensor, 9)[0].clone()))
    };
    let graph = Graph {
        values: [11, 12].iter().flat_map(|&field| all(graph, field)).map(|info| value(&info)).collect(),
        nodes: all(graph, 1).into_iter().map(node).collect(),
        initialisers: all(graph, 5).into_iter().map(initialiser).collect(),
    };
    (graph, model, dir)
}

#[test]
fn the_graph_of_lenet() {
    let (graph, _, _dir) = export(Network::LeNet, &[]);
    let shown: Vec<String> = graph
        .nodes
        .iter()
        .map(|(op, inputs, output, attributes)| format!("{output} = {op}({}) {attributes}", inputs.join(", ")))
        .collect();
    let conv = "kernel_shape=5,5 strides=1,1 pads=2,2,2,2";
    let pool = "kernel_shape=2,2 strides=2,2";
    assert_eq!(
        shown,
        [
            &format!("conv1 = Conv(images, conv1.weight, conv1.bias) {conv}"),
            "conv1.relu = Relu(conv1) ",
            &format!("conv1.relu.pool = MaxPool(conv1.relu) {pool}"),
            &format!("conv2 = Conv(conv1.relu.pool, conv2.weight, conv2.bias) {conv}"),
            "conv2.relu = Relu(conv2) ",
            &format!("conv2.relu.pool = MaxPool(conv2.relu) {pool}"),
            "conv2.relu.pool.flatten = Flatten(conv2.relu.pool) axis=1",
            "fc1 = Gemm(conv2.relu.pool.flatten, fc1.weight, fc1.bias) transB=1",
            "fc1.relu = Relu(fc1) ",
            "logits = Gemm(fc1.relu, fc2.weight, fc2.bias) transB=1",
        ]
    );
}

#[test]
fn every_value_is_made_before_it_is_read_and_every_weight_is_there() {
    for network in Network::ALL {
        for flags in [&[][..], &["--shrink"]] {
            let (graph, model, dir) = export(*network, flags);
            let mut made: BTreeSet<String> = graph.initialisers.keys().cloned().chain(["images".to_string()]).collect();
            let mut unused = made.clone();
            for (_, inputs, output, _) in &graph.nodes {
                for input in inputs {
                    assert!(made.contains(input), "{network}: {input}");
                    unused.remove(input);
                }
                assert!(made.insert(output.clone()), "{network}: {output} is made twice");
            }
            assert!(unused.is_empty(), "{network}: {unused:?}");
            assert_eq!(graph.nodes.last().unwrap().2, "logits");
            let saved = dir.path().join("copy.safetensors");
            let paths = ["--model", model.to_str().unwrap(), "--out", saved.to_str().unwrap()];
            success(&engine(&[&["export"], &paths[..], flags].concat()).output().unwrap());
            let backend = Cpu::<f32>::new(1).unwrap();
            let state = load_model(&backend, &saved).unwrap().0.state(&backend);
            assert_eq!(graph.initialisers.len(), state.len());
            for (name, shape, values) in state {
                let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                assert_eq!(graph.initialisers[&name], (shape, bytes), "{network}: {name}");
            }
        }
    }
    let (graph, _, _dir) = export(Network::ResNet18, &[]);
    let count = |op: &str| graph.nodes.iter().filter(|node| node.0 == op).count();
    let expected =
        [("Conv", 20), ("BatchNormalization", 20), ("Relu", 17), ("Add", 8), ("GlobalAveragePool", 1), ("Gemm", 1)];
    assert_eq!(expected.map(|(op, _)| (op, count(op))), expected);
    let (graph, _, _dir) = export(Network::Vgg16Bn, &[]);
    let count = |op: &str| graph.nodes.iter().filter(|node| node.0 == op).count();
    let expected =
        [("Conv", 13), ("BatchNormalization", 13), ("Relu", 13), ("MaxPool", 5), ("Flatten", 1), ("Gemm", 1)];
    assert_eq!(expected.map(|(op, _)| (op, count(op))), expected);
}

/// Any number of images of the network's size in, as many logits for each as there are classes out.
#[test]
fn inputs_and_outputs_have_their_sizes() {
    for (network, images) in [
        (Network::LeNet, "images Nx1x28x28"),
        (Network::LeNetCifar, "images Nx3x32x32"),
        (Network::ResNet18, "images Nx3x32x32"),
        (Network::Vgg16Bn, "images Nx3x32x32"),
    ] {
        assert_eq!(export(network, &[]).0.values, [images, "logits Nx10"], "{network}");
    }
}

/// Kernels, strides, pads and PyTorch's epsilon, where they differ.
#[test]
fn layers_of_the_other_networks_have_their_attributes() {
    let attributes = |network: Network, output: &str| {
        let (graph, _, _dir) = export(network, &[]);
        let node = graph.nodes.iter().find(|(_, _, name, _)| name == output);
        node.unwrap_or_else(|| panic!("no {output} in {network}")).3.clone()
    };
    let conv = |k: usize, stride: usize, pad: usize| {
        format!("kernel_shape={k},{k} strides={stride},{stride} pads={pad},{pad},{pad},{pad}")
    };
    let resnet = |output: &str| attributes(Network::ResNet18, output);
    assert_eq!(resnet("conv1"), conv(3, 1, 1));
    assert_eq!(resnet("layer1.0.conv1"), conv(3, 1, 1));
    for stage in 2..=4 {
        assert_eq!(resnet(&format!("layer{stage}.0.conv1")), conv(3, 2, 1));
        assert_eq!(resnet(&format!("layer{stage}.0.conv2")), conv(3, 1, 1));
        assert_eq!(resnet(&format!("layer{stage}.0.shortcut.0")), conv(1, 2, 0));
    }
    assert_eq!((resnet("bn1"), resnet("layer4.1.bn2")), ("epsilon=0.00001".into(), "epsilon=0.00001".into()));
    assert_eq!(attributes(Network::LeNetCifar, "conv1"), conv(5, 1, 0));
    assert_eq!(attributes(Network::Vgg16Bn, "features.0"), conv(3, 1, 1));
}
