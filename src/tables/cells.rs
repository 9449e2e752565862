//! From what the user asked to the cells that have to be run.

use super::{BlockSpec, Coordinates, Settings, Table};
use crate::error::{Error, Result};
use crate::pipeline::{StageConfig, set_all};

/// One seed of one cell with the stages that lead to its numbers.
pub struct Cell {
    /// Where it belongs.
    pub at: Coordinates,
    /// The stages, each starting from the one before.
    pub chain: Vec<StageConfig>,
}

impl Cell {
    /// What the user calls it: `uniform:adam seed 0`, behind the method's name if the table has several.
    pub fn label(&self, table: &Table) -> String {
        let Coordinates { block, row, column, seed } = self.at;
        let method = if table.blocks.len() > 1 { format!("{} ", block.method) } else { String::new() };
        format!("{method}{row}:{column} seed {seed}")
    }

    /// The same as the stem of a file name.
    pub fn file_name(&self) -> String {
        let Coordinates { block, row, column, seed } = self.at;
        format!("{}-{row}-{column}-{seed}", block.method)
    }
}

/// The cells that `settings` select, their stages resolved and checked, all cells of the first seed first: an early
/// look at an unfinished table shows the whole of it.
///
/// # Errors
/// [`Error::Usage`] for unknown methods, cells and settings, and for values out of range.
pub fn cells(table: &'static Table, settings: &Settings) -> Result<Vec<Cell>> {
    let blocks = select_blocks(table, &settings.methods)?;
    check_patterns(&blocks, &settings.cells)?;
    let mut cells = Vec::new();
    for &seed in &settings.seeds {
        for &block in &blocks {
            for &row in block.rows {
                for &column in block.columns.iter().filter(|column| selected(&settings.cells, row, column)) {
                    let at = Coordinates { block, row, column, seed };
                    cells.push(Cell { at, chain: (table.chain)(&at, settings)? });
                }
            }
        }
    }
    for (path, value) in &settings.overrides {
        apply(&mut cells, path, value)?;
    }
    for config in cells.iter().flat_map(|cell| &cell.chain) {
        if let StageConfig::Train(config) = config {
            config.validate(settings.train_images)?;
        }
    }
    Ok(cells)
}

fn select_blocks(table: &'static Table, methods: &[String]) -> Result<Vec<&'static BlockSpec>> {
    let names = || table.blocks.iter().map(|block| block.method);
    if let Some(unknown) = methods.iter().find(|method| !names().any(|name| name == **method)) {
        return Err(Error::unknown("method", unknown, names()));
    }
    Ok(table.blocks.iter().filter(|block| methods.iter().any(|method| method == block.method)).collect())
}

fn selected(patterns: &[String], row: &str, column: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern_matches(pattern, row, column))
}

fn pattern_matches(pattern: &str, row: &str, column: &str) -> bool {
    pattern.split_once(':').is_some_and(|(r, c)| {
        // `adam` also selects `adam-1e-4`: methods name variants of a column so.
        let variant = column.strip_prefix(c).is_some_and(|rest| rest.starts_with('-'));
        (r == "*" || r == row) && (c == "*" || c == column || variant)
    })
}

/// Every pattern must select something: a misspelt one would silently select nothing.
fn check_patterns(blocks: &[&BlockSpec], patterns: &[String]) -> Result<()> {
    let all = || blocks.iter().flat_map(|b| b.rows.iter().flat_map(|r| b.columns.iter().map(move |c| (*r, *c))));
    for pattern in patterns {
        let Some((row, column)) = pattern.split_once(':') else {
            let (r, c) = all().next().unwrap_or_default();
            return Err(Error::Usage(format!("--cells: expected ROW:COLUMN like '{r}:{c}', got '{pattern}'")));
        };
        if all().any(|(r, c)| pattern_matches(pattern, r, c)) {
            continue;
        }
        let rows = || blocks.iter().flat_map(|b| b.rows.iter().copied());
        let what = |axis: &str| format!("{} in --cells", axis.to_lowercase());
        if row != "*" && !rows().any(|name| name == row) {
            return Err(Error::unknown(&what(blocks[0].row_axis), row, blocks[0].rows.iter().copied()));
        }
        let mut columns: Vec<&str> = blocks.iter().flat_map(|b| b.columns.iter().copied()).collect();
        columns.dedup();
        return Err(Error::unknown(&what(blocks[0].column_axis), column, columns));
    }
    Ok(())
}

/// Replaces one value wherever it exists.
fn apply(cells: &mut [Cell], path: &str, value: &str) -> Result<()> {
    let reserved = [("epochs", "--epochs"), ("seed", "--seed and --seeds"), ("data", "--table and --data")];
    if let Some((_, flag)) = reserved.iter().find(|(name, _)| path.split('.').next() == Some(name)) {
        return Err(Error::Usage(format!("--set {path}: use {flag} instead")));
    }
    set_all(cells.iter_mut().flat_map(|cell| &mut cell.chain), path, value)
}
