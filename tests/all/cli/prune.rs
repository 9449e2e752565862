//! `engine prune`, and `engine train` on what it leaves.

use std::fs;
use std::path::Path;

use engine::nn::models::Network;
use engine::prune::Scheme;
use engine::train::{Origin, ProximalEvery, Sparsity};

use super::models::{half, printed, read, write};
use super::{assert_contains, engine, run, stage_dirs, success};

/// The weakest attack, the sample, no progress.
const TINY: &[&str] = &["--sample", "--attack-steps", "1", "--set", "eval_attack.steps=1", "--quiet"];

/// What a run with `args` and [`TINY`] prints.
fn tiny(args: &[&str], out: &Path) -> String {
    success(&run(&[args, TINY].concat(), out))
}

/// Resolved stages of an output directory, by the kind of each.
fn stages(out: &Path) -> Vec<(String, toml::Table)> {
    let read = |dir: std::path::PathBuf| {
        let table: toml::Table = fs::read_to_string(dir.join("config.toml")).unwrap().parse().unwrap();
        let config = table["config"].as_table().unwrap().clone();
        let sparsity = config.get("sparsity").and_then(|s| s.get("kind")).and_then(toml::Value::as_str);
        (sparsity.or(config["kind"].as_str()).unwrap().to_string(), config)
    };
    let mut stages: Vec<_> = stage_dirs(out).into_iter().map(read).collect();
    stages.sort_by(|a, b| a.0.cmp(&b.0));
    stages
}

fn kinds(stages: &[(String, toml::Table)]) -> Vec<&str> {
    stages.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[test]
fn post_prune_prunes_and_retrains() {
    let dir = tempfile::tempdir().unwrap();
    let dense = write(dir.path(), Network::LeNet, 2, None);
    let out = dir.path().join("out");
    let args = ["prune", "--model", dense.to_str().unwrap(), "--to-width", "1", "--attack", "none"];
    let args = [&args[..], &["--retrain-epochs", "1", "--retrain-lr", "0.003"]].concat();
    let text = tiny(&args, &out);
    assert_contains(
        &text,
        &[
            "lenet w=2 pruned by 0.5000 (post-prune, filter) on mnist seed 0: cpu f32",
            "conv1",
            "2/4",
            "before pruning    natural ",
            "after pruning     natural ",
            "after retraining  natural ",
        ],
    );
    assert_eq!(kinds(&stages(&out)), ["import", "masked", "prune"]);
    let (info, report) = read(&printed(&text));
    // The import had three epochs behind it.
    assert_eq!((info.width, info.pruned, info.epochs), (2, Some(half(Scheme::Filter)), 4));
    assert!(text.contains(report.text().trim_end()), "{text}\n{}", report.text());
    assert!(report.layers.iter().take(3).all(|layer| 2 * layer.filters_kept == layer.filters), "{report:?}");
    // From a model of ten percent to one that has learnt something.
    let natural = |line: &str| {
        let line = text.lines().find(|l| l.starts_with(line)).unwrap();
        line.split("natural ").nth(1).unwrap().split([',', ';']).next().unwrap().parse::<f64>().unwrap()
    };
    assert!(natural("after retraining") > natural("after pruning") + 20.0, "{text}");

    let again = tiny(&args, &out);
    assert!(again.contains("nothing left to do"), "{again}");
    assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), again.lines().skip(1).collect::<Vec<_>>());
}

#[test]
fn without_retraining_the_pruned_model_is_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let dense = write(dir.path(), Network::LeNet, 2, None);
    let args = ["prune", "--model", dense.to_str().unwrap(), "--ratio", "0.9", "--scheme", "irregular", "--no-retrain"];
    let text = tiny(&[&args[..], &["--keep-linear"]].concat(), dir.path());
    assert_eq!(kinds(&stages(dir.path())), ["import", "prune"]);
    assert!(!text.contains("retraining"), "{text}");
    let (info, report) = read(&printed(&text));
    assert_eq!(
        info.pruned.map(|target| (target.scheme, target.ratio, target.linear)),
        Some((Scheme::Irregular, 0.9, false))
    );
    assert_eq!(report.layers[1].weights_kept, report.layers[1].weights / 10);
    assert_eq!(report.layers[2].weights_kept, report.layers[2].weights);
}

#[test]
fn admm_and_proximal_train_towards_the_prune() {
    let dir = tempfile::tempdir().unwrap();
    let dense = write(dir.path(), Network::LeNet, 2, None);
    let common = ["prune", "--model", dense.to_str().unwrap(), "--to-width", "1", "--attack", "none", "--seed", "5"];
    let phases =
        ["--epochs", "2", "--lr", "0.02", "--retrain-epochs", "1", "--retrain-lr", "0.003", "--set", "batch=50"];
    let common = [&common[..], &phases].concat();

    let out = dir.path().join("admm");
    let flags = ["--method", "admm", "--rho", "0.25", "--growth", "1.5", "--update-every", "1"];
    let text = tiny(&[&common[..], &flags].concat(), &out);
    assert!(read(&printed(&text)).0.epochs == 3 + 2 + 1, "{text}");
    let [(admm, config), (import, _), (masked, retraining), (prune, _)] = &stages(&out)[..] else {
        panic!("{:?}", stages(&out))
    };
    assert_eq!([admm, import, masked, prune], ["admm", "import", "masked", "prune"]);
    let config: engine::train::TrainConfig = without_kind(config).try_into().unwrap();
    assert_eq!((config.epochs, config.batch, config.seed, config.origin), (2, 50, 5, Origin::Parent));
    assert_eq!((config.optimizer.lr(), config.schedule.period, config.attack), (0.02, 1, None));
    let Sparsity::Admm(admm) = config.sparsity else { panic!("{:?}", config.sparsity) };
    assert_eq!((admm.rho, admm.growth, admm.update_every, admm.target), (0.25, 1.5, 1, half(Scheme::Filter)));
    let retraining: engine::train::TrainConfig = without_kind(retraining).try_into().unwrap();
    assert_eq!((retraining.epochs, retraining.batch, retraining.optimizer.lr()), (1, 50, 0.003));

    let out = dir.path().join("proximal");
    tiny(&[&common[..], &["--method", "proximal", "--every", "step"]].concat(), &out);
    let stages = stages(&out);
    assert_eq!(kinds(&stages), ["import", "masked", "proximal", "prune"]);
    let config: engine::train::TrainConfig = without_kind(&stages[2].1).try_into().unwrap();
    assert!(matches!(config.sparsity, Sparsity::Proximal(p) if p.every == ProximalEvery::Step), "{config:?}");
}

fn without_kind(config: &toml::Table) -> toml::Table {
    let mut config = config.clone();
    config.remove("kind");
    config
}

#[test]
fn report_prints_what_is_left_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dense = write(dir.path(), Network::ResNet18, 1, None);
    let out = dir.path().join("out");
    let text = success(&run(&["prune", "--report", "--model", dense.to_str().unwrap()], &out));
    assert_eq!(text.trim_end(), read(&dense).1.text().trim_end());
    assert_contains(&text, &["layer4.1.conv2", "linear", "network 1.0x"]);
    assert!(!out.exists());
}

#[test]
fn a_pruned_model_is_retrained_with_its_masks() {
    let dir = tempfile::tempdir().unwrap();
    let pruned = write(dir.path(), Network::LeNet, 2, Some(half(Scheme::Column)));
    let train = ["train", "--model", pruned.to_str().unwrap(), "--epochs", "1"];
    for (name, extra, epochs) in
        [("plain", &[][..], 4), ("masked", &["--masked", "--width", "2"], 4), ("inherit", &["--inherit"], 1)]
    {
        let out = dir.path().join(name);
        let text = tiny(&[&train[..], extra].concat(), &out);
        assert_eq!(kinds(&stages(&out)), ["import", "masked"]);
        let (info, report) = read(&printed(&text));
        assert_eq!((info.pruned, info.epochs), (Some(half(Scheme::Column)), epochs), "{name}");
        assert_eq!(report.layers[..3], read(&pruned).1.layers[..3], "{name}");
    }
}

#[test]
fn a_dense_model_goes_on_dense() {
    let dir = tempfile::tempdir().unwrap();
    let dense = write(dir.path(), Network::LeNet, 2, None);
    let args = ["train", "--model", dense.to_str().unwrap(), "--epochs", "1", "--lr", "0"];
    let text = tiny(&args, dir.path());
    assert_eq!(kinds(&stages(dir.path())), ["dense", "import"]);
    // Nothing is learnt at rate 0: the weights are the file's.
    let eval = |model: &Path| {
        let args = ["eval", "--sample", "--attack", "none", "--model", model.to_str().unwrap()];
        success(&engine(&args).output().unwrap())
    };
    assert_eq!(eval(&dense), eval(&printed(&text)));
    assert_eq!(read(&printed(&text)).0.epochs, 4);
}
