//! `engine export`.

use std::fs;
use std::path::Path;

use engine::nn::models::Network;
use engine::prune::{Scheme, Target};

use super::models::{half, read, write};
use super::{assert_contains, engine, error_line, success};

fn export(model: &Path, out: &Path, extra: &[&str]) -> std::process::Output {
    let paths = ["export", "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    engine(&[&paths[..], extra].concat()).output().unwrap()
}

#[test]
fn without_shrinking_the_file_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), Network::LeNet, 2, Some(half(Scheme::Irregular)));
    let out = dir.path().join("copy.safetensors");
    assert_contains(&success(&export(&model, &out, &[])), &["written to ", "copy.safetensors"]);
    assert_eq!(fs::read(&model).unwrap(), fs::read(&out).unwrap());
}

#[test]
fn a_pruned_lenet_shrinks_to_a_width() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), Network::LeNet, 2, Some(half(Scheme::Filter)));
    let out = dir.path().join("small.safetensors");
    let text = success(&export(&model, &out, &["--shrink"]));
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    assert_contains(
        &text,
        &[
            "network     lenet",
            "width       2 -> 1",
            "channels    140 -> 70",
            "parameters  52506 -> 13514",
            &format!("bytes       {} -> {}", bytes(&model), bytes(&out)),
        ],
    );
    assert!(!text.contains("stays") && !text.contains("nothing"), "{text}");
    let (info, report) = read(&out);
    assert_eq!((info.width, info.pruned, info.outputs, info.epochs), (1, None, None, 3));
    assert_eq!(report.parameters_kept, report.parameters);
    let eval = |model: &Path| {
        let args = ["eval", "--sample", "--attack", "none", "--model", model.to_str().unwrap()];
        success(&engine(&args).output().unwrap())
    };
    assert_eq!(eval(&model), eval(&out));
}

#[test]
fn what_stays_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), Network::ResNet18, 2, Some(half(Scheme::Filter)));
    let out = dir.path().join("small.safetensors");
    let text = success(&export(&model, &out, &["--shrink"]));
    assert_contains(&text, &["width       2 -> none", "stays       ", "tied"]);
    let (info, report) = read(&out);
    assert!(info.outputs.is_some() && info.pruned == Some(half(Scheme::Filter)), "{info:?}");
    assert!(report.parameters < read(&model).1.parameters);

    // Of single weights nothing can be removed.
    let target = Target { ratio: 0.1, ..half(Scheme::Irregular) };
    let model = write(dir.path(), Network::LeNet, 1, Some(target));
    let text = success(&export(&model, &out, &["--shrink", "--force"]));
    assert_contains(&text, &["parameters  13514 -> 13514", "nothing could be removed"]);
    assert_eq!(fs::read(&model).unwrap(), fs::read(&out).unwrap());
}

#[test]
fn nothing_is_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), Network::LeNet, 1, None);
    let out = dir.path().join("there");
    fs::write(&out, "mine").unwrap();
    let told = |out: &Path, expected: &[&str]| assert_contains(&error_line(&export(&model, out, &[]), 2), expected);
    told(&out, &["there: exists already", "--force"]);
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    success(&export(&model, &out, &["--force"]));
    assert_eq!(fs::read(&out).unwrap(), fs::read(&model).unwrap());
    told(dir.path(), &["is a directory"]);
    told(&dir.path().join("no/model"), &["no: no such directory"]);
}
