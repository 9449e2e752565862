//! `engine export --format onnx`: the message, field by field.

use std::collections::{BTreeMap, BTreeSet};

use engine::backend::cpu::Cpu;
use engine::checkpoint::load_model;
use engine::models::Network;
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

struct Graph {
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
