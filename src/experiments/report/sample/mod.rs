//! Made-up tables for the tests. One with two blocks, one seed and three, collapsed cells, empty cells, unpublished
//! cells; one with triangles of widths and their comparison; one of prune rates.

pub mod chains;

use std::path::Path;
use std::{env, fs};

use super::run_record::{DataRecord, Machine, RunRecord};
use super::{Block, Comparison, Report, Row, Summary, group};
use crate::data::{DataId, DatasetName};

/// The picture in these bytes is the one in this folder, which somebody has looked at; `read` says what counts of a file.
pub fn assert_shows<T: PartialEq>(name: &str, picture: &[u8], read: impl Fn(&[u8]) -> T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/experiments/report/sample").join(name);
    if !fs::read(&path).is_ok_and(|known| read(&known) == read(picture)) {
        let new = env::temp_dir().join(name);
        fs::write(&new, picture).unwrap();
        panic!("not {}: look at {}; if it is right, copy it there", path.display(), new.display());
    }
}

/// The record of a made-up run.
pub fn record() -> RunRecord {
    RunRecord {
        command: ["engine", "run", "--table", "b1"].map(String::from).to_vec(),
        version: "0.1.0".into(),
        commit: None,
        table: "b1".into(),
        profile: "smoke".into(),
        fingerprint: "fedcba9876543210".into(),
        seeds: vec![0, 1, u64::MAX],
        data: vec![DataRecord {
            id: DataId { name: DatasetName::Mnist, subset: "sample".into(), fingerprint: "0123456789abcdef".into() },
            origin: "embedded sample".into(),
        }],
        machine: Machine {
            os: "linux".into(),
            arch: "x86_64".into(),
            cpu: None,
            threads: 2,
            backend: "cpu".into(),
            gpu: None,
        },
        config: serde_json::json!({ "epochs": 2, "lr": 1e-4 }),
        wall_seconds: 12.5,
    }
}

/// A row of a made-up table B1.
pub fn row(init: &str, optimizer: &str, seed: u64, accuracy: (f64, f64), paper: Option<(f64, f64)>) -> Row {
    Row {
        table: "b1".into(),
        dataset: "mnist".into(),
        network: "lenet".into(),
        method: "scratch".into(),
        init: Some(init.into()),
        optimizer: Some(optimizer.into()),
        original_w: Some(1),
        pruned_w: None,
        seed,
        natural: accuracy.0,
        adversarial: accuracy.1,
        attack: "pgd-40".into(),
        collapsed: accuracy.0 == accuracy.1,
        paper_natural: paper.map(|p| p.0),
        paper_adversarial: paper.map(|p| p.1),
        profile: "quick".into(),
        backend: "cpu".into(),
        precision: "f32".into(),
        epochs: 2,
        seconds: 1.5,
        stage: format!("stage-{init}-{optimizer}-{seed}"),
        autoattack: None,
    }
}

/// One cell from the `(natural, adversarial)` of its seeds.
pub fn summary(seeds: &[(f64, f64)], paper: Option<(f64, f64)>) -> Summary {
    let rows: Vec<Row> = (0..).zip(seeds).map(|(seed, a)| row("uniform", "adam", seed, *a, paper)).collect();
    Summary::of(&rows).expect("at least one seed")
}

/// The made-up table.
pub fn report() -> Report {
    const COLLAPSE: (f64, f64) = (11.35, 11.35);
    let scratch = vec![
        row("uniform", "adam", 0, (95.4, 88.1), Some((78.86, 70.47))),
        row("uniform", "adam", 1, (94.81, 87.25), Some((78.86, 70.47))),
        row("uniform", "adam", 2, COLLAPSE, Some((78.86, 70.47))),
        row("uniform", "sgd", 0, COLLAPSE, Some(COLLAPSE)),
        row("kaiming_normal", "sgd", 0, (92.0, 80.0), Some(COLLAPSE)),
    ];
    let warmup: Vec<Row> = [(96.5, 90.0), (97.0, 91.0), (97.5, 92.0)]
        .into_iter()
        .zip(0..)
        .map(|(accuracy, seed)| Row { method: "warmup".into(), ..row("uniform", "adam", seed, accuracy, None) })
        .collect();
    Report {
        id: "b1".into(),
        title: "Table B1: initialisers and optimisers, LeNet w=1 on MNIST".into(),
        settings: vec!["Training: 2 epochs; Adam 0.0001.".into()],
        differences: vec!["data: training images 100, in the paper 60000".into()],
        notes: vec!["Profile quick on the CPU, f32; MNIST from data/mnist.".into(), "Not comparable | made up.".into()],
        blocks: vec![
            block("From scratch", &["uniform", "kaiming_normal"], &["adam", "sgd"], &scratch),
            block("With eps warm-up", &["uniform"], &["adam"], &warmup),
        ],
        comparisons: vec![],
        majority: 11.35,
        rows: [scratch, warmup].concat(),
    }
}

/// A block of one method's rows, initialisers down and optimisers across.
pub fn block(title: &str, inits: &[&str], optimizers: &[&str], rows: &[Row]) -> Block {
    let cells = group(rows);
    let find = |init: &str, optimizer: &str| {
        let of_cell = |row: &Row| row.init.as_deref() == Some(init) && row.optimizer.as_deref() == Some(optimizer);
        cells.iter().find(|cell| of_cell(cell[0])).and_then(|cell| Summary::of(cell))
    };
    Block {
        title: title.into(),
        row_axis: "Initialiser".into(),
        column_axis: "Optimiser".into(),
        rows: inits.iter().map(|s| s.to_string()).collect(),
        columns: optimizers.iter().map(|s| s.to_string()).collect(),
        not_run: vec![],
        cells: inits.iter().map(|i| optimizers.iter().map(|o| find(i, o)).collect()).collect(),
    }
}

/// Two methods in triangles of widths, and what one gains over the other: with a spread, with one seed, published and
/// not, not run.
pub fn widths() -> Report {
    let post = widths_block(
        "Post-prune",
        [
            [Some(summary(&[(90.5, 80.0), (91.1, 80.8), (90.2, 79.9)], Some((90.1, 79.5)))), None, None],
            [Some(summary(&[(92.0, 83.0)], Some((92.5, 82.0)))), Some(summary(&[(94.0, 86.0)], None)), None],
            [Some(summary(&[(88.0, 75.5)], Some((87.2, 76.0)))), None, Some(summary(&[(95.0, 88.0)], None))],
        ],
    );
    let admm = widths_block(
        "ADMM",
        [
            [Some(summary(&[(92.1, 81.0), (92.5, 81.2), (92.3, 81.1)], Some((91.0, 80.0)))), None, None],
            [Some(summary(&[(91.5, 82.7)], Some((93.0, 83.1)))), Some(summary(&[(94.2, 86.0)], None)), None],
            [Some(summary(&[(94.5, 82.0)], Some((91.1, 77.8)))), Some(summary(&[(94.0, 85.0)], None)), None],
        ],
    );
    let comparisons = Comparison::of("ADMM − post-prune", &admm, &post).into_iter().collect();
    Report { blocks: vec![post, admm], title: "Table X: widths".into(), comparisons, rows: vec![], ..report() }
}

/// A block of three original widths, pruned to 1, 2 and 4.
fn widths_block(title: &str, cells: [[Option<Summary>; 3]; 3]) -> Block {
    Block {
        title: title.into(),
        row_axis: "Original w".into(),
        column_axis: "Pruned w".into(),
        rows: ["4", "8", "16"].map(String::from).into(),
        columns: ["1", "2", "4"].map(String::from).into(),
        cells: cells.map(Vec::from).into(),
        not_run: vec![],
    }
}

/// Two methods over three prune rates for two widths, two seeds; one cell was not run.
pub fn rates() -> Report {
    let block = |title: &str, loss: f64| {
        let cell = |rate: f64| {
            let natural = 90.0 - loss * rate;
            Some(summary(&[(natural, natural - 12.0), (natural - 3.0, natural - 20.0)], None))
        };
        Block {
            title: title.into(),
            row_axis: "Original w".into(),
            column_axis: "Prune rate".into(),
            rows: ["8", "16"].map(String::from).into(),
            columns: ["2x", "8x", "32x"].map(String::from).into(),
            cells: vec![[2.0, 8.0, 32.0].map(cell).into(), [1.0, 4.0, 16.0].map(cell).into()],
            not_run: vec![],
        }
    };
    let mut blocks = vec![block("Post-prune", 2.0), block("ADMM", 0.5)];
    blocks[0].cells[0][2] = None;
    Report { title: "Table Y: prune rates".into(), blocks, rows: vec![], ..report() }
}
