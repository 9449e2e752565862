//! The outputs of a table run: rows of `table.csv`, grids in the paper's layout, pictures.
//!
//! Every writer is a pure function of the [`Report`]: the same rows give the same bytes, and the caller decides where
//! they go.
//!
//! | file | writer |
//! |---|---|
//! | `table.csv` | [`csv::write_csv`] |
//! | `report.html` | [`page::Page::html`] |
//! | `table.md` | [`markdown::markdown`] |
//! | `table.svg` | [`svg::table_svg`] |
//! | `rates.svg` | [`rates::rates_svg`] |
//! | `curves.svg` of a stage | [`curves::curves_svg`] |
//! | `grid-000.png` of `engine attack` | [`grid::Grid::png`] |
//! | `result.json` of `engine attack` | [`attack_record::AttackRecord`] |
//! | `run.json` | [`run_record::RunRecord::write`] |
//! | the terminal | [`terminal::terminal`] |

pub mod attack_record;
mod comparison;
pub mod csv;
pub mod curves;
pub mod grid;
mod layout;
mod legend;
pub mod markdown;
mod numbers;
pub mod page;
mod paint;
pub mod rates;
pub mod run_record;
pub mod svg;
pub mod terminal;
pub mod verdicts;
mod wrap;

#[cfg(test)]
mod sample;

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};

pub use comparison::{Comparison, Gap};

/// One seed of one cell: a row of `table.csv`. Accuracies in percent; empty where a column does not apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Table id: `b1`.
    pub table: String,
    pub dataset: String,
    pub network: String,
    pub method: String,
    pub init: Option<String>,
    pub optimizer: Option<String>,
    pub original_w: Option<usize>,
    pub pruned_w: Option<usize>,
    pub seed: u64,
    pub natural: f64,
    pub adversarial: f64,
    /// The attack's name at test time: `pgd-40`.
    pub attack: String,
    pub collapsed: bool,
    pub paper_natural: Option<f64>,
    pub paper_adversarial: Option<f64>,
    pub profile: String,
    pub backend: String,
    pub precision: String,
    pub epochs: usize,
    pub seconds: f64,
    /// Key of the stage that ends the cell's chain.
    pub stage: String,
    /// Accuracy under the AutoAttack ensemble, if it was asked for.
    pub autoattack: Option<f64>,
}

/// All seeds of one cell put together. Percent; the spread is the sample standard deviation, `None` for one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub seeds: usize,
    pub natural: f64,
    pub natural_std: Option<f64>,
    pub adversarial: f64,
    pub adversarial_std: Option<f64>,
    /// Mean over the seeds that have one.
    pub autoattack: Option<f64>,
    pub autoattack_std: Option<f64>,
    /// Fraction of the seeds that did not collapse, 0 to 1.
    pub success_rate: f64,
    pub paper_natural: Option<f64>,
    pub paper_adversarial: Option<f64>,
}

/// A rectangle of cells as the paper prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// "From scratch", "With eps warm-up", …
    pub title: String,
    /// Title of the row axis: "Initialiser".
    pub row_axis: String,
    /// Title of the column axis: "Optimiser".
    pub column_axis: String,
    pub rows: Vec<String>,
    pub columns: Vec<String>,
    /// `cells[row][column]`; `None` where nothing was run.
    pub cells: Vec<Vec<Option<Summary>>>,
    /// The cells that the run has left out, in the same places; empty if the block shows only those that it has not.
    pub not_run: Vec<Vec<Option<NotRun>>>,
}

/// A cell that the run has left out, with the paper's numbers for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotRun {
    pub paper_natural: Option<f64>,
    pub paper_adversarial: Option<f64>,
}

/// A whole table.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Table id: `b1`.
    pub id: String,
    /// One line: what the table compares.
    pub title: String,
    /// Profile, backend, data, seeds; and that the numbers are not comparable, where that is so.
    pub notes: Vec<String>,
    /// How the networks were trained, pruned and measured.
    pub settings: Vec<String>,
    /// The settings that are not the published ones.
    pub differences: Vec<String>,
    pub rows: Vec<Row>,
    pub blocks: Vec<Block>,
    /// Differences of two blocks, shown below them.
    pub comparisons: Vec<Comparison>,
    /// Share of the test images that the best constant answer is right on, percent.
    pub majority: f64,
}

impl Summary {
    /// Puts the seeds of one cell together; `None` without rows. The order of the rows does not matter. A NaN among
    /// the accuracies makes their mean and spread NaN. The published values are those of the first row.
    pub fn of<R: Borrow<Row>>(rows: &[R]) -> Option<Summary> {
        let rows: Vec<&Row> = rows.iter().map(Borrow::borrow).collect();
        let first = rows.first()?;
        let (natural, natural_std) = mean_and_std(rows.iter().map(|row| row.natural));
        let (adversarial, adversarial_std) = mean_and_std(rows.iter().map(|row| row.adversarial));
        let autoattack: Vec<f64> = rows.iter().filter_map(|row| row.autoattack).collect();
        let (autoattack, autoattack_std) = match autoattack.is_empty() {
            true => (None, None),
            false => {
                let (mean, std) = mean_and_std(autoattack.into_iter());
                (Some(mean), std)
            }
        };
        let trained = rows.iter().filter(|row| !row.collapsed).count();
        Some(Summary {
            seeds: rows.len(),
            natural,
            natural_std,
            adversarial,
            adversarial_std,
            autoattack,
            autoattack_std,
            success_rate: trained as f64 / rows.len() as f64,
            paper_natural: first.paper_natural,
            paper_adversarial: first.paper_adversarial,
        })
    }

    /// Number of seeds that did not collapse.
    pub fn trained(&self) -> usize {
        (self.success_rate * self.seeds as f64).round() as usize
    }

    /// True if no seed trained.
    pub fn collapsed(&self) -> bool {
        self.trained() == 0
    }

    /// True if the paper has a number for this cell.
    pub fn is_published(&self) -> bool {
        self.paper_natural.is_some() || self.paper_adversarial.is_some()
    }
}

impl Block {
    /// The cell at (`row`, `column`); `None` where nothing was run.
    pub fn cell(&self, row: usize, column: usize) -> Option<&Summary> {
        self.cells.get(row)?.get(column)?.as_ref()
    }

    /// Whether there could be a cell at (`row`, `column`): a grid of widths is a triangle, no network is pruned to its
    /// own width or a larger one.
    pub fn has_place(&self, row: usize, column: usize) -> bool {
        match self.not_run.is_empty() {
            true => has_place(&self.rows[row], &self.columns[column]),
            false => self.cell(row, column).is_some() || self.not_run(row, column).is_some(),
        }
    }

    /// The cell at (`row`, `column`) that the run has left out, if it has.
    pub fn not_run(&self, row: usize, column: usize) -> Option<&NotRun> {
        self.not_run.get(row)?.get(column)?.as_ref()
    }

    /// All cells that were run.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.cells.iter().flatten().flatten()
    }
}

fn has_place(row: &str, column: &str) -> bool {
    match (row.parse::<usize>(), column.parse::<usize>()) {
        (Ok(original), Ok(pruned)) => pruned < original,
        _ => true,
    }
}

/// Groups rows into cells: rows that agree in everything but seed and result. Cells come in the order of their first
/// row, the rows of a cell by seed.
pub fn group(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut cells: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match cells.iter_mut().find(|cell| same_cell(cell[0], row)) {
            Some(cell) => cell.push(row),
            None => cells.push(vec![row]),
        }
    }
    for cell in &mut cells {
        cell.sort_by_key(|row| row.seed);
    }
    cells
}

fn same_cell(a: &Row, b: &Row) -> bool {
    fn what(r: &Row) -> impl PartialEq + '_ {
        (&r.table, &r.dataset, &r.network, &r.method, &r.init, &r.optimizer, r.original_w, r.pruned_w)
    }
    fn how(r: &Row) -> impl PartialEq + '_ {
        (&r.attack, &r.profile, &r.backend, &r.precision, r.epochs)
    }
    what(a) == what(b) && how(a) == how(b)
}

/// Mean and sample standard deviation; the deviation is `None` for fewer than two values. Sums in ascending order, so
/// that the last bit does not depend on which seed finished first.
fn mean_and_std(values: impl Iterator<Item = f64>) -> (f64, Option<f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_three_seeds() {
        let cell = sample::summary(&[(90.0, 80.0), (94.0, 86.0), (11.0, 11.0)], Some((1.0, 2.0)));
        assert_eq!((cell.seeds, cell.natural, cell.adversarial), (3, 65.0, 59.0));
        // Deviations 25, 29 and -54; 21, 27 and -48.
        assert!((cell.natural_std.unwrap() - (4382.0f64 / 2.0).sqrt()).abs() < 1e-12);
        assert!((cell.adversarial_std.unwrap() - (3474.0f64 / 2.0).sqrt()).abs() < 1e-12);
        assert_eq!((cell.success_rate, cell.trained(), cell.collapsed()), (2.0 / 3.0, 2, false));
        assert_eq!((cell.paper_natural, cell.paper_adversarial), (Some(1.0), Some(2.0)));
    }

    #[test]
    fn summary_of_one_seed_has_no_spread_and_of_none_is_none() {
        let cell = sample::summary(&[(11.35, 11.35)], None);
        assert_eq!((cell.natural_std, cell.adversarial_std), (None, None));
        assert!(cell.collapsed() && !cell.is_published());
        assert_eq!(Summary::of::<Row>(&[]), None);
    }

    #[test]
    fn a_nan_is_not_averaged_away() {
        let cell = sample::summary(&[(90.0, f64::NAN), (94.0, 86.0)], None);
        assert!(cell.adversarial.is_nan() && cell.adversarial_std.is_some_and(f64::is_nan));
        assert_eq!(cell.natural, 92.0);
    }

    #[test]
    fn the_order_of_the_seeds_does_not_change_a_bit() {
        let cell = sample::summary(&[(0.1, 0.2), (0.3, 0.7), (95.37, 88.13)], None);
        let back = sample::summary(&[(95.37, 88.13), (0.3, 0.7), (0.1, 0.2)], None);
        assert_eq!(cell, back);
    }

    #[test]
    fn autoattack_is_that_of_the_seeds_that_have_it() {
        let row = |seed, autoattack| Row { autoattack, ..sample::row("uniform", "adam", seed, (90.0, 80.0), None) };
        let summary = |values: &[Option<f64>]| {
            let rows: Vec<Row> = (0..).zip(values).map(|(seed, value)| row(seed, *value)).collect();
            let cell = Summary::of(&rows).unwrap();
            assert_eq!(cell.seeds, values.len());
            (cell.autoattack, cell.autoattack_std)
        };
        assert_eq!(summary(&[Some(70.0), None, Some(74.0)]), (Some(72.0), Some(8.0f64.sqrt())));
        assert_eq!(summary(&[None, Some(70.0)]), (Some(70.0), None));
        assert_eq!(summary(&[None, None]), (None, None));
    }

    /// Seeds that trained are counted, not those whose accuracies differ.
    #[test]
    fn success_is_the_share_of_seeds_that_did_not_collapse() {
        let row = |seed, collapsed| Row { collapsed, ..sample::row("uniform", "adam", seed, (90.0, 80.0), None) };
        let of = |collapsed: &[bool]| {
            let rows: Vec<Row> = (0..).zip(collapsed).map(|(seed, c)| row(seed, *c)).collect();
            let cell = Summary::of(&rows).unwrap();
            (cell.success_rate, cell.trained(), cell.collapsed())
        };
        assert_eq!(of(&[true, false, true, true]), (0.25, 1, false));
        assert_eq!(of(&[true, true]), (0.0, 0, true));
        assert_eq!(of(&[false; 7]), (1.0, 7, false));
        // Rounding must not lose a seed.
        for seeds in 1..40 {
            let collapsed: Vec<bool> = (0..seeds).map(|seed| seed >= seeds / 3).collect();
            assert_eq!(of(&collapsed).1, seeds / 3, "of {seeds}");
        }
    }

    #[test]
    fn every_setting_makes_a_cell_of_its_own_and_no_result_does() {
        let base = sample::row("uniform", "adam", 0, (90.0, 80.0), None);
        let cells = |other: Row| group(&[base.clone(), Row { seed: 1, ..other }]).len();
        let text = String::from("other");
        let settings = [
            Row { table: text.clone(), ..base.clone() },
            Row { dataset: text.clone(), ..base.clone() },
            Row { network: text.clone(), ..base.clone() },
            Row { method: text.clone(), ..base.clone() },
            Row { init: Some(text.clone()), ..base.clone() },
            Row { init: None, ..base.clone() },
            Row { optimizer: Some(text.clone()), ..base.clone() },
            Row { original_w: Some(2), ..base.clone() },
            Row { pruned_w: Some(1), ..base.clone() },
            Row { attack: text.clone(), ..base.clone() },
            Row { profile: text.clone(), ..base.clone() },
            Row { backend: text.clone(), ..base.clone() },
            Row { precision: text.clone(), ..base.clone() },
            Row { epochs: 3, ..base.clone() },
        ];
        for other in settings {
            assert_eq!(cells(other.clone()), 2, "{other:?}");
        }
        let results = Row { natural: 1.0, adversarial: 2.0, collapsed: true, seconds: 3.0, ..base.clone() };
        let results = Row { paper_natural: Some(1.0), paper_adversarial: Some(2.0), autoattack: Some(3.0), ..results };
        assert_eq!(cells(Row { stage: text, ..results }), 1);
    }

    #[test]
    fn widths_make_a_triangle_and_names_do_not() {
        assert!(has_place("16", "8") && !has_place("8", "8") && !has_place("8", "16"));
        assert!(has_place("uniform", "adam") && has_place("16", "2x") && has_place("16", "dense"));
    }

    #[test]
    fn groups_by_everything_but_seed_and_result() {
        let row = |optimizer, seed| sample::row("uniform", optimizer, seed, (90.0, 80.0), None);
        let warmup = Row { method: "warmup".into(), ..row("adam", 0) };
        let rows = [row("sgd", 2), row("adam", 0), row("sgd", 1), warmup, row("sgd", 0)];
        let cells = group(&rows);
        let seeds: Vec<Vec<u64>> = cells.iter().map(|cell| cell.iter().map(|row| row.seed).collect()).collect();
        assert_eq!(seeds, [vec![0, 1, 2], vec![0], vec![0]]);
    }
}
