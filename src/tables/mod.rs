//! The paper's tables: one entry each in [`TABLES`], and what all of them share.
//!
//! A table is a few blocks of cells. Each cell, for each seed, is a chain of stages; the last stage's scores are the
//! cell's numbers. A new table is a file with a [`Table`] constant, an entry here and its published values.

pub mod b1;
mod cells;
pub mod defaults;
mod results;

pub use cells::{Cell, cells};
pub use results::report;

use crate::choice::choice;
use crate::data::{DataId, DatasetName};
use crate::error::{Error, Result};
use crate::pipeline::StageConfig;

/// Every table the engine reproduces.
pub const TABLES: &[Table] = &[b1::TABLE];

choice! {
    /// How much of a table's work is done.
    pub enum Profile: "profile" {
        /// The embedded sample, under two minutes on two cores; the numbers are not comparable with the paper's.
        Smoke = "smoke",
        /// The full data, few epochs.
        Quick = "quick",
        /// The published settings.
        Paper = "paper",
    }
}

/// A table of the paper.
pub struct Table {
    /// Its name on the command line.
    pub id: &'static str,
    /// One line: what it compares.
    pub title: &'static str,
    /// What it trains on.
    pub dataset: DatasetName,
    /// The cells, one block a method.
    pub blocks: &'static [BlockSpec],
    /// Seeds a cell has by default.
    pub seeds: fn(Profile) -> usize,
    /// The stages that lead to a cell's numbers, each starting from the one before.
    pub chain: fn(&Coordinates, &Settings) -> Result<Vec<StageConfig>>,
    /// The paper's numbers for a cell, if it has any.
    pub published: fn(&Coordinates) -> Option<Published>,
    /// What a reader of the numbers must know.
    pub notes: fn(&Settings) -> Vec<String>,
}

/// The cells of one method: all combinations of a row and a column.
pub struct BlockSpec {
    /// Its name for `--method`.
    pub method: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What the rows are.
    pub row_axis: &'static str,
    /// What the columns are.
    pub column_axis: &'static str,
    /// Names of the rows, as in `--cells ROW:COLUMN`.
    pub rows: &'static [&'static str],
    /// Names of the columns.
    pub columns: &'static [&'static str],
    /// Run when `--method` is not given.
    pub by_default: bool,
}

/// One seed of one cell.
#[derive(Clone, Copy)]
pub struct Coordinates {
    /// Its block.
    pub block: &'static BlockSpec,
    /// Its row's name.
    pub row: &'static str,
    /// Its column's name.
    pub column: &'static str,
    /// Its seed.
    pub seed: u64,
}

/// The paper's numbers, percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// On clean images.
    pub natural: f64,
    /// On attacked images.
    pub adversarial: f64,
}

/// What the user asked of a table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How much work.
    pub profile: Profile,
    /// The data.
    pub data: DataId,
    /// Number of training images.
    pub train_images: usize,
    /// Number of test images.
    pub test_images: usize,
    /// The blocks to run.
    pub methods: Vec<String>,
    /// `ROW:COLUMN` patterns, either side may be `*`; empty for all cells.
    pub cells: Vec<String>,
    /// Seeds of each cell.
    pub seeds: Vec<u64>,
    /// Epochs, where not the profile's.
    pub epochs: Option<usize>,
    /// `(path, value)` pairs that replace values of the resolved configurations.
    pub overrides: Vec<(String, String)>,
}

impl Table {
    /// The table with this id.
    ///
    /// # Errors
    /// [`Error::Usage`] with the known ids.
    pub fn find(id: &str) -> Result<&'static Table> {
        TABLES.iter().find(|table| table.id == id).ok_or_else(|| {
            let known: Vec<&str> = TABLES.iter().map(|table| table.id).collect();
            // No "did you mean": the ids are so short that every wrong one looks like every right one.
            Error::Usage(format!("unknown table '{id}'; known: {}", known.join(", ")))
        })
    }

    /// Names of the blocks that run by default.
    pub fn default_methods(&self) -> Vec<String> {
        self.blocks.iter().filter(|block| block.by_default).map(|block| block.method.to_string()).collect()
    }

    /// Number of cells of a default run.
    pub fn size(&self) -> usize {
        self.blocks.iter().filter(|block| block.by_default).map(|block| block.rows.len() * block.columns.len()).sum()
    }
}
