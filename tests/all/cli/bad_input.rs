//! Wrong flags, damaged data files, damaged models: one line, exit code 2, nothing written.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{assert_contains, engine, error_line, finished, run, stage_dirs, success};

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
        (b1(&["--backend", "cuda"]), "--backend cuda: "),
        (b1(&["--backend", "cuda"]), "NVIDIA driver"),
        (b1(&["--profile-steps", "0"]), "--profile-steps"),
        (b1(&["--backend", "gpu"]), "unknown backend 'gpu'"),
        (b1(&["--precision", "bf16"]), "drop the flag"),
        (b1(&["--data", "."]), "demo profile uses the embedded sample"),
        (b1(&["--profile", "smoke", "--data", "."]), "smoke profile uses the embedded sample"),
        (b1(&["--name", "a/b"]), "--name: must be the name of a directory in --out, got 'a/b'"),
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
    let args = ["run", "--table", "b1", "--profile", "quick", "--data", data_dir, "--set", "held_out=5000"];
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
