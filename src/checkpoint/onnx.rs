//! ONNX: the operations of a network and its values as one protobuf message.
//!
//! Source: `onnx/onnx.proto` (the numbers of the fields) and `docs/Operators.md` of ONNX, operator set 17.

use super::tensors::{Entry, le_bytes};
use crate::backend::Activation;
use crate::nn::models::{Architecture, Node, Operation};

/// Of the message format.
const IR_VERSION: u64 = 8;
/// Of the operators.
const OPSET: u64 = 17;

/// `TensorProto.DataType.FLOAT`.
const FLOAT: u64 = 1;

/// The bytes of a model that takes `images`, `[N, c, h, w]` in [0, 1] for any N, and returns `logits`, `[N, classes]`.
/// `entries` are [`crate::nn::models::Model::state`] of a model of this architecture; they become initialisers of the same names.
pub fn encode_onnx(architecture: &Architecture, entries: &[Entry]) -> Vec<u8> {
    let nodes = &architecture.operations;
    let value = |i: usize| match i {
        0 => "images".to_string(),
        i if i == nodes.len() => "logits".to_string(),
        i => nodes[i - 1].name.clone(),
    };
    let mut graph = Message::default();
    for (i, node) in nodes.iter().enumerate() {
        let inputs = node.inputs.iter().map(|&i| value(i)).collect();
        graph = graph.message(1, encode_node(architecture, node, inputs, &value(i + 1)));
    }
    graph = graph.text(2, architecture.network.name());
    for (name, shape, values) in entries {
        graph = graph.message(5, tensor(name, shape, values));
    }
    let image = architecture.network.input();
    graph = graph.message(11, value_info("images", &image)).message(12, value_info("logits", &[architecture.classes]));
    let opset = Message::default().text(1, "").number(2, OPSET);
    let model = Message::default().number(1, IR_VERSION).text(2, "engine").text(3, env!("CARGO_PKG_VERSION"));
    model.message(7, graph).message(8, opset).0
}

/// `NodeProto`.
fn encode_node(architecture: &Architecture, node: &Node, mut inputs: Vec<String>, output: &str) -> Message {
    let param = |i: usize| architecture.params[i].name.clone();
    let (kind, attributes) = match node.operation {
        Operation::Conv2d { weight, bias, stride, pad } => {
            inputs.extend([Some(weight), bias].into_iter().flatten().map(param));
            let k = architecture.params[weight].shape[2];
            let window = [integers("kernel_shape", &[k; 2]), integers("strides", &[stride; 2])];
            ("Conv", window.into_iter().chain([integers("pads", &[pad; 4])]).collect())
        }
        Operation::BatchNorm2d { gamma, beta, norm, eps } => {
            let norm = &architecture.norms[norm].name;
            inputs.extend([param(gamma), param(beta), format!("{norm}.running_mean"), format!("{norm}.running_var")]);
            ("BatchNormalization", vec![float("epsilon", eps)])
        }
        Operation::Linear { weight, bias } => {
            inputs.extend([param(weight), param(bias)]);
            ("Gemm", vec![integer("transB", 1)])
        }
        Operation::Activation(Activation::Identity) => ("Identity", vec![]),
        Operation::Activation(Activation::Relu) => ("Relu", vec![]),
        Operation::Add => ("Add", vec![]),
        Operation::MaxPool2d { k } => {
            ("MaxPool", vec![integers("kernel_shape", &[k; 2]), integers("strides", &[k; 2])])
        }
        Operation::GlobalAvgPool => ("GlobalAveragePool", vec![]),
        Operation::Flatten => ("Flatten", vec![integer("axis", 1)]),
    };
    let message = inputs.iter().fold(Message::default(), |message, input| message.text(1, input));
    let message = message.text(2, output).text(3, &node.name).text(4, kind);
    attributes.into_iter().fold(message, |message, attribute| message.message(5, attribute))
}

/// `AttributeProto`s, each with its type (1 float, 2 integer, 7 integers).
fn float(name: &str, value: f32) -> Message {
    Message::default().text(1, name).float(2, value).number(20, 1)
}

fn integer(name: &str, value: u64) -> Message {
    Message::default().text(1, name).number(3, value).number(20, 2)
}

fn integers(name: &str, values: &[usize]) -> Message {
    let message = Message::default().text(1, name);
    values.iter().fold(message, |message, &value| message.number(8, value as u64)).number(20, 7)
}

/// `TensorProto`.
fn tensor(name: &str, shape: &[usize], values: &[f32]) -> Message {
    let message = shape.iter().fold(Message::default(), |message, &n| message.number(1, n as u64));
    message.number(2, FLOAT).text(8, name).bytes(9, &le_bytes(values, f32::to_le_bytes))
}

/// `ValueInfoProto` of a batch of any size.
fn value_info(name: &str, shape: &[usize]) -> Message {
    let any = Message::default().text(2, "N");
    let fixed = shape.iter().map(|&n| Message::default().number(1, n as u64));
    let shape = [any].into_iter().chain(fixed).fold(Message::default(), |shape, dim| shape.message(1, dim));
    let tensor = Message::default().number(1, FLOAT).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

/// A protobuf message: fields, each with its number and wire type in front.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }
}
