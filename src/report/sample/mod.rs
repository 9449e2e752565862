//! A made-up table for the tests: two blocks, one seed and three, collapsed cells, empty cells, unpublished cells.

use super::{Block, Report, Row, Summary, group};

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
        notes: vec!["Profile quick on the CPU, f32; MNIST from data/mnist.".into(), "Not comparable | made up.".into()],
        blocks: vec![
            block("From scratch", &["uniform", "kaiming_normal"], &["adam", "sgd"], &scratch),
            block("With eps warm-up", &["uniform"], &["adam"], &warmup),
        ],
        comparisons: vec![],
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
        cells: inits.iter().map(|i| optimizers.iter().map(|o| find(i, o)).collect()).collect(),
    }
}
