//! Models that cannot be pruned, trained or taken for one: one line, exit code 2, nothing written.

use std::path::PathBuf;

use engine::backend::cpu::Cpu;
use engine::base::error::Error;
use engine::nn::models::Network;
use engine::prune::Scheme;
use engine::train::train;

use super::models::{half, write};
use super::{assert_contains, engine, error_line, run, success};
use crate::small_runs::{Stop, config, digits};

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
    prune("", "<--to-width <W>|--ratio <R>|--report>");
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
    prune("--ratio 0.5 --method admm --update-every 0", "0 is not in 1..=100000");
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
