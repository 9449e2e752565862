//! The paper's numbers: a CSV file a table in `published/`, and the reader of them all.

use serde::Deserialize;

use super::grids::DENSE;

/// The paper's numbers for a cell, percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// On clean images, if it says so.
    pub natural: Option<f64>,
    /// On attacked images.
    pub adversarial: f64,
}

/// A line of a file. The columns that a table does not have are empty.
#[derive(Deserialize)]
struct Line {
    method: String,
    init: Option<String>,
    optimizer: Option<String>,
    original_w: usize,
    pruned_w: Option<usize>,
    natural: Option<f64>,
    adversarial: f64,
}

impl Line {
    /// The name of this cell's row in its table's block.
    fn row(&self) -> String {
        self.init.clone().unwrap_or_else(|| self.original_w.to_string())
    }

    /// The name of this cell's column in its table's block.
    fn column(&self) -> String {
        let width = || self.pruned_w.map_or(DENSE.to_string(), |width| width.to_string());
        self.optimizer.clone().unwrap_or_else(width)
    }
}

/// The numbers of the cell of a method at a row and column, in the first of `files`, texts in CSV, that has it.
pub fn find(files: &[&str], method: &str, row: &str, column: &str) -> Option<Published> {
    let lines = files.iter().flat_map(|text| csv::Reader::from_reader(text.as_bytes()).into_deserialize::<Line>());
    let line = lines.flatten().find(|line| line.method == method && line.row() == row && line.column() == column)?;
    Some(Published { natural: line.natural, adversarial: line.adversarial })
}
