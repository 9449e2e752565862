//! `engine eval --logits` and `--report`.

use engine::nn::models::Network;
use engine::prune::Scheme;
use safetensors::{Dtype, SafeTensors};

use crate::cli::models::{half, read, write};
use crate::cli::{assert_contains, engine, error_line, success};

const EVAL: [&str; 6] = ["eval", "--sample", "--attack", "none", "--backend", "cpu"];

#[test]
fn logits_are_those_that_were_counted() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), Network::LeNet, 1, None);
    let out = dir.path().join("logits.safetensors");
    let paths = ["--model", model.to_str().unwrap(), "--logits", out.to_str().unwrap()];
    let text = success(&engine(&[&EVAL, &paths[..]].concat()).output().unwrap());
    assert_contains(&text, &["logits        "]);
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort();
    assert_eq!(names, ["labels", "logits"]);
    let (logits, labels) = (file.tensor("logits").unwrap(), file.tensor("labels").unwrap());
    assert_eq!((logits.dtype(), labels.dtype()), (Dtype::F32, Dtype::I64));
    let n = labels.shape()[0];
    assert_eq!(logits.shape(), [n, 10]);
    let logits: Vec<f32> = logits.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let labels: Vec<i64> = labels.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
    let best = |row: &[f32]| (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as i64;
    let right = logits.chunks(10).zip(&labels).filter(|(row, label)| best(row) == **label).count();
    assert_contains(&text, &[&format!("natural       {:.2}", 100.0 * right as f64 / n as f64)]);
    // The same bytes whatever the threads.
    let again = dir.path().join("again.safetensors");
    let paths = ["--model", model.to_str().unwrap(), "--logits", again.to_str().unwrap(), "--threads", "3"];
    success(&engine(&[&EVAL, &paths[..]].concat()).output().unwrap());
    assert_eq!(bytes, std::fs::read(&again).unwrap());

    let missing = ["--model", model.to_str().unwrap(), "--logits", "/nonexistent/x"];
    let line = error_line(&engine(&[&EVAL, &missing[..]].concat()).output().unwrap(), 2);
    assert_contains(&line, &["/nonexistent: no such directory", "--logits"]);
}

#[test]
fn the_report_compares_stored_and_shrunk() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), Network::LeNet, 2, Some(half(Scheme::Filter)));
    let text =
        success(&engine(&[&EVAL, &["--model", model.to_str().unwrap(), "--report"][..]].concat()).output().unwrap());
    let row = |name: &str| -> [f64; 2] {
        let line =
            text.lines().find_map(|line| line.trim_start().strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
        let values: Vec<f64> = line.split_whitespace().map(|v| v.parse().unwrap()).collect();
        values.try_into().unwrap()
    };
    assert_eq!(row("parameters "), [52506.0, 13514.0]);
    assert_eq!(row("not zero ")[1], 13514.0);
    assert_eq!(row("multiply-adds ")[0], read(&model).1.multiply_adds as f64);
    assert_eq!(row("not by zero ")[0], read(&model).1.multiply_adds_kept as f64);
    assert!(row("not by zero ")[1] <= row("multiply-adds ")[1]);
    assert_eq!(row("bytes ")[0], std::fs::metadata(&model).unwrap().len() as f64);
    for name in ["ms, 1 image ", "images/s, batch 256 "] {
        assert!(row(name).iter().all(|&v| v > 0.0), "{text}");
    }
}
