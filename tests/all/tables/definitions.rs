//! What the tables are, a second time: data, sizes, seeds, cells and comparisons.

use engine::experiments::tables::{BlockSpec, Profile, TABLES, Table};

const WIDTHS: &str = "Original width 1 2 4 8 16";
const PRUNABLE: &str = "Original width 2 4 8 16";
const PRUNED: &str = "Pruned width 1 2 4 8";
const INITS: &str = "Initialiser uniform normal xavier_uniform xavier_normal kaiming_uniform kaiming_normal orthogonal";

/// Method, heading, rows, columns, number of cells; `*` if it runs by default.
fn blocks(table: &Table) -> Vec<String> {
    let axis = |axis: &str, names: &[&str]| format!("{axis} {}", names.join(" "));
    let block = |block: &BlockSpec| {
        let BlockSpec { method, title, row_axis, column_axis, rows, columns, by_default, .. } = block;
        let (rows, columns) = (axis(row_axis, rows), axis(column_axis, columns));
        format!("{}{method}: {title}; {rows}; {columns}; {}", if *by_default { "*" } else { "" }, block.cells().count())
    };
    table.blocks.iter().map(block).collect()
}

fn natural() -> String {
    format!("natural-training: Dense, natural training; {WIDTHS}; Pruned width dense; 5")
}

fn adversarial() -> String {
    format!("*adversarial-training: Dense, adversarial training; {WIDTHS}; Pruned width dense; 5")
}

fn adversarial_of_those_that_are_pruned() -> String {
    format!("*adversarial-training: Dense, adversarial training; {PRUNABLE}; Pruned width dense; 4")
}

fn pruned(method: &str, title: &str) -> String {
    format!("{method}: {title}; {PRUNABLE}; {PRUNED}; 10")
}

fn admm() -> String {
    pruned("*admm", "Pruned with ADMM")
}

/// Methods that only users who ask for them get.
fn rivals() -> [String; 5] {
    [
        pruned("post-prune", "Pruned at once, retrained"),
        pruned("no-retrain", "Pruned at once, not retrained"),
        pruned("proximal", "Pruned with the proximal gradient method"),
        pruned("scratch", "The small dense network from scratch"),
        pruned("inherited", "The pruned network from its first initialisation"),
    ]
}

fn by_rate(method: &str, title: &str) -> String {
    format!("*{method}: {title}; Original width 16 8 4; Prune rate 2x 4x 8x 16x 32x; 12")
}

fn expected(id: &str) -> Vec<String> {
    match id {
        "a1" => vec![
            adversarial_of_those_that_are_pruned(),
            pruned("*post-prune", "Pruned at once, retrained"),
            pruned("*no-retrain", "Pruned at once, not retrained"),
            admm(),
        ],
        "b1" => vec![
            format!("*scratch: From scratch, as in the paper; {INITS}; Optimiser adam sgd cosanneal; 21"),
            format!("warmup: From scratch with eps warm-up; {INITS}; Optimiser adam-1e-4 adam-1e-3 sgd cosanneal; 28"),
        ],
        "c1" => vec![adversarial_of_those_that_are_pruned(), admm()],
        "fashion" => vec![
            "*adversarial-training: Dense, adversarial training; Original width 16 8 4; Pruned width dense; 3".into(),
            by_rate("post-prune", "Pruned at once, retrained"),
            by_rate("proximal", "Pruned with the proximal gradient method"),
            by_rate("admm", "Pruned with ADMM"),
        ],
        "t2" => [vec![format!("*{}", natural()), adversarial(), admm()], rivals().into()].concat(),
        "t3" => [vec![adversarial(), admm(), natural()], rivals().into()].concat(),
        "t4" => {
            vec![format!("*{}", natural()), adversarial(), admm(), pruned("*post-prune", "Pruned at once, retrained")]
        }
        other => panic!("a table that this test does not know: {other}"),
    }
}

#[test]
fn every_block_is_the_papers() {
    for table in TABLES {
        assert_eq!(blocks(table), expected(table.id), "{}", table.id);
    }
}

/// The images of a smoke run, the seeds of each profile, and what is compared.
#[test]
fn every_table_has_its_data_sizes_and_seeds() {
    let shown = |table: &Table| {
        let seeds = [Profile::Demo, Profile::Smoke, Profile::Quick, Profile::Paper].map(table.seeds);
        let (train, test) = table.smoke;
        let comparisons: Vec<String> = table.comparisons.iter().map(|(a, b)| format!("{a} - {b}")).collect();
        format!("{} {} {train}+{test} {seeds:?} {}", table.id, table.dataset, comparisons.join(", "))
    };
    let four = "admm - post-prune, admm - proximal, admm - scratch, admm - inherited";
    assert_eq!(
        TABLES.iter().map(shown).collect::<Vec<_>>(),
        [
            "a1 cifar10 30+10 [1, 1, 1, 3] admm - post-prune",
            "b1 mnist 3000+1000 [1, 1, 1, 10] ",
            "c1 mnist 400+200 [1, 1, 1, 3] ",
            "fashion fashion-mnist 150+50 [1, 1, 1, 3] admm - post-prune, admm - proximal",
            &format!("t2 mnist 400+200 [1, 1, 1, 3] {four}"),
            &format!("t3 cifar10 300+100 [1, 1, 1, 3] {four}"),
            "t4 cifar10 30+10 [1, 1, 1, 3] admm - post-prune",
        ]
    );
}
