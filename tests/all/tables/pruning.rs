use std::collections::HashSet;

use engine::attack::{AttackLoss, Ramp};
use engine::data::{DataId, Dataset, DatasetName};
use engine::experiments::pipeline::{BackendName, Plan, Precision, StageConfig};
use engine::experiments::tables;
use engine::experiments::tables::{Cell, CellJobs, Method, Profile, Settings, TABLES, Table};
use engine::nn::models::{Architecture, Network};
use engine::nn::optim::{LrShape, OptimizerConfig};
use engine::train::{Origin, ProximalEvery, Selection, Sparsity, TrainConfig};

/// The settings of a default run on the data the profile uses.
pub fn settings(id: &str, profile: Profile) -> Settings {
    let table = Table::find(id).unwrap();
    let (train_images, test_images) = match (profile, table.dataset) {
        (Profile::Smoke, _) => table.smoke,
        (Profile::Demo, _) => table.demo.images,
        (_, DatasetName::Cifar10) => (50_000, 10_000),
        _ => (60_000, 10_000),
    };
    let sample = matches!(profile, Profile::Smoke | Profile::Demo);
    let subset = if sample { format!("sample:{train_images}+{test_images}") } else { "full".into() };
    Settings {
        profile,
        data: DataId { name: table.dataset, subset, fingerprint: "0123456789abcdef".into() },
        train_images,
        test_images,
        methods: table.default_methods(profile),
        cells: vec![],
        seeds: vec![0],
        epochs: None,
        autoattack: None,
        overrides: vec![],
    }
}

fn only(id: &str, profile: Profile, method: &str, cell: &str) -> Settings {
    Settings { methods: vec![method.into()], cells: vec![cell.into()], ..settings(id, profile) }
}

fn chain(id: &str, profile: Profile, method: &str, cell: &str) -> Vec<StageConfig> {
    let [Cell { chain, .. }] = &cells(id, &only(id, profile, method, cell))[..] else { panic!("one cell") };
    chain.clone()
}

pub fn cells(id: &str, settings: &Settings) -> Vec<Cell> {
    tables::cells(Table::find(id).unwrap(), settings).unwrap()
}

/// Adds the stages of `cells` of table `id` and returns the jobs of each.
pub fn add(plan: &mut Plan, id: &str, settings: &Settings, cells: &[Cell]) -> Vec<CellJobs> {
    let table = Table::find(id).unwrap();
    cells.iter().map(|cell| cell.plan(table, settings, plan).unwrap()).collect()
}

fn plan(ids: &[&str], profile: Profile) -> Plan {
    let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
    for id in ids {
        let settings = settings(id, profile);
        add(&mut plan, id, &settings, &cells(id, &settings));
    }
    plan
}

fn training(config: &StageConfig) -> &TrainConfig {
    let StageConfig::Train(config) = config else { panic!("not a training stage: {config:?}") };
    config
}

fn ratio(config: &StageConfig) -> f64 {
    config.target().unwrap().ratio
}

/// `dense`, `masked`, … of training stages, and the kind of the others.
fn kinds(chain: &[StageConfig]) -> Vec<&'static str> {
    let kind = |config: &StageConfig| match config {
        StageConfig::Train(config) => match config.sparsity {
            Sparsity::Dense => "dense",
            Sparsity::Masked(_) => "masked",
            Sparsity::Admm(_) => "admm",
            Sparsity::Proximal(_) => "proximal",
        },
        StageConfig::Prune(_) => "prune",
        StageConfig::Eval(_) => "eval",
        StageConfig::Import(_) | StageConfig::Suite(_) => config.kind(),
    };
    chain.iter().map(kind).collect()
}

#[test]
fn chains_are_the_methods() {
    let expected = [
        ("natural-training", "16:dense", &["dense"][..]),
        ("adversarial-training", "16:dense", &["dense"]),
        ("admm", "16:4", &["dense", "admm", "prune", "masked"]),
        ("post-prune", "16:4", &["dense", "prune", "masked"]),
        ("no-retrain", "16:4", &["dense", "prune"]),
        ("proximal", "16:4", &["dense", "proximal", "prune", "masked"]),
        ("scratch", "16:4", &["dense"]),
        ("inherited", "16:4", &["dense", "prune", "masked"]),
    ];
    assert_eq!(expected.len(), Method::ALL.len());
    for (method, cell, stages) in expected {
        let chain = chain("t2", Profile::Quick, method, cell);
        assert_eq!(kinds(&chain), stages, "{method}");
        for config in &chain {
            assert_eq!(config.network(), (Network::LeNet, if method == "scratch" { 4 } else { 16 }));
            assert!(config.target().is_none_or(|target| target.ratio == 0.75 && target.linear));
            if let StageConfig::Train(config) = config {
                let attacked = config.attack.is_some();
                assert_eq!(attacked, method != "natural-training", "{method}");
                let origin = match (&config.sparsity, method) {
                    (Sparsity::Dense, _) => Origin::Initialisation,
                    (_, "inherited") => Origin::Inherited,
                    _ => Origin::Parent,
                };
                assert_eq!(config.origin, origin);
                assert!(!matches!(config.sparsity, Sparsity::Masked(masked) if !masked.compact));
                // The last model of the phase before a prune is the one that is pruned.
                let last = matches!(config.sparsity, Sparsity::Admm(_) | Sparsity::Proximal(_));
                assert_eq!(config.select == Selection::Last, last);
            }
        }
    }
    let [_, proximal, ..] = &chain("t2", Profile::Quick, "proximal", "16:4")[..] else { panic!() };
    assert!(matches!(training(proximal).sparsity, Sparsity::Proximal(p) if p.every == ProximalEvery::Epoch));
    assert_eq!(ratio(&chain("t2", Profile::Quick, "admm", "16:1")[1]), 0.9375);
}

#[test]
fn every_method_trains_as_long_as_the_others() {
    for (id, profile, length) in [
        ("t2", Profile::Paper, 83 + 40 + 40),
        ("t2", Profile::Quick, 5 + 3 + 3),
        ("t3", Profile::Paper, 300 + 200 + 100),
        ("t3", Profile::Quick, 4 + 4 + 3),
        ("t3", Profile::Smoke, 3),
    ] {
        for method in ["admm", "post-prune", "proximal", "scratch"] {
            let epochs = chain(id, profile, method, "8:2").iter().map(StageConfig::epochs).sum::<usize>();
            assert_eq!(epochs, length, "{id} {profile} {method}");
        }
        let inherited = chain(id, profile, "inherited", "8:2");
        assert_eq!(inherited[2].epochs(), length, "as from scratch, on top of what chose the filters");
    }
    let two = Settings { epochs: Some(2), ..only("t2", Profile::Quick, "post-prune", "8:2") };
    assert_eq!(cells("t2", &two)[0].chain.iter().map(StageConfig::epochs).collect::<Vec<_>>(), [2, 0, 4]);
}

#[test]
fn published_settings() {
    for (id, lr, dense_epochs, admm_epochs, update_every, decay) in
        [("t2", 1e-4, 83, 40, 4, 0.0), ("t3", 0.1, 300, 200, 20, 1e-4), ("t4", 0.1, 300, 200, 20, 1e-4)]
    {
        let chain = chain(id, Profile::Paper, "admm", "16:8");
        let (dense, admm, retrain) = (training(&chain[0]), training(&chain[1]), training(&chain[3]));
        assert_eq!((dense.optimizer.lr(), dense.epochs, dense.held_out), (lr, dense_epochs, 5000));
        assert_eq!((admm.epochs, admm.schedule.shape, admm.schedule.gamma), (admm_epochs, LrShape::Periodic, 0.1));
        assert_eq!(admm.optimizer, OptimizerConfig::Sgd { lr: 0.01, momentum: 0.9, weight_decay: decay });
        let Sparsity::Admm(config) = admm.sparsity else { panic!("{:?}", admm.sparsity) };
        assert_eq!((config.rho, config.growth, config.update_every), (1e-3, 1.3, update_every));
        assert_eq!((admm.schedule.period, admm.eval_every, dense.eval_every), (update_every, update_every, 1));
        assert!(chain.iter().all(|config| config.eval_attack().unwrap() == &dense.eval_attack));
        assert!([dense, admm, retrain].iter().all(|config| config.eps_schedule.ramp == Ramp::Constant));
        assert!([dense, admm, retrain].iter().all(|config| config.attack.as_ref() == Some(&dense.eval_attack)));
        let drops: &[usize] = if id == "t2" { &[] } else { &[80, 150] };
        assert_eq!(dense.schedule.milestones, drops);
        assert_eq!((Table::find(id).unwrap().seeds)(Profile::Paper), 3);
    }
    let retrain = chain("t4", Profile::Paper, "post-prune", "2:1");
    assert_eq!(training(&retrain[2]).schedule.shape, LrShape::Cosine);
    assert_eq!(training(&retrain[2]).optimizer.lr(), 0.01);
    let scratch = chain("t3", Profile::Paper, "scratch", "2:1");
    assert_eq!(training(&scratch[0]).schedule.milestones, [160, 300]);
}

#[test]
fn quick_measures_once_with_the_published_attack() {
    let mnist = chain("t2", Profile::Quick, "admm", "4:1");
    let dense = training(&mnist[0]);
    let attack = dense.attack.as_ref().unwrap();
    assert_eq!((attack.steps, attack.step_size, dense.eval_attack.steps), (10, 0.04, 40));
    assert_eq!((dense.eps_schedule.ramp, dense.eps_schedule.epochs), (Ramp::Cosine, 2.0));
    assert_eq!(training(&mnist[1]).eps_schedule.ramp, Ramp::Constant);
    assert_eq!(training(&chain("t2", Profile::Quick, "scratch", "4:1")[0]).eps_schedule.epochs, 11.0 / 3.0);
    for id in ["t2", "t4", "fashion"] {
        for config in cells(id, &settings(id, Profile::Quick)).iter().flat_map(|cell| &cell.chain) {
            if let StageConfig::Train(config) = config {
                assert_eq!((config.eval_every, config.held_out), (config.epochs, 1000));
            }
        }
    }
    let few = Settings { train_images: 5000, ..settings("t2", Profile::Quick) };
    assert_eq!(training(&cells("t2", &few)[0].chain[0]).held_out, 500);
}

#[test]
fn grids_are_triangles_and_the_rates_end_where_a_layer_would() {
    let names = |id: &str, method: &str| -> Vec<String> {
        let settings = Settings { methods: vec![method.into()], ..settings(id, Profile::Quick) };
        cells(id, &settings).iter().map(|cell| format!("{}:{}", cell.at.row, cell.at.column)).collect()
    };
    let pairs = ["2:1", "4:1", "4:2", "8:1", "8:2", "8:4", "16:1", "16:2", "16:4", "16:8"];
    for (id, method) in [("a1", "post-prune"), ("a1", "no-retrain"), ("c1", "admm"), ("t2", "scratch"), ("t4", "admm")]
    {
        assert_eq!(names(id, method), pairs, "{id} {method}");
    }
    assert_eq!(names("t2", "natural-training"), ["1:dense", "2:dense", "4:dense", "8:dense", "16:dense"]);
    assert_eq!(names("a1", "adversarial-training"), ["2:dense", "4:dense", "8:dense", "16:dense"]);
    let rates =
        ["16:2x", "16:4x", "16:8x", "16:16x", "16:32x", "8:2x", "8:4x", "8:8x", "8:16x", "4:2x", "4:4x", "4:8x"];
    assert_eq!(names("fashion", "admm"), rates);
    assert_eq!(ratio(&chain("fashion", Profile::Quick, "post-prune", "16:32x")[1]), 1.0 - 1.0 / 32.0);
}

#[test]
fn cells_are_selected_in_whatever_block_has_them() {
    let select = |id: &str, patterns: &[&str]| {
        let cells = patterns.iter().map(|pattern| pattern.to_string()).collect();
        tables::cells(Table::find(id).unwrap(), &Settings { cells, ..settings(id, Profile::Quick) })
    };
    let names = |cells: Vec<Cell>| -> Vec<String> {
        cells.iter().map(|c| format!("{} {}:{}", c.at.block.method, c.at.row, c.at.column)).collect()
    };
    assert_eq!(names(select("t2", &["16:1", "8:2"]).unwrap()), ["admm 8:2", "admm 16:1"]);
    assert_eq!(
        names(select("t2", &["4:dense", "2:1"]).unwrap()),
        ["natural-training 4:dense", "adversarial-training 4:dense", "admm 2:1"]
    );
    assert_eq!(select("t4", &["16:*"]).unwrap().len(), 2 + 2 * 4);
    assert_eq!(select("a1", &["*:*"]).unwrap().len(), 34);
    for (id, pattern, expected) in [
        ("t2", "2:4", "--cells 2:4: no such cell, pruning makes a network narrower, never wider; '2' has dense, 1"),
        ("t2", "4:4", "'4' has dense, 1, 2"),
        ("t2", "1:1", "'1' has dense"),
        ("fashion", "4:16x", "no such cell, no filter of the first layer would be left; '4' has dense, 2x, 4x, 8x"),
        ("t2", "32:1", "unknown original width in --cells '32'; known: 1, 2, 4, 8, 16"),
        ("t2", "16:3", "unknown pruned width in --cells '3'; known: dense, 1, 2, 4, 8"),
        ("a1", "16", "expected ROW:COLUMN like '2:dense'"),
    ] {
        let error = select(id, &["16:dense", pattern]).err().unwrap();
        let text = error.to_string();
        assert!(error.exit_code() == 2 && !text.contains('\n') && text.contains(expected), "{id} {pattern}: {text}");
    }
}

#[test]
fn published_numbers_are_where_the_paper_has_them() {
    let published = |id: &str, method: &str, cell: &str| {
        let [cell] = &cells(id, &only(id, Profile::Paper, method, cell))[..] else { panic!("one cell") };
        Table::find(id).unwrap().published(&cell.at).map(|p| (p.natural, p.adversarial))
    };
    assert_eq!(published("t2", "natural-training", "16:dense"), Some((Some(99.31), 0.0)));
    assert_eq!(published("t2", "admm", "16:8"), Some((Some(99.01), 95.44)));
    assert_eq!(published("t2", "post-prune", "16:8"), None);
    assert_eq!(published("t3", "admm", "2:1"), Some((Some(50.3), 31.33)));
    assert_eq!(published("a1", "post-prune", "16:1"), Some((Some(60.26), 36.18)));
    assert_eq!(published("a1", "no-retrain", "16:1"), None);
    assert_eq!(published("c1", "adversarial-training", "8:dense"), Some((None, 93.57)));
    for (id, method, cell) in [("a1", "admm", "16:1"), ("t4", "admm", "16:1")] {
        assert_eq!(published(id, method, cell), Some((Some(64.17), 37.99)));
    }
    assert_eq!(published("t4", "post-prune", "16:1"), published("a1", "post-prune", "16:1"));
    assert_eq!(published("a1", "adversarial-training", "2:dense"), Some((Some(71.16), 42.45)));
    // Every cell of a default run is published, but for what the appendix gives in words.
    for (id, missing) in [("a1", 10), ("c1", 0), ("fashion", 39), ("t2", 0), ("t3", 0), ("t4", 0)] {
        let table = Table::find(id).unwrap();
        let all = cells(id, &settings(id, Profile::Paper));
        assert_eq!(all.iter().filter(|cell| table.published(&cell.at).is_none()).count(), missing, "{id}");
    }
}

#[test]
fn shared_ancestors_are_trained_once() {
    for profile in [Profile::Smoke, Profile::Quick, Profile::Paper] {
        let stages = |ids: &[&str]| plan(ids, profile).jobs().len();
        // Ten cells of ADMM are thirty stages and ten of post-pruning twenty; dense networks are shared.
        assert_eq!(stages(&["t2"]), 5 + 5 + 30);
        assert_eq!(stages(&["t3"]), 5 + 30);
        assert_eq!(stages(&["a1"]), 4 + 20 + 30, "pruning without retraining is a stage of pruning with it");
        assert_eq!(stages(&["t4"]), 5 + 5 + 30 + 20);
        assert_eq!(stages(&["a1", "t4"]), stages(&["t4"]), "all of a1 is in t4");
        assert_eq!(stages(&["c1"]), 4 + 30 + 14);
        assert_eq!(stages(&["c1", "t2"]), stages(&["t2"]) + 14, "c1 adds nothing but its attack");
        assert_eq!(stages(&["fashion"]), 3 + 12 * (2 + 3 + 3));
    }
    let all: Vec<String> = Table::find("t2").unwrap().blocks.iter().map(|block| block.method.to_string()).collect();
    let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
    let settings = Settings { methods: all, ..settings("t2", Profile::Quick) };
    add(&mut plan, "t2", &settings, &cells("t2", &settings));
    // Rivals: one prune and one retraining a cell, nothing, three stages, a network for each width, one retraining.
    assert_eq!(plan.jobs().len(), 40 + 20 + 30 + 4 + 10);
}

#[test]
fn c1_attacks_the_models_of_t2() {
    let keys = |id: &str| -> HashSet<String> {
        let plan = plan(&[id], Profile::Quick);
        let models = plan.jobs().iter().filter(|job| !matches!(job.stage.config, StageConfig::Eval(_)));
        models.map(|job| job.key.clone()).collect()
    };
    assert!(keys("c1").is_subset(&keys("t2")));
    let chain = chain("c1", Profile::Paper, "admm", "16:1");
    assert_eq!(kinds(&chain), ["dense", "admm", "prune", "masked", "eval"]);
    let attack = chain[4].eval_attack().unwrap();
    assert_eq!((attack.eps, attack.steps, attack.step_size, attack.loss), (0.3, 40, 0.01, AttackLoss::Margin));
    assert_eq!(ratio(&chain[4]), 0.9375);
}

#[test]
fn targets_are_checked_before_anything_runs() {
    for (id, method, path, value, expected) in [
        ("a1", "no-retrain", "sparsity.ratio", "1", "ratio: must be in [0, 1), got 1"),
        ("t2", "admm", "sparsity.ratio", "0.99", "would leave conv1"),
        ("t2", "post-prune", "sparsity.scheme", "bn-filter", "needs batch normalisation"),
    ] {
        let overrides = vec![(path.to_string(), value.to_string())];
        let settings = Settings { overrides, ..only(id, Profile::Quick, method, "16:1") };
        let error = tables::cells(Table::find(id).unwrap(), &settings).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(expected), "{method}: {error}");
    }
}

#[test]
fn methods_and_comparisons_name_blocks() {
    for table in TABLES.iter().filter(|table| table.id != "b1") {
        let methods: Vec<&str> = table.blocks.iter().map(|block| block.method).collect();
        for method in &methods {
            assert!(method.parse::<Method>().is_ok(), "{} {method}", table.id);
        }
        for (minuend, subtrahend) in table.comparisons {
            assert!([minuend, subtrahend].iter().all(|method| methods.contains(&method.name())), "{}", table.id);
        }
    }
    for id in ["a1", "t4"] {
        let table = Table::find(id).unwrap();
        assert!(table.comparisons.contains(&(Method::Admm, Method::PostPrune)));
        assert!(table.default_methods(Profile::Paper).contains(&"post-prune".to_string()));
    }
}

/// A pass is a forward and a backward through the activations.
#[test]
fn smoke_fits_two_minutes_on_two_cores() {
    for id in ["a1", "c1", "fashion", "t2", "t3", "t4"] {
        let settings = settings(id, Profile::Smoke);
        let plan = plan(&[id], Profile::Smoke);
        let mut work = 0.0;
        let mut speed = 0.0;
        for job in plan.jobs() {
            let config = &job.stage.config;
            let (network, width) = config.network();
            // Multiply-adds a second of a core, measured at width 16.
            speed = match network {
                Network::LeNet => 14e9,
                Network::LeNetCifar => 9e9,
                Network::ResNet18 | Network::Vgg16Bn => 11e9,
            };
            let passes = config.image_passes(settings.train_images, settings.test_images) as f64;
            let cost = 2 * Architecture::new(network, width, 10).unwrap().multiply_adds;
            work += passes * cost as f64;
        }
        let seconds = work / (2.0 * speed);
        assert!(seconds > 30.0 && seconds < 120.0, "{id}: {seconds:.0} s");
    }
}

#[test]
fn smoke_has_what_the_sample_has() {
    for table in TABLES {
        let sample = Dataset::sample(table.dataset).unwrap();
        let data = sample.subset(table.smoke.0, table.smoke.1).unwrap();
        assert_eq!((data.train.len(), data.test.len()), table.smoke);
        let b1 = table.id == "b1";
        assert_eq!(data.id.subset == "sample", b1, "{}: {}", table.id, data.id.subset);
    }
}
