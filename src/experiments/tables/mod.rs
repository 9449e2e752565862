//! The paper's tables: one entry each in [`TABLES`], and what all of them share.
//!
//! A table is a few blocks of cells. Each cell, for each seed, is a chain of stages; the last stage's scores are the
//! cell's numbers. A new table is a file with a [`Table`] constant, an entry here and its published values.

mod a1;
mod b1;
mod c1;
mod cells;
pub mod chains;
pub mod defaults;
mod fashion;
mod grids;
mod published;
mod results;
mod t2;
mod t3;
mod t4;

pub use cells::{Cell, CellJobs, cells};
pub use chains::Method;
pub use published::Published;
pub use results::report;

use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::data::{DataId, DatasetName};
use crate::experiments::pipeline::StageConfig;

/// Every table the engine reproduces.
pub const TABLES: &[Table] = &[a1::TABLE, b1::TABLE, c1::TABLE, fashion::TABLE, t2::TABLE, t3::TABLE, t4::TABLE];

named_enum! {
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
    /// The data set it trains on.
    pub dataset: DatasetName,
    /// The cells, one block a method.
    pub blocks: &'static [BlockSpec],
    /// Pairs of methods, the first of which is shown minus the second, cell by cell.
    pub comparisons: &'static [(Method, Method)],
    /// Training and test images of the embedded sample that the smoke profile uses.
    pub smoke: (usize, usize),
    /// Seeds a cell has by default.
    pub seeds: fn(Profile) -> usize,
    /// The stages that lead to a cell's numbers, each starting from the one before.
    pub chain: fn(&Coordinates, &Settings) -> Result<Vec<StageConfig>>,
    /// Identity of a cell in `table.csv`, from its place and the last stage of its chain.
    pub identity: fn(&Coordinates, &StageConfig) -> Identity,
    /// Texts of the files with the paper's numbers, in CSV; see [`Table::published`].
    pub published_csv: &'static [&'static str],
    /// The notes for a reader of the numbers.
    pub notes: fn(&Settings) -> Vec<String>,
}

/// The cells of one method: combinations of a row and a column.
pub struct BlockSpec {
    /// Its name for `--method`.
    pub method: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Title of the row axis.
    pub row_axis: &'static str,
    /// Title of the column axis.
    pub column_axis: &'static str,
    /// Names of the rows, as in `--cells ROW:COLUMN`.
    pub rows: &'static [&'static str],
    /// Names of the columns.
    pub columns: &'static [&'static str],
    /// Whether a row and a column have a cell.
    pub exists: fn(&str, &str) -> bool,
    /// Why some have none, for the user who asks for it.
    pub absent: &'static str,
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

/// The columns of `table.csv` that tell the cells of a method apart; `None` where one does not apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Initialiser.
    pub init: Option<String>,
    /// Optimiser.
    pub optimizer: Option<String>,
    /// Width before pruning.
    pub original_w: Option<usize>,
    /// Width of the dense network of the same size after pruning.
    pub pruned_w: Option<usize>,
}

/// The user's settings for a table.
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
    /// Also attack so many of the test images with the AutoAttack ensemble.
    pub autoattack: Option<usize>,
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

    /// The paper's numbers for a cell, if it has any.
    pub fn published(&self, at: &Coordinates) -> Option<Published> {
        published::find(self.published_csv, at.block.method, at.row, at.column)
    }

    /// Names of the blocks that run by default.
    pub fn default_methods(&self) -> Vec<String> {
        self.blocks.iter().filter(|block| block.by_default).map(|block| block.method.to_string()).collect()
    }

    /// Number of cells of a default run.
    pub fn size(&self) -> usize {
        self.blocks.iter().filter(|block| block.by_default).map(|block| block.cells().count()).sum()
    }
}

impl BlockSpec {
    /// Row and column of every cell, row by row.
    pub fn cells(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let (rows, columns) = (self.rows, self.columns);
        let all = rows.iter().flat_map(move |&row| columns.iter().map(move |&column| (row, column)));
        all.filter(|(row, column)| (self.exists)(row, column))
    }
}
