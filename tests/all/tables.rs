//! The registry of tables, table B1, and what all tables share.
//!
//! - `definitions`: data, sizes, seeds, blocks and comparisons of every table, a second time
//! - `lengths`: ratios, and schedules of other lengths than the profiles'
//! - `notes`: what is said under a table, for every setting
//! - `pruning`: the chains and cells of the other tables, their shared stages and their cost
//! - `published`: the paper's numbers, a second time
//! - `rows`: what a finished chain becomes in a report
//! - `stages`: every setting of every stage, a second time

mod definitions;
mod lengths;
mod notes;
mod pruning;
mod published;
mod rows;
mod stages;

use engine::attack::Ramp;
use engine::data::{DataId, DatasetName};
use engine::experiments::pipeline::{BackendName, Plan, Precision, StageConfig, StageResult};
use engine::experiments::tables;
use engine::experiments::tables::{Cell, CellJobs, Profile, Published, Settings, TABLES, Table};
use engine::nn::optim::{LrShape, OptimizerConfig};
use engine::train::TrainConfig;
use serde_json::json;

fn settings(profile: Profile) -> Settings {
    let subset = if profile == Profile::Smoke { "sample" } else { "full" };
    Settings {
        profile,
        data: DataId { name: DatasetName::Mnist, subset: subset.into(), fingerprint: "0123456789abcdef".into() },
        train_images: if profile == Profile::Smoke { 3000 } else { 60_000 },
        test_images: if profile == Profile::Smoke { 1000 } else { 10_000 },
        methods: vec!["scratch".into()],
        cells: vec![],
        seeds: vec![0],
        epochs: None,
        autoattack: None,
        overrides: vec![],
    }
}

fn b1(settings: &Settings) -> Vec<Cell> {
    tables::cells(Table::find("b1").unwrap(), settings).unwrap()
}

fn usage_error(settings: &Settings) -> String {
    let error = tables::cells(Table::find("b1").unwrap(), settings).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn training(cell: &Cell) -> &TrainConfig {
    let [StageConfig::Train(config)] = &cell.chain[..] else { panic!("b1 cells are one training each") };
    config
}

fn names(cells: &[Cell]) -> Vec<String> {
    cells.iter().map(|cell| format!("{}:{}", cell.at.row, cell.at.column)).collect()
}

#[test]
fn unknown_tables_are_told_the_known_ones() {
    let error = Table::find("a2").err().unwrap();
    assert_eq!(error.to_string(), "unknown table 'a2'; known: a1, b1, c1, fashion, t2, t3, t4");
    assert_eq!(error.exit_code(), 2);
    let sizes = [4 + 3 * 10, 21, 4 + 10, 3 + 3 * 12, 5 + 5 + 10, 5 + 10, 5 + 5 + 2 * 10];
    assert_eq!(TABLES.iter().map(Table::size).collect::<Vec<_>>(), sizes);
}

#[test]
fn b1_is_the_papers_21_cells_with_its_numbers() {
    let cells = b1(&settings(Profile::Paper));
    assert_eq!(cells.len(), 21);
    let table = Table::find("b1").unwrap();
    for cell in &cells {
        let published = table.published(&cell.at).expect("every cell is published");
        let (natural, adversarial) = match (cell.at.row, cell.at.column) {
            ("uniform", "adam") => (78.86, 70.47),
            ("kaiming_normal", "adam") => (19.68, 19.02),
            _ => (11.35, 11.35),
        };
        assert_eq!(published, Published { natural: Some(natural), adversarial }, "{}", cell.label(table));

        let config = training(cell);
        assert_eq!(config.init.name(), cell.at.row);
        assert_eq!((config.width, config.epochs, config.batch, config.held_out), (1, 300, 64, 5000));
        let attack = config.attack.as_ref().unwrap();
        assert_eq!((attack.eps, attack.steps, attack.step_size, attack.restarts), (0.3, 40, 0.01, 1));
        assert!(attack.random_start && config.eps_schedule.ramp == Ramp::Constant);
        let rule = match config.optimizer {
            OptimizerConfig::Adam { lr, weight_decay, .. } => ("adam", lr, 0.0, weight_decay),
            OptimizerConfig::Sgd { lr, momentum, weight_decay } => ("sgd", lr, momentum, weight_decay),
        };
        let (expected, shape, milestones) = match cell.at.column {
            "adam" => (("adam", 1e-4, 0.0, 0.0), LrShape::Constant, vec![]),
            "sgd" => (("sgd", 0.1, 0.9, 0.0), LrShape::MultiStep, vec![20]),
            _ => (("sgd", 0.1, 0.9, 0.0), LrShape::Cosine, vec![]),
        };
        assert_eq!(rule, expected);
        assert_eq!((config.schedule.shape, &config.schedule.milestones), (shape, &milestones));
    }
    assert_eq!((table.seeds)(Profile::Paper), 10);
}

#[test]
fn the_warm_up_block_ramps_eps_and_has_two_adams() {
    let methods = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let quick = Settings { methods: methods(&["warmup", "scratch"]), ..settings(Profile::Quick) };
    assert_eq!(b1(&quick).len(), 21 + 28);
    for (profile, epochs) in [(Profile::Paper, 30.0), (Profile::Quick, 3.0)] {
        let cells = b1(&Settings { methods: methods(&["warmup"]), ..settings(profile) });
        for cell in &cells {
            let schedule = &training(cell).eps_schedule;
            assert_eq!((schedule.ramp, schedule.epochs), (Ramp::Cosine, epochs));
            assert_eq!(Table::find("b1").unwrap().published(&cell.at), None);
        }
        let rates: Vec<f32> = cells[..2]
            .iter()
            .map(|cell| match training(cell).optimizer {
                OptimizerConfig::Adam { lr, .. } => lr,
                OptimizerConfig::Sgd { .. } => panic!("the first two columns are Adam"),
            })
            .collect();
        assert_eq!(rates, [1e-4, 1e-3]);
    }
    let unknown = Settings { methods: methods(&["warmap"]), ..settings(Profile::Quick) };
    assert_eq!(usage_error(&unknown), "unknown method 'warmap'; did you mean 'warmup'?");
}

#[test]
fn smoke_fits_its_time() {
    let settings = settings(Profile::Smoke);
    let passes: u64 = b1(&settings).iter().map(|cell| training(cell).image_passes(3000, 1000)).sum();
    // 140,000 passes a second on two cores, 70 seconds.
    assert!(passes < 9_800_000, "{passes}");
}

#[test]
fn passes_count_every_image_through_every_step() {
    let cells = b1(&settings(Profile::Paper));
    let config = training(&cells[0]);
    assert_eq!(config.image_passes(60_000, 10_000), 300 * (55_000 * 41 + 15_000 * 42));
    let natural = TrainConfig { attack: None, held_out: 0, epochs: 1, ..config.clone() };
    assert_eq!(natural.image_passes(60_000, 10_000), 60_000 + 10_000 * 42);
}

#[test]
fn cells_are_selected_by_row_and_column() {
    let select = |patterns: &[&str]| {
        let cells = patterns.iter().map(|pattern| pattern.to_string()).collect();
        Settings { cells, ..settings(Profile::Quick) }
    };
    assert_eq!(names(&b1(&select(&["kaiming_normal:adam"]))), ["kaiming_normal:adam"]);
    assert_eq!(b1(&select(&["*:sgd"])).len(), 7);
    assert_eq!(b1(&select(&["*:sgd", "uniform:*"])).len(), 9);
    assert_eq!(b1(&select(&["*:*"])).len(), 21);
    let both = Settings { methods: vec!["scratch".into(), "warmup".into()], ..select(&["uniform:adam"]) };
    assert_eq!(names(&b1(&both)), ["uniform:adam", "uniform:adam-1e-4", "uniform:adam-1e-3"]);

    for (pattern, expected) in [
        ("kaiming_norml:adam", "did you mean 'kaiming_normal'?"),
        ("uniform:adma", "did you mean 'adam'?"),
        ("*:rmsprop", "unknown optimiser in --cells 'rmsprop'; known: adam, sgd, cosanneal"),
        ("16:1", "unknown initialiser in --cells '16'; known: uniform"),
        ("uniform", "expected ROW:COLUMN"),
        ("", "expected ROW:COLUMN"),
    ] {
        let text = usage_error(&select(&["uniform:adam", pattern]));
        assert!(text.contains(expected), "{pattern}: {text}");
    }
}

#[test]
fn seeds_multiply_cells_the_first_seed_first() {
    let settings = Settings { seeds: vec![4, 5], cells: vec!["uniform:*".into()], ..settings(Profile::Quick) };
    let cells = b1(&settings);
    assert_eq!(cells.iter().map(|cell| training(cell).seed).collect::<Vec<_>>(), [4, 4, 4, 5, 5, 5]);
    let files: std::collections::HashSet<String> = cells.iter().map(Cell::file_name).collect();
    assert_eq!(files.len(), 6);
}

#[test]
fn overrides_apply_where_they_exist_and_are_checked() {
    let with = |path: &str, value: &str| {
        let overrides = vec![(path.to_string(), value.to_string())];
        Settings { overrides, ..settings(Profile::Quick) }
    };
    assert!(b1(&with("attack.eps", "0.1")).iter().all(|cell| training(cell).attack.as_ref().unwrap().eps == 0.1));
    let with_momentum = b1(&with("optimizer.momentum", "0.5"));
    let changed = |cell: &&Cell| matches!(training(cell).optimizer, OptimizerConfig::Sgd { momentum: 0.5, .. });
    assert_eq!(with_momentum.iter().filter(changed).count(), 14);
    for (path, value, expected) in [
        ("attack.epsilon", "0.1", "did you mean 'attack.eps'?"),
        ("optimizer.momentun", "0.1", "did you mean 'optimizer.momentum'?"),
        ("attack.eps", "-0.1", "attack.eps: must be at least 0"),
        ("attack.eps", "nan", "attack.eps"),
        ("eval_attack.eps", "inf", "eval_attack.eps"),
        ("attack.steps", "0", "attack.steps: must be 1 to 10000"),
        ("attack.step_size", "-1", "attack.step_size"),
        ("batch", "0", "batch: must be 1 to 1048576"),
        ("width", "0", "width: must be 1 to 64"),
        ("held_out", "60000", "held_out: must be below the 60000 training images"),
        ("optimizer.lr", "-1", "optimizer.lr"),
        ("optimizer.momentum", "1", "optimizer.momentum: must be at least 0 and below 1"),
        ("schedule.gamma", "-1", "schedule.gamma"),
        ("eps_schedule.epochs", "-1", "eps_schedule.epochs"),
        ("network", "resnet18", "network: 'resnet18'"),
        ("epochs", "3", "use --epochs"),
        ("seed", "3", "use --seed"),
        ("data.name", "cifar10", "use --table"),
    ] {
        let text = usage_error(&with(path, value));
        assert!(text.contains(expected), "{path}={value}: {text}");
    }
    let none = Settings { epochs: Some(0), ..settings(Profile::Quick) };
    assert_eq!(usage_error(&none), "epochs: must be 1 to 100000, got 0");
}

fn result(config: &StageConfig, natural: f64, collapsed: bool) -> StageResult {
    let test = json!({
        "images": 1000, "natural": natural, "adversarial": natural - 5.0, "natural_loss": 0.1,
        "adversarial_loss": 0.2, "zero_gradient": 0.0, "constant_prediction": null,
    });
    let selected = json!({ "select": "test-best", "epoch": 3, "test": test, "held_out": null });
    let json = json!({
        "selected": selected, "candidates": [selected], "collapsed": collapsed, "parameters": 13514,
        "epochs": 5, "seconds": 2.5,
    });
    StageResult::from_json(config, json).unwrap()
}

#[test]
fn a_report_has_the_finished_cells_and_leaves_the_others_empty() {
    let table = Table::find("b1").unwrap();
    let cells_wanted = vec!["uniform:adam".into(), "normal:adam".into()];
    let settings = Settings { seeds: vec![0, 1], cells: cells_wanted, ..settings(Profile::Quick) };
    let cells = b1(&settings);
    let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
    let jobs: Vec<CellJobs> = cells.iter().map(|cell| cell.plan(table, &settings, &mut plan).unwrap()).collect();
    // Order of the jobs: uniform 0, normal 0, uniform 1, normal 1.
    let result = |natural, collapsed| Some(result(&cells[0].chain[0], natural, collapsed));
    let results = [result(90.0, false), None, result(11.35, true), None];
    let report = tables::report(table, &settings, &cells, &plan, &jobs, &results);

    assert_eq!(report.rows.iter().map(|row| row.seed).collect::<Vec<_>>(), [0, 1]);
    let row = &report.rows[0];
    assert_eq!((row.original_w, row.pruned_w), (Some(1), None));
    assert_eq!((row.init.as_deref(), row.optimizer.as_deref()), (Some("uniform"), Some("adam")));
    assert_eq!((row.natural, row.adversarial, row.attack.as_str()), (90.0, 85.0, "pgd-40"));
    assert_eq!((row.paper_natural, row.paper_adversarial), (Some(78.86), Some(70.47)));
    assert_eq!((row.epochs, row.seconds, row.stage.as_str()), (5, 2.5, plan.jobs()[0].key.as_str()));

    let [block] = &report.blocks[..] else { panic!("one method, one block") };
    assert_eq!(
        (block.rows.as_slice(), block.columns.as_slice()),
        (&["uniform".into(), "normal".into()][..], &["adam".into()][..])
    );
    let summary = block.cells[0][0].as_ref().unwrap();
    assert_eq!((summary.seeds, summary.success_rate), (2, 0.5));
    assert_eq!(block.cells[1][0], None);
}
