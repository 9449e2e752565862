//! Wrong flags, damaged data files, damaged models: one line, exit code 2, nothing written.

use std::fs;
use std::path::{Path, PathBuf};

use engine::backend::cpu::Cpu;
use engine::error::Error;
use engine::models::Network;
use engine::prune::Scheme;
use engine::train::train;
use tempfile::TempDir;

use super::models::{half, write};
use super::{assert_contains, engine, error_line, finished, run, stage_dirs, success};
use crate::small_runs::{Stop, config, digits};

#[test]
fn wrong_flags_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let b1 = |args: &[&'static str]| [&["run", "--table", "b1"], args].concat();
    for (args, expected) in [
        (vec!["nonsense"], "unrecognized subcommand 'nonsense'"),
        (vec!["run"], "--table <ID>"),
        (vec!["run", "--table", "zz"], "unknown table 'zz'; known: a1, b1"),
        (vec!["run", "--tabel", "b1"], "a similar argument exists: '--table'"),
        (b1(&["--profile", "smoky"]), "did you mean 'smoke'?"),
        (b1(&["--cells", "kaiming_normol:adam"]), "did you mean 'kaiming_normal'?"),
        (b1(&["--cells", "uniform:cosaneal"]), "did you mean 'cosanneal'?"),
        (b1(&["--cells", "uniform"]), "expected ROW:COLUMN"),
        (b1(&["--method", "scrach"]), "did you mean 'scratch'?"),
        (b1(&["--method", "admm"]), "unknown method 'admm'"),
        (b1(&["--set", "atack.eps=0.1"]), "did you mean 'attack.eps'?"),
        (b1(&["--set", "eps"]), "expected KEY=VALUE"),
        (b1(&["--set", "attack.eps=-1"]), "attack.eps: must be at least 0"),
        (b1(&["--set", "attack.eps=many"]), "attack.eps=many: expected a value of type float"),
        (b1(&["--set", "attack.restarts=2"]), "change eval_attack.restarts"),
        (vec!["run", "--table", "t2", "--cells", "2:4"], "pruning makes a network narrower, never wider"),
        (vec!["run", "--table", "fashion", "--cells", "4:16x"], "no filter of the first layer would be left"),
        (vec!["run", "--table", "t2", "--epochs", "18446744073709551615"], "epochs: must be 1 to 100000"),
        (b1(&["--train-images", "4000"]), "--train-images: must be 1 to 3000"),
        (b1(&["--test-images", "0"]), "--test-images: must be 1 to 1000"),
        (b1(&["--seeds", "0"]), "0 is not in 1..=100000"),
        (b1(&["--seeds", "-1"]), "--seeds"),
        (b1(&["--jobs", "0"]), "--jobs"),
        (b1(&["--threads", "0"]), "0 is not in 1..=1024"),
        (b1(&["--epochs", "0"]), "epochs: must be 1 to 100000"),
        (b1(&["--epochs", "18446744073709551615"]), "epochs: must be 1 to 100000"),
        (b1(&["--backend", "cuda"]), "no CUDA backend"),
        (b1(&["--backend", "gpu"]), "unknown backend 'gpu'"),
        (b1(&["--precision", "bf16"]), "drop the flag"),
        (b1(&["--data", "."]), "smoke profile uses the embedded sample"),
        (b1(&["--profile", "quick", "--data", "/no/such/directory"]), "/no/such/directory"),
        (vec!["train", "--network", "lenat"], "did you mean 'lenet'?"),
        (vec!["train", "--sample", "--eps", "-0.1"], "attack.eps: must be at least 0"),
        (vec!["train", "--sample", "--width", "0"], "width: must be 1 to 64"),
        (vec!["train", "--sample", "--network", "resnet18"], "takes images of another size than those of mnist"),
        (
            vec!["train", "--sample", "--data-set", "cifar10", "--network", "lenet"],
            "another size than those of cifar10",
        ),
    ] {
        let line = error_line(&run(&args, &out), 2);
        assert_contains(&line, &[expected]);
    }
    assert!(!out.exists(), "nothing may be written before all is checked");
}

/// The embedded sample of a data set as files, to be damaged; also the path of `file` in it.
fn data(name: &str, folder: &str, file: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    success(&run(&["data", "sample", "--data-set", name], dir.path()));
    let path = dir.path().join(folder).join(file);
    assert!(path.exists());
    (dir, path)
}

/// Damages one file of a data set and expects every verb that reads it to say so.
fn assert_damage_is_told(name: &str, folder: &str, file: &str, damage: impl Fn(&Path), expected: &str) {
    let (dir, path) = data(name, folder, file);
    damage(&path);
    let out = dir.path().join("out");
    let data_dir = dir.path().to_str().unwrap();
    let mut verbs = vec![vec!["train", "--data-set", name, "--data", data_dir, "--set", "held_out=100"]];
    if name == "mnist" {
        verbs.push(vec!["run", "--table", "b1", "--profile", "quick", "--data", data_dir, "--set", "held_out=100"]);
    }
    for verb in verbs {
        let line = error_line(&run(&verb, &out), 2);
        assert_contains(&line, &[path.to_str().unwrap(), expected, "engine data fetch"]);
    }
    assert!(!out.exists());
    let line = error_line(&engine(&["data", "verify", "--data-set", name, "--data", data_dir]).output().unwrap(), 2);
    assert_contains(&line, &[path.to_str().unwrap(), expected]);
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_mnist_files() {
    let images = "train-images-idx3-ubyte";
    let labels = "t10k-labels-idx1-ubyte";
    let told = |file, damage: &dyn Fn(&Path), expected| assert_damage_is_told("mnist", "mnist", file, damage, expected);
    told(images, &|p| fs::remove_file(p).unwrap(), "no such file");
    told(images, &|p| edit(p, |b| b.truncate(b.len() / 2)), "cut short");
    told(images, &|p| edit(p, Vec::clear), "cut short");
    told(images, &|p| edit(p, |b| b.push(0)), "too long");
    told(images, &|p| edit(p, |b| b[3] = 1), "magic");
    told(images, &|p| edit(p, |b| b[11] = 27), "27");
    // The first bytes of a gzip file, and then nothing that is one.
    told(images, &|p| edit(p, |b| b[..4].copy_from_slice(&[0x1f, 0x8b, 8, 0])), "gzip data is");
    told(labels, &|p| edit(p, |b| *b.last_mut().unwrap() = 10), "label 10 at index 999, expected 0 to 9");
    let one_less = |b: &mut Vec<u8>| {
        b[4..8].copy_from_slice(&999_u32.to_be_bytes());
        b.pop();
    };
    told(labels, &|p| edit(p, one_less), "expected 1000 labels, one for each image, found 999");
}

#[test]
fn damaged_cifar_files() {
    let told = |damage: &dyn Fn(&Path), expected| {
        assert_damage_is_told("cifar10", "cifar-10-batches-bin", "data_batch_3.bin", damage, expected);
    };
    told(&|p| fs::remove_file(p).unwrap(), "no such file");
    told(&|p| edit(p, |b| b.truncate(b.len() - 1)), "bytes");
    told(&|p| edit(p, |b| b[0] = 10), "label 10");
}

#[test]
fn too_few_images_for_the_settings() {
    let (dir, _) = data("mnist", "mnist", "train-images-idx3-ubyte");
    let data_dir = dir.path().to_str().unwrap();
    let args = ["run", "--table", "b1", "--profile", "quick", "--data", data_dir, "--set", "held_out=3000"];
    let line = error_line(&run(&args, &dir.path().join("out")), 2);
    assert_contains(&line, &["held_out: must be below the 3000 training images", "--set held_out=N"]);
}

#[test]
fn models_that_cannot_be_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    let good = stage_dirs(finished())[0].join("model.safetensors");
    let path = dir.path().join("model.safetensors");
    let eval = |extra: &[&str]| {
        let args = [&["eval", "--sample", "--model", path.to_str().unwrap()], extra].concat();
        engine(&args).output().unwrap()
    };
    let told =
        |expected: &[&str]| assert_contains(&error_line(&eval(&[]), 2), &[&["model.safetensors"], expected].concat());
    told(&["No such file", "give the model.safetensors of a finished stage"]);
    // Every byte counts, those of the header too.
    let bytes = fs::read(&good).unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        told(&["cut short", "give the model.safetensors of a finished stage"]);
    }
    fs::write(&path, "This is no model.").unwrap();
    told(&["no safetensors file"]);
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/lenet.safetensors");
    fs::copy(oracle, &path).unwrap();
    told(&["not written by the engine"]);

    // A file that claims to be another network, of the same length or of any size.
    let claim = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut changed = [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + (to.len() - from.len()) as u64;
        changed[..8].copy_from_slice(&header.to_le_bytes());
        fs::write(&path, changed).unwrap();
    };
    claim(r#"\"width\":1"#, r#"\"width\":2"#);
    told(&["has shape", "expected"]);
    claim(r#"\"width\":1"#, r#"\"width\":1000000000"#);
    told(&["width: must be 1 to 64"]);
    claim(r#"\"classes\":10"#, r#"\"classes\":1000000000"#);
    told(&["classes: must be 1 to 256"]);

    fs::copy(&good, &path).unwrap();
    let line = error_line(&eval(&["--data-set", "cifar10"]), 2);
    assert_contains(&line, &["'lenet' takes 28x28x1 images", "the data set has 32x32x3 images"]);
    assert_contains(&error_line(&eval(&["--eps", "-1"]), 2), &["attack.eps: must be at least 0"]);
}

#[test]
fn models_that_cannot_be_pruned_or_trained() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let path = |path: PathBuf| path.to_str().unwrap().to_string();
    let lenet = path(write(dir.path(), Network::LeNet, 4, None));
    let pruned = path(write(dir.path(), Network::LeNet, 2, Some(half(Scheme::Filter))));
    let resnet = path(write(dir.path(), Network::ResNet18, 2, Some(half(Scheme::Filter))));
    let shrunk = path(dir.path().join("shrunk.safetensors"));
    success(&engine(&["export", "--shrink", "--model", &resnet, "--out", &shrunk]).output().unwrap());
    let told = |verb: &str, model: &str, flags: &str, expected: &[&str]| {
        let args = [verb, "--sample", "--model", model].into_iter().chain(flags.split_whitespace());
        let line = error_line(&run(&args.collect::<Vec<_>>(), &out), 2);
        assert_contains(&line, expected);
    };
    let prune = |flags: &str, expected: &str| told("prune", &lenet, flags, &[expected]);
    prune("", "<--report|--to-width <W>|--ratio <R>>");
    prune("--to-width 2 --ratio 0.5", "'--to-width <W>' cannot be used with '--ratio <R>'");
    prune("--ratio 1", "ratio: must be in [0, 1), got 1");
    prune("--ratio -0.1", "ratio: must be in [0, 1), got -0.1");
    prune("--ratio nan", "ratio: must be in [0, 1), got NaN");
    prune("--ratio 0.95", "would leave conv1 (8 filters) empty");
    prune("--to-width 8", "--to-width 8: the model has width 4; prune to a smaller width");
    prune("--to-width 4", "the model has width 4");
    prune("--to-width 0", "the model has width 4");
    prune("--ratio 0.5 --scheme bn-filter", "network 'lenet' has none behind conv1");
    prune("--ratio 0.5 --scheme filtre", "did you mean 'filter'?");
    prune("--ratio 0.5 --method amd", "did you mean 'admm'?");
    prune("--ratio 0.5 --data-set cifar10", "'lenet' takes 28x28x1 images");
    prune("--ratio 0.5 --no-retrain --retrain-epochs 3", "'--no-retrain' cannot be used with '--retrain-epochs <N>'");
    prune("--ratio 0.5 --rho 1", "--rho: means nothing to post-prune; add --method admm");
    prune("--ratio 0.5 --epochs 1", "--epochs: means nothing to post-prune; use --retrain-epochs");
    prune("--ratio 0.5 --method admm --every step", "--every: means nothing to admm");
    prune("--ratio 0.5 --method admm --rho -1", "sparsity.rho: must be at least 0");
    prune("--ratio 0.5 --method admm --update-every 0", "sparsity.update_every: must be 1 to");
    prune("--ratio 0.5 --retrain-epochs 0", "epochs: must be 1 to");
    prune("--ratio 0.5 --eps nan --no-retrain", "eval_attack.eps: must be at least 0");
    prune("--ratio 0.5 --seed 9223372036854775808", "--seed");
    prune("--ratio 0.5 --set sparsity.ratio=0.1", "--set sparsity.ratio: another flag decides it");
    prune("--ratio 0.5 --set width=2", "--set width: another flag decides it");
    prune("--ratio 0.5 --set sparsity.compat=true", "did you mean 'sparsity.compact'?");
    told("prune", &pruned, "--ratio 0.5", &[&pruned, "is pruned already; give the dense model"]);
    told("prune", &shrunk, "--ratio 0.5 --data-set cifar10", &[&shrunk, "is pruned already"]);

    let go_on = |flags: &str, expected: &str| told("train", &lenet, flags, &[&lenet, expected]);
    go_on("--width 8", "is a lenet of width 4, not of width 8");
    go_on("--network resnet18", "is a lenet of width 4, not a resnet18");
    go_on("--masked", "is not pruned, so there are no masks; prune it first with `engine prune`");
    go_on("--inherit", "is not pruned, so there are no masks");
    told("train", &lenet, "--init normal", &["--init: the weights come from the model"]);
    told("train", &lenet, "--set origin=inherited", &["--set origin: another flag decides it"]);
    told("train", &shrunk, "--inherit --data-set cifar10", &[&shrunk, "was shrunk"]);
    for flag in ["--masked", "--inherit"] {
        assert_contains(&error_line(&run(&["train", "--sample", flag], &out), 2), &["--model <FILE>"]);
    }
    assert!(!out.exists(), "nothing may be written before all is checked");
}

/// The state of an unfinished run lies where its model will be.
#[test]
fn a_state_is_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let data = digits(100, 20);
    let stopped = train(&Cpu::<f32>::new(1).unwrap(), &config(&data), &data, None, dir.path(), &Stop::at(2));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let state = dir.path().join("state.safetensors");
    let state = state.to_str().unwrap();
    for verb in ["train --sample", "prune --sample --ratio 0.5", "prune --report", "export", "eval --sample"] {
        let mut args: Vec<&str> = verb.split(' ').chain(["--model", state]).collect();
        if verb == "export" {
            args.extend(["--out", "model.safetensors"]);
        }
        let line = error_line(&engine(&args).current_dir(dir.path()).output().unwrap(), 2);
        assert_contains(&line, &[state, "is the state of an unfinished training; finish it first"]);
    }
}
