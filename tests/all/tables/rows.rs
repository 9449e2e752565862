use engine::experiments::pipeline::{BackendName, Plan, Precision, StageConfig, StageResult};
use engine::experiments::report::{Report, Row};
use engine::experiments::tables;
use engine::experiments::tables::{Profile, Settings, Table};
use serde_json::{Value, json};

use super::pruning::{add, cells, settings};

fn measured(natural: f64) -> Value {
    json!({
        "images": 1000, "natural": natural, "adversarial": natural - 5.0, "natural_loss": 0.1,
        "adversarial_loss": 0.2, "zero_gradient": 0.0, "constant_prediction": null,
    })
}

/// What a stage might have left, after two seconds.
fn result(config: &StageConfig, natural: f64) -> StageResult {
    let test = measured(natural);
    let json = match config {
        StageConfig::Import(_) => json!({}),
        StageConfig::Train(config) => {
            let selected = json!({ "select": "last", "epoch": 1, "test": test, "held_out": null });
            json!({
                "selected": selected, "candidates": [selected], "collapsed": false, "parameters": 1,
                "epochs": config.epochs, "seconds": 2.0,
            })
        }
        StageConfig::Prune(_) => {
            let sparsity = json!({
                "layers": [], "parameters": 2, "parameters_kept": 1, "conv_compression": 2.0, "compression": 2.0,
                "multiply_adds": 2, "multiply_adds_kept": 1,
            });
            json!({
                "before": measured(90.0), "after": test, "sparsity": sparsity, "collapsed": true, "seconds": 2.0,
            })
        }
        StageConfig::Eval(_) => json!({ "test": test, "collapsed": false, "seconds": 2.0 }),
        StageConfig::Suite(config) => {
            let spent = vec![json!({ "seconds": 1.0, "cost": { "queries": 5, "gradients": 4 } }); 4];
            let after: Vec<f64> = (1..=4).map(|attack| natural - f64::from(attack)).collect();
            json!({ "images": config.images, "natural": natural, "after": after, "spent": spent, "seconds": 2.0 })
        }
    };
    StageResult::from_json(config, json).unwrap()
}

/// The report of a table whose job `i` has natural accuracy `i`.
fn report(id: &str, methods: &[&str], patterns: &[&str]) -> Report {
    report_with(id, methods, patterns, None)
}

/// The same, with AutoAttack on so many images.
fn report_with(id: &str, methods: &[&str], patterns: &[&str], autoattack: Option<usize>) -> Report {
    report_of(id, &Settings { autoattack, ..selected(id, methods, patterns) })
}

fn selected(id: &str, methods: &[&str], patterns: &[&str]) -> Settings {
    Settings {
        methods: methods.iter().map(|method| method.to_string()).collect(),
        cells: patterns.iter().map(|pattern| pattern.to_string()).collect(),
        ..settings(id, Profile::Quick)
    }
}

fn report_of(id: &str, settings: &Settings) -> Report {
    let table = Table::find(id).unwrap();
    let cells = cells(id, settings);
    let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
    let jobs = add(&mut plan, id, settings, &cells);
    let results: Vec<Option<StageResult>> =
        plan.jobs().iter().enumerate().map(|(i, job)| Some(result(&job.stage.config, i as f64))).collect();
    tables::report(table, settings, &cells, &plan, &jobs, &results)
}

#[test]
fn every_column_of_a_row_is_that_of_its_cell() {
    let report = report_of("t2", &Settings { seeds: vec![6], ..selected("t2", &["admm"], &["4:1"]) });
    let stage = report.rows[0].stage.clone();
    assert_eq!(stage.len(), 16);
    let expected = Row {
        table: "t2".into(),
        dataset: "mnist".into(),
        network: "lenet".into(),
        method: "admm".into(),
        init: None,
        optimizer: None,
        original_w: Some(4),
        pruned_w: Some(1),
        seed: 6,
        natural: 3.0,
        adversarial: -2.0,
        attack: "pgd-40".into(),
        collapsed: false,
        paper_natural: Some(96.22),
        paper_adversarial: Some(89.41),
        profile: "quick".into(),
        backend: "cpu".into(),
        precision: "f32".into(),
        epochs: 5 + 3 + 3,
        seconds: 8.0,
        stage,
        autoattack: None,
    };
    assert_eq!(report.rows, [expected]);
}

/// A user may have changed what a cell is named after, and the attack that measures.
#[test]
fn rows_say_what_was_done_and_not_what_the_cell_is_called() {
    let overrides = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect::<Vec<_>>()
    };
    let changed = [("init", "orthogonal"), ("width", "2"), ("eval_attack.steps", "7"), ("eval_attack.restarts", "3")];
    let b1 = Settings { overrides: overrides(&changed), ..selected("b1", &["scratch"], &["uniform:sgd"]) };
    let [row] = &report_of("b1", &b1).rows[..] else { panic!("one cell") };
    assert_eq!((row.init.as_deref(), row.optimizer.as_deref()), (Some("orthogonal"), Some("sgd")));
    assert_eq!((row.original_w, row.pruned_w, &*row.attack), (Some(2), None, "pgd-7x3"));
    let margin = [("eval_attack.loss", "margin"), ("eval_attack.steps", "9")];
    let t2 = Settings { overrides: overrides(&margin), ..selected("t2", &["admm"], &["4:1"]) };
    assert_eq!(report_of("t2", &t2).rows[0].attack, "cw-9");
}

/// The suite attacks as many images as were asked for, in the ball that the user has chosen.
#[test]
fn a_suite_takes_over_images_and_radius() {
    let overrides = vec![("eval_attack.eps".to_string(), "0.2".to_string())];
    let chosen = Settings { overrides, autoattack: Some(50), ..selected("t2", &["admm"], &["4:1"]) };
    let [cell] = &cells("t2", &chosen)[..] else { panic!("one cell") };
    let Some(StageConfig::Suite(suite)) = &cell.suite else { panic!("no suite") };
    assert_eq!((suite.images, suite.width, suite.sparsity.unwrap().ratio), (50, 4, 0.75));
    assert_eq!(suite.attacks, engine::attack::config::standard(0.2));
}

/// What progress and failures call a stage, and the stem of a file.
#[test]
fn stages_are_called_by_method_cell_seed_and_part() {
    let labels = |id: &str, method: &str, cell: &str, autoattack| -> (String, Vec<String>) {
        let chosen = Settings { seeds: vec![3], autoattack, ..selected(id, &[method], &[cell]) };
        let cells = cells(id, &chosen);
        let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
        add(&mut plan, id, &chosen, &cells);
        (cells[0].file_name(), plan.jobs().iter().map(|job| job.label.clone()).collect())
    };
    let named =
        |cell: &str, parts: &[&str]| parts.iter().map(|part| format!("{cell} seed 3{part}")).collect::<Vec<_>>();
    assert_eq!(
        labels("t2", "admm", "4:1", None),
        ("admm-4-1-3".into(), named("admm 4:1", &[", dense", ", ADMM", ", pruning", ", retraining"]))
    );
    let proximal = [", dense", ", proximal gradient", ", pruning", ", retraining", ", AutoAttack"];
    assert_eq!(labels("t2", "proximal", "4:1", Some(9)), ("proximal-4-1-3".into(), named("proximal 4:1", &proximal)));
    let dense = ("adversarial-training-4-dense-3".into(), named("adversarial-training 4:dense", &["", ", AutoAttack"]));
    assert_eq!(labels("t2", "adversarial-training", "4:dense", Some(9)), dense);
    let c1 = labels("c1", "adversarial-training", "4:dense", None);
    assert_eq!(c1.1, named("adversarial-training 4:dense", &[", dense", ", measurement"]));
}

#[test]
fn a_row_is_the_end_of_its_chain_and_the_cost_of_all_of_it() {
    let report = report("t2", &["adversarial-training", "admm"], &["4:dense", "4:1"]);
    let [dense, admm] = &report.rows[..] else { panic!("{:?}", report.rows) };
    assert_eq!((&*dense.method, dense.original_w, dense.pruned_w), ("adversarial-training", Some(4), None));
    assert_eq!((&*admm.method, admm.original_w, admm.pruned_w), ("admm", Some(4), Some(1)));
    assert_eq!((admm.init.as_deref(), admm.optimizer.as_deref(), &*admm.network), (None, None, "lenet"));
    // Jobs: dense 0, ADMM 1, prune 2, retraining 3.
    assert_eq!((dense.natural, admm.natural, admm.adversarial), (0.0, 3.0, -2.0));
    assert_eq!((dense.epochs, dense.seconds), (5, 2.0));
    assert_eq!((admm.epochs, admm.seconds, &*admm.attack), (11, 8.0, "pgd-40"));
    assert_eq!((admm.paper_natural, admm.paper_adversarial), (Some(96.22), Some(89.41)));
    let titles: Vec<&str> = report.blocks.iter().map(|block| &*block.title).collect();
    assert_eq!(titles, ["Dense, adversarial training", "Pruned with ADMM"]);
    assert_eq!((&report.blocks[1].rows[..], &report.blocks[1].columns[..]), (&["4".into()][..], &["1".into()][..]));
}

#[test]
fn other_stages_end_a_chain_too() {
    let c1 = report("c1", &["admm"], &["2:1"]);
    let [row] = &c1.rows[..] else { panic!("{:?}", c1.rows) };
    assert_eq!((&*row.attack, row.natural, row.epochs), ("cw-40", 4.0, 11));
    assert_eq!((row.paper_natural, row.paper_adversarial), (None, Some(11.35)));

    let a1 = report("a1", &["no-retrain"], &["2:1"]);
    let [row] = &a1.rows[..] else { panic!("{:?}", a1.rows) };
    assert_eq!((row.natural, row.collapsed, row.epochs, &*row.network), (1.0, true, 4, "resnet18"));
}

#[test]
fn methods_that_were_run_are_compared_cell_by_cell() {
    let a1 = report("a1", &["adversarial-training", "post-prune", "admm"], &["2:1", "4:1"]);
    let [comparison] = &a1.comparisons[..] else { panic!("{:?}", a1.comparisons) };
    assert_eq!(comparison.title, "admm − post-prune");
    assert_eq!((&comparison.rows[..], &comparison.columns[..]), (&["2".into(), "4".into()][..], &["1".into()][..]));
    // Jobs: 2:1 dense 0, prune 1, retraining 2; 4:1 dense 3, 4, 5; then ADMM 6, 7, 8 and 9, 10, 11.
    let gaps: Vec<_> = comparison.gaps().map(|gap| (gap.natural, gap.paper_natural)).collect();
    assert_eq!(gaps, [(8.0 - 2.0, Some(64.53 - 64.39)), (11.0 - 5.0, Some(64.36 - 62.49))]);

    assert!(report("a1", &["admm"], &["2:1"]).comparisons.is_empty());
    let t2 = report("t2", &["admm", "proximal", "scratch"], &["2:1"]);
    let titles: Vec<&str> = t2.comparisons.iter().map(|comparison| &*comparison.title).collect();
    assert_eq!(titles, ["admm − proximal", "admm − scratch"]);
}

#[test]
fn a_width_that_is_no_whole_number_is_left_out() {
    let report = report("fashion", &["admm"], &["16:*"]);
    let widths: Vec<_> = report.rows.iter().map(|row| (row.original_w, row.pruned_w)).collect();
    let original = Some(16);
    let pruned = [Some(8), Some(4), Some(2), Some(1), None];
    assert_eq!(widths, pruned.map(|pruned| (original, pruned)));
}

/// The ensemble is a stage beside the chain: it changes nothing but its own column.
#[test]
fn autoattack_is_a_column_of_its_own() {
    let plain = report("t2", &["admm"], &["4:1"]);
    let attacked = report_with("t2", &["admm"], &["4:1"], Some(500));
    // Jobs: dense 0, ADMM 1, prune 2, retraining 3, AutoAttack 4, with 4 - 4 after the last attack.
    assert_eq!(attacked.rows[0].autoattack, Some(0.0));
    let mut row = attacked.rows[0].clone();
    row.autoattack = None;
    assert_eq!(row, plain.rows[0]);
    assert_eq!(attacked.blocks[0].cells[0][0].as_ref().unwrap().autoattack, Some(0.0));
    let mut csv = Vec::new();
    engine::experiments::report::csv::write_csv(&attacked, &mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    assert!(csv.lines().nth(1).unwrap().ends_with(",0,"), "{csv}");
    let markdown = engine::experiments::report::markdown::markdown(&attacked);
    assert!(markdown.contains("AutoAttack | 0.00"), "{markdown}");
    assert!(engine::experiments::report::terminal::terminal(&attacked).contains("AutoAttack 0.00"));
    assert!(engine::experiments::report::svg::table_svg(&attacked).unwrap().contains("AA 0.00"));
    assert!(!engine::experiments::report::markdown::markdown(&plain).contains("AutoAttack"));
}

/// Every cell has its suite, on the model of its chain, in the ball in which it is measured.
#[test]
fn suites_attack_what_the_chain_leaves() {
    for id in ["a1", "c1", "t2"] {
        let table = Table::find(id).unwrap();
        let settings = Settings { autoattack: Some(20_000), ..settings(id, Profile::Quick) };
        let cells = cells(id, &settings);
        let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
        for cell in &cells {
            let jobs = cell.plan(table, &settings, &mut plan).unwrap();
            let suite = &plan.jobs()[jobs.suite.unwrap().index()].stage;
            let StageConfig::Suite(config) = &suite.config else { panic!("{id}: {suite:?}") };
            assert_eq!((config.images, config.seed, config.attacks.len()), (10_000, cell.at.seed, 4));
            assert_eq!(config.attacks[0].eps(), cell.chain.last().unwrap().eval_attack().unwrap().eps);
            let [parent] = &suite.parents[..] else { panic!("{id}: {suite:?}") };
            let parent = plan.jobs().iter().find(|job| job.key == *parent).unwrap();
            assert!(!matches!(parent.stage.config, StageConfig::Eval(_)), "{id}: no model");
            assert_eq!(plan.jobs()[jobs.chain.last().unwrap().index()].key == parent.key, id != "c1", "{id}");
        }
    }
}

/// What a run has left out stands in its place, with the paper's numbers; a place without a cell stays empty.
#[test]
fn the_whole_grid_shows_what_was_not_run() {
    let whole = |id: &str, methods: &[&str], cells: &[&str]| {
        tables::whole_grid(Table::find(id).unwrap(), &report(id, methods, cells))
    };
    let t2 = whole("t2", &["admm", "scratch"], &["4:1"]);
    let titles: Vec<&str> = t2.blocks.iter().map(|block| block.title.as_str()).collect();
    let [natural, adversarial, admm, scratch] = &t2.blocks[..] else { panic!("{titles:?}") };
    assert_eq!((natural.cells.len(), adversarial.cells.len()), (5, 5), "they run by default: {titles:?}");
    assert!(natural.summaries().next().is_none() && natural.not_run(4, 0).is_some());
    for block in [admm, scratch] {
        assert_eq!((block.rows.join(" "), block.columns.join(" ")), ("2 4 8 16".into(), "1 2 4 8".into()));
        let places = |r: usize| (0..4).map(move |c| (block.cell(r, c).is_some(), block.not_run(r, c).is_some()));
        assert_eq!(places(0).collect::<Vec<_>>(), [(false, true), (false, false), (false, false), (false, false)]);
        assert_eq!(places(1).collect::<Vec<_>>(), [(true, false), (false, true), (false, false), (false, false)]);
        assert!(block.has_place(1, 0) && block.has_place(1, 1) && !block.has_place(1, 2));
    }
    let published = admm.not_run(3, 2).unwrap();
    assert_eq!((published.paper_natural, published.paper_adversarial), (Some(98.87), Some(94.77)));
    assert_eq!(scratch.not_run(3, 2).unwrap().paper_adversarial, None);
    assert_eq!((t2.rows.len(), t2.comparisons.len()), (2, 1), "rows and comparisons are those of the run");

    // No filter of the first layer would be left.
    let fashion = whole("fashion", &["admm"], &["4:8x"]);
    let admm = fashion.blocks.iter().find(|block| block.title == "Pruned with ADMM").unwrap();
    assert!(admm.cell(2, 2).is_some() && admm.has_place(2, 1) && !admm.has_place(2, 3) && admm.has_place(0, 4));
}
