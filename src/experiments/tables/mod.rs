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
mod differences;
mod fashion;
mod grids;
mod notes;
mod published;
mod results;
mod t2;
mod t3;
mod t4;

pub use cells::{Cell, CellJobs, cells, step};
pub use chains::Method;
pub use differences::{Difference, differences};
pub use notes::notes;
pub use published::Published;
pub use results::{attack_name, report, whole_grid};

use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::data::{DataId, DatasetName};
use crate::experiments::pipeline::StageConfig;

/// Every table the engine reproduces.
pub const TABLES: &[Table] = &[a1::TABLE, b1::TABLE, c1::TABLE, fashion::TABLE, t2::TABLE, t3::TABLE, t4::TABLE];

named_enum! {
    /// How much of a table's work is done.
    pub enum Profile: "profile" {
        /// Some cells on the embedded sample, up to two minutes on two cores: shows the point of a table. Not comparable
        /// with the paper.
        Demo = "demo",
        /// All cells on a few images of the embedded sample, under two minutes on two cores: shows that everything runs, and
        /// nothing else.
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
    /// The part of the table that the demo profile runs.
    pub demo: Demo,
    /// Seeds a cell has by default.
    pub seeds: fn(Profile) -> usize,
    /// The stages that lead to a cell's numbers, each starting from the one before.
    pub chain: fn(&Coordinates, &Settings) -> Result<Vec<StageConfig>>,
    /// Identity of a cell in `table.csv`, from its place and the last stage of its chain.
    pub identity: fn(&Coordinates, &StageConfig) -> Identity,
    /// Texts of the files with the paper's numbers, in CSV; see [`Table::published`].
    pub published_csv: &'static [&'static str],
    /// The paper's own words about the table, for a reader of the numbers of these cells.
    pub remarks: fn(&[Cell]) -> Vec<String>,
}

/// The part of a table that shows its point on the embedded sample.
pub struct Demo {
    /// Training and test images of the embedded sample.
    pub images: (usize, usize),
    /// The blocks, by method.
    pub methods: &'static [&'static str],
    /// Patterns of the cells, as in `--cells`.
    pub cells: &'static [&'static str],
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

    /// Names of the blocks that run under a profile if the user names none.
    pub fn default_methods(&self, profile: Profile) -> Vec<String> {
        let runs = |block: &&BlockSpec| match profile {
            Profile::Demo => self.demo.methods.contains(&block.method),
            Profile::Smoke | Profile::Quick | Profile::Paper => block.by_default,
        };
        self.blocks.iter().filter(runs).map(|block| block.method.to_string()).collect()
    }

    /// Patterns of the cells of `methods` that run under a profile if the user names none; empty for all.
    pub fn default_cells(&self, profile: Profile, methods: &[String]) -> Vec<String> {
        let patterns = if profile == Profile::Demo { self.demo.cells } else { &[] };
        let blocks = || self.blocks.iter().filter(|block| methods.iter().any(|method| method == block.method));
        let exists = |pattern: &&&str| blocks().flat_map(BlockSpec::cells).any(|(r, c)| cells::matches(pattern, r, c));
        patterns.iter().filter(exists).map(|pattern| pattern.to_string()).collect()
    }

    /// Training and test images of the embedded sample that a profile takes; `None` if it takes the full data.
    pub fn sample(&self, profile: Profile) -> Option<(usize, usize)> {
        match profile {
            Profile::Demo => Some(self.demo.images),
            Profile::Smoke => Some(self.smoke),
            Profile::Quick | Profile::Paper => None,
        }
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
