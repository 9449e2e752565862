//! What a table run writes and prints: rows of `table.csv`, grids in the paper's layout, pictures.

use serde::{Deserialize, Serialize};

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
}

/// All seeds of one cell put together. Percent; the spread is the sample standard deviation, `None` for one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub seeds: usize,
    pub natural: f64,
    pub natural_std: Option<f64>,
    pub adversarial: f64,
    pub adversarial_std: Option<f64>,
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
    /// What the rows are: "Initialiser".
    pub row_axis: String,
    /// What the columns are: "Optimiser".
    pub column_axis: String,
    pub rows: Vec<String>,
    pub columns: Vec<String>,
    /// `cells[row][column]`; `None` where nothing was run.
    pub cells: Vec<Vec<Option<Summary>>>,
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
    pub rows: Vec<Row>,
    pub blocks: Vec<Block>,
}
