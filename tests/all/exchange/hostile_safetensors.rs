//! Safetensors files that are damaged or made to do harm, for `engine import` and as `--model`.

use std::process::Output;

use engine::nn::models::Network;

use super::files::safetensors;
use super::{limited, refused};
use crate::cli::models::write;
use crate::cli::{assert_contains, engine, error_line};

/// What a verb that takes a model says of these bytes.
fn eval(bytes: &[u8]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    limited(engine(&["eval", "--sample", "--attack", "none", "--backend", "cpu", "--model", path.to_str().unwrap()]))
}

/// That both refuse bytes with one line.
#[track_caller]
fn both_refuse(bytes: &[u8], expected: &[&str]) {
    refused(bytes, expected);
    let line = error_line(&eval(bytes), 2);
    assert!(line.len() < 600, "{line}");
    assert_contains(&line, &[&["model.safetensors: "], expected].concat());
}

fn tensor(dtype: &str, shape: &str, offsets: [u64; 2]) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets:?}}}"#)
}

#[test]
fn headers_and_offsets_that_lie() {
    let one = |tensor: String, data: &[u8]| safetensors(&format!(r#"{{"conv1.weight":{tensor}}}"#), data);
    let cut = "cut short, or n";
    both_refuse(b"", &[cut]);
    both_refuse(b"\x08\x00\x00", &[cut]);
    both_refuse(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat(), &[cut]);
    both_refuse(&[&90_000_000u64.to_le_bytes()[..], b"{}"].concat(), &[cut]);
    both_refuse(&safetensors("{", &[]), &[cut]);
    both_refuse(&safetensors(&"[".repeat(100_000), &[]), &[cut]);
    both_refuse(&safetensors(r#"{"a":1}"#, &[]), &[cut]);
    both_refuse(&one(tensor("F32", "[2,1,5,5]", [0, 200]), &[0; 100]), &[cut]);
    both_refuse(&one(tensor("F32", "[2,1,5,5]", [200, 0]), &[0; 200]), &[cut]);
    both_refuse(&one(tensor("F32", "[2,1,5,5]", [0, u64::MAX]), &[0; 200]), &[cut]);
    both_refuse(&one(tensor("F32", "[1073741824,1024]", [0, 200]), &[0; 200]), &[cut]);
    both_refuse(&one(tensor("F32", "[4294967296,4294967296,4]", [0, 200]), &[0; 200]), &[cut]);
    both_refuse(&one(tensor("F33", "[50]", [0, 200]), &[0; 200]), &[cut]);
    let pair = format!(r#"{{"a":{0},"b":{0}}}"#, tensor("F32", "[50]", [0, 200]));
    both_refuse(&safetensors(&pair, &[0; 200]), &[cut]);
    let good = one(tensor("F32", "[2,1,5,5]", [0, 200]), &[0; 200]);
    refused(&good, &["missing conv1.bias, conv2.weight, conv2.bias and 4 more"]);
    assert_contains(&error_line(&eval(&good), 2), &["not written by the engine", "`engine import`"]);
    let name = "x".repeat(1 << 20);
    refused(
        &safetensors(&format!(r#"{{"{name}":{}}}"#, tensor("F32", "[0]", [0, 0])), &[]),
        &["a name in it has 1048576 bytes"],
    );
}

/// A good model with something in its header replaced by something as long.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(write(dir.path(), Network::LeNet, 1, None)).unwrap();
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap_or_else(|| panic!("no {from}"));
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn metadata_and_weights_that_lie() {
    let told = |bytes: &[u8], expected: &[&str]| {
        let line = error_line(&eval(bytes), 2);
        assert_contains(&line, &[&["model.safetensors: "], expected].concat());
    };
    told(&changed(r#"lenet"#, r#"le\nt"#), &["its metadata is of another kind"]);
    told(
        &changed(r#"\"width\":1"#, r#"\"width\":9"#),
        &["'conv1.weight' has shape [2, 1, 5, 5], expected [18, 1, 5, 5]"],
    );
    told(&changed(r#"\"classes\":10"#, r#"\"classes\":99"#), &["expected [99, 64]"]);
    told(&changed("fc2.bias", "fc2.bios"), &["has no tensor 'fc2.bias'"]);
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(write(dir.path(), Network::LeNet, 1, None)).unwrap();
    for (value, what) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity")] {
        let mut bytes = good.clone();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&value.to_le_bytes());
        told(&bytes, &[&format!("holds {what}")]);
    }
    refused(&good, &["was written by the engine", "give it to --model as it is"]);
    for cut in (0..good.len()).step_by(1009) {
        assert_contains(&error_line(&eval(&good[..cut]), 2), &["cut short"]);
    }
}
