//! `engine import` of good files, and of good files of something else.

use std::path::Path;

use engine::backend::cpu::Cpu;
use engine::checkpoint::load_model;
use engine::nn::models::Network;
use engine::prune::Scheme;
use half::bf16;

use super::files::File;
use super::{import, recorded, refused};
use crate::cli::models::{half, read, write};
use crate::cli::{assert_contains, engine, error_line, success};
use crate::oracle::Oracle;

/// Imports a file into a model beside `dir`.
fn imported(file: &Path, dir: &Path, flags: &[&str]) -> (String, std::path::PathBuf) {
    let out = dir.join("model.safetensors");
    let args = ["import", file.to_str().unwrap(), "--force", "--out", out.to_str().unwrap()];
    (success(&engine(&[&args[..], flags].concat()).output().unwrap()), out)
}

#[test]
fn what_pytorch_has_saved() {
    let dir = tempfile::tempdir().unwrap();
    let oracle = Oracle::load("lenet");
    let all =
        ["network     lenet\n", "width       1\n", "classes     10\n", "parameters  13514, of which 13514 are not"];
    for (name, notes) in [
        ("lenet_wrapped.pt", &["taken from 'state_dict'", "stripped 'module.' from the names"][..]),
        ("lenet_narrow.pt", &["converted from F16 and BF16 and F64 to F32"]),
        ("lenet_views.pt", &[]),
    ] {
        let (text, model) = imported(&recorded(name), dir.path(), &[]);
        assert_contains(&text, &[&all, notes].concat());
        assert_eq!(text.lines().count(), 5 + notes.len(), "{text}");
        let (model, info) = load_model(&Cpu::<f32>::new(1).unwrap(), &model).unwrap();
        assert_eq!((info.network, info.width, info.epochs, info.pruned), (Network::LeNet, 1, 1, None));
        for (tensor, _, values) in model.state(&Cpu::<f32>::new(1).unwrap()) {
            let mut expected = oracle.values(&format!("state.{tensor}")).to_vec();
            if name == "lenet_narrow.pt" && tensor == "conv2.weight" {
                expected.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32());
            }
            assert_eq!(values, expected, "{name}: {tensor}");
        }
    }
}

#[test]
fn an_imported_model_is_one_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let (_, model) = imported(&recorded("lenet_views.pt"), dir.path(), &[]);
    let out = dir.path().join("runs");
    for verb in [
        "eval --sample --attack-steps 1",
        "prune --report",
        "prune --sample --ratio 0.5 --no-retrain --attack-steps 1 --quiet",
        "train --sample --epochs 1 --attack-steps 1 --quiet",
        "export --force",
    ] {
        let mut args: Vec<&str> = verb.split(' ').chain(["--model", model.to_str().unwrap()]).collect();
        if !verb.contains("eval") && !verb.contains("report") {
            args.extend(["--out", out.to_str().unwrap()]);
        }
        if verb.starts_with("export") {
            args.pop();
            args.push(model.to_str().unwrap());
        }
        success(&engine(&args).output().unwrap());
    }
    // Epochs are what the user says.
    let (_, model) = imported(&recorded("lenet_views.pt"), dir.path(), &["--epochs", "0"]);
    let attack = ["eval", "--sample", "--attack-steps", "1", "--model", model.to_str().unwrap()];
    assert_contains(&error_line(&engine(&attack).output().unwrap(), 2), &["was never trained"]);
}

#[test]
fn what_the_engine_wrote_comes_back_without_its_metadata() {
    let dir = tempfile::tempdir().unwrap();
    for network in Network::ALL {
        // Shrunk to a width, and to none.
        for scheme in [Scheme::Irregular, Scheme::Filter] {
            let model = write(dir.path(), *network, 2, Some(half(scheme)));
            let small = dir.path().join("small.safetensors");
            let paths = ["--model", model.to_str().unwrap(), "--out", small.to_str().unwrap()];
            success(&engine(&[&["export", "--shrink", "--force"], &paths[..]].concat()).output().unwrap());
            let bytes = std::fs::read(&small).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let bare = safetensors::serialize(file.tensors(), None).unwrap();
            let bare_path = dir.path().join("bare.safetensors");
            std::fs::write(&bare_path, bare).unwrap();
            // Shrunk to a width, there are no zeros left.
            let masked = scheme == Scheme::Irregular;
            let (text, back) = imported(&bare_path, dir.path(), if masked { &["--masked"] } else { &[] });
            let (expected, found) = (read(&small), read(&back));
            assert_eq!(
                (found.0.network, found.0.width, &found.0.outputs),
                (*network, expected.0.width, &expected.0.outputs)
            );
            assert_eq!(found.1, expected.1, "{network}, {scheme}: {text}");
            let target = found.0.pruned.map(|target| (target.scheme, target.linear, (target.ratio - 0.5).abs() < 0.01));
            assert_eq!(
                target,
                masked.then_some((Scheme::Irregular, network.name().starts_with("lenet"), true)),
                "{text}"
            );
            if network.input()[0] == 3 && *network != Network::LeNetCifar {
                assert_contains(&text, &["ignored num_batches_tracked"]);
            }
        }
    }
}

#[test]
fn names_and_shapes_of_another_network() {
    let mut file = File::lenet();
    file.tensors.iter_mut().for_each(|t| t.name = format!("_orig_mod.module.basic_model.{}", t.name));
    let text = success(&import(&file.bytes(), &[]));
    assert_contains(
        &text,
        &["stripped 'module.'", "stripped 'basic_model.'", "stripped '_orig_mod.'", "width       1\n"],
    );

    let told = |edit: &dyn Fn(&mut File), expected: &str| {
        let mut file = File::lenet();
        edit(&mut file);
        refused(&file.bytes(), &["as lenet of width 1: ", expected, "--network"]);
    };
    told(&|f| f.tensor("fc2.bias").name = "fc3.bias".into(), "missing fc2.bias; unexpected fc3.bias");
    told(
        &|f| (f.tensor("conv1.weight").shape, f.tensor("conv1.weight").stride) = (vec![2, 25], vec![25, 1]),
        "'conv1.weight' is [2, 25] instead of [2, 1, 5, 5]",
    );
    let mut extra = File::lenet();
    extra.tensors.push(super::files::Tensor { name: "normalize.mean".into(), ..extra.tensors[1].clone() });
    refused(&extra.bytes(), &["unexpected normalize.mean"]);
    let mut twice = File::lenet();
    let bias = twice.tensor("fc2.bias").clone();
    twice.tensors.push(super::files::Tensor { name: "module.fc2.bias".into(), ..bias });
    refused(&twice.bytes(), &["'module.fc2.bias' is there with and without 'module.'"]);

    let told = |flags: &[&str], expected: &[&str]| {
        assert_contains(&error_line(&import(&File::lenet().bytes(), flags), 2), expected);
    };
    told(&["--width", "2"], &["as lenet of width 2: ", "'conv1.weight' is [2, 1, 5, 5] instead of [4, 1, 5, 5]"]);
    told(&["--width", "0"], &["width: must be 1 to 64, got 0"]);
    told(&["--network", "resnet18"], &["as resnet18 of width 1: missing bn1.weight, bn1.bias", "and "]);
    told(&["--network", "resnet"], &["unknown network 'resnet'"]);
    success(&import(&File::lenet().bytes(), &["--network", "lenet", "--width", "1"]));
}

#[test]
fn masks_are_the_zeros() {
    let dense = recorded("lenet_views.pt");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.safetensors");
    let args = ["import", dense.to_str().unwrap(), "--masked", "--out", out.to_str().unwrap()];
    assert_contains(&error_line(&engine(&args).output().unwrap(), 2), &["has no weight that is zero", "drop --masked"]);
    assert_contains(
        &error_line(&engine(&["import", "missing.pt", "--out", "x"]).output().unwrap(), 2),
        &["missing.pt: cannot read it"],
    );
    std::fs::write(&out, "mine").unwrap();
    let args = ["import", dense.to_str().unwrap(), "--out", out.to_str().unwrap()];
    assert_contains(&error_line(&engine(&args).output().unwrap(), 2), &["exists already", "--force"]);
}
