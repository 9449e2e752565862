//! Selects the cells that the user asked for and resolves their stages.

use super::{BlockSpec, Coordinates, Settings, Table};
use crate::attack::config::standard;
use crate::base::error::{Error, Result};
use crate::experiments::pipeline::{JobId, Plan, StageConfig, SuiteConfig, set_all};
use crate::nn::models::Architecture;
use crate::prune::groups;
use crate::train::Sparsity;

/// One seed of one cell with the stages that lead to its numbers.
pub struct Cell {
    /// Where it belongs.
    pub at: Coordinates,
    /// The stages, each starting from the one before.
    pub chain: Vec<StageConfig>,
    /// The ensemble of attacks on what the chain has led to, if it was asked for.
    pub suite: Option<StageConfig>,
}

/// The jobs of a cell.
pub struct CellJobs {
    /// The jobs of its chain.
    pub chain: Vec<JobId>,
    /// The job of its suite.
    pub suite: Option<JobId>,
}

impl Cell {
    /// Its name for the user: `uniform:adam seed 0`, behind the method's name if the table has several.
    pub fn label(&self, table: &Table) -> String {
        let Coordinates { block, row, column, seed } = self.at;
        let method = if table.blocks.len() > 1 { format!("{} ", block.method) } else { String::new() };
        format!("{method}{row}:{column} seed {seed}")
    }

    /// The name of one stage of its chain for the user: the cell, and which of several stages it is.
    fn stage_label(&self, table: &Table, config: &StageConfig) -> String {
        let label = self.label(table);
        if self.chain.len() == 1 && self.suite.as_ref() != Some(config) {
            label
        } else {
            format!("{label}, {}", step(config))
        }
    }

    /// Adds its stages to `plan`.
    ///
    /// # Errors
    /// As [`Plan::add`].
    pub fn plan(&self, table: &Table, settings: &Settings, plan: &mut Plan) -> Result<CellJobs> {
        let mut add = |config: &StageConfig, parent: &[JobId]| {
            let image_passes = config.image_passes(settings.train_images, settings.test_images);
            plan.add(&self.stage_label(table, config), config.clone(), parent, image_passes)
        };
        let mut chain: Vec<JobId> = Vec::new();
        for config in &self.chain {
            chain.push(add(config, &chain[chain.len().saturating_sub(1)..])?);
        }
        let model = self.chain.iter().rposition(|config| !matches!(config, StageConfig::Eval(_)));
        let suite = match (&self.suite, model) {
            (Some(config), Some(model)) => Some(add(config, &chain[model..=model])?),
            _ => None,
        };
        Ok(CellJobs { chain, suite })
    }

    /// The same as the stem of a file name.
    pub fn file_name(&self) -> String {
        let Coordinates { block, row, column, seed } = self.at;
        format!("{}-{row}-{column}-{seed}", block.method)
    }
}

/// A stage's part in a chain of several.
pub fn step(config: &StageConfig) -> &'static str {
    match config {
        StageConfig::Import(_) => "import",
        StageConfig::Train(config) => match config.sparsity {
            Sparsity::Dense => "dense",
            Sparsity::Masked(_) => "retraining",
            Sparsity::Admm(_) => "ADMM",
            Sparsity::Proximal(_) => "proximal gradient",
        },
        StageConfig::Prune(_) => "pruning",
        StageConfig::Eval(_) => "measurement",
        StageConfig::Suite(_) => "AutoAttack",
    }
}

/// The cells that `settings` select, their stages resolved and checked, all cells of the first seed first, so that an
/// unfinished table shows every cell once.
///
/// # Errors
/// [`Error::Usage`] for unknown methods, cells and settings, and for values out of range.
pub fn cells(table: &'static Table, settings: &Settings) -> Result<Vec<Cell>> {
    let blocks = select_blocks(table, &settings.methods)?;
    check_patterns(&blocks, &settings.cells)?;
    let mut cells = Vec::new();
    for &seed in &settings.seeds {
        for &block in &blocks {
            for (row, column) in block.cells().filter(|(row, column)| selected(&settings.cells, row, column)) {
                let at = Coordinates { block, row, column, seed };
                cells.push(Cell { at, chain: (table.chain)(&at, settings)?, suite: None });
            }
        }
    }
    for (path, value) in &settings.overrides {
        apply(&mut cells, path, value)?;
    }
    if let Some(images) = settings.autoattack {
        cells.iter_mut().for_each(|cell| cell.suite = autoattack(cell, settings, images));
    }
    for config in cells.iter().flat_map(|cell| &cell.chain) {
        if let StageConfig::Train(config) = config {
            config.validate(settings.train_images)?;
        }
        check_target(config, settings.data.name.info().classes())?;
    }
    Ok(cells)
}

/// The ensemble on the first `images` test images, in the ball in which the cell is measured.
fn autoattack(cell: &Cell, settings: &Settings, images: usize) -> Option<StageConfig> {
    let last = cell.chain.last()?;
    let (network, width) = last.network();
    Some(StageConfig::Suite(SuiteConfig {
        data: settings.data.clone(),
        network,
        width,
        seed: cell.at.seed,
        sparsity: last.target().copied(),
        images: images.min(settings.test_images),
        attacks: standard(last.eval_attack()?.eps),
    }))
}

/// Checks that what a stage prunes to leaves something of every layer.
fn check_target(config: &StageConfig, classes: usize) -> Result<()> {
    let Some(target) = config.target() else { return Ok(()) };
    let (network, width) = config.network();
    groups(&Architecture::new(network, width, classes)?, target).map(drop)
}

fn select_blocks(table: &'static Table, methods: &[String]) -> Result<Vec<&'static BlockSpec>> {
    let names = || table.blocks.iter().map(|block| block.method);
    if let Some(unknown) = methods.iter().find(|method| !names().any(|name| name == **method)) {
        return Err(Error::unknown("method", unknown, names()));
    }
    Ok(table.blocks.iter().filter(|block| methods.iter().any(|method| method == block.method)).collect())
}

fn selected(patterns: &[String], row: &str, column: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, row, column))
}

/// Whether `ROW:COLUMN`, either of which may be `*`, selects the cell at a row and column.
pub(super) fn matches(pattern: &str, row: &str, column: &str) -> bool {
    pattern.split_once(':').is_some_and(|(r, c)| {
        // `adam` also selects `adam-1e-4`: methods name variants of a column so.
        let variant = column.strip_prefix(c).is_some_and(|rest| rest.starts_with('-'));
        (r == "*" || r == row) && (c == "*" || c == column || variant)
    })
}

/// Every pattern must select something: a misspelt one would silently select nothing.
fn check_patterns(blocks: &[&BlockSpec], patterns: &[String]) -> Result<()> {
    let all = || blocks.iter().flat_map(|block| block.cells());
    for pattern in patterns {
        let Some((row, column)) = pattern.split_once(':') else {
            let (r, c) = all().next().unwrap_or_default();
            return Err(Error::Usage(format!("--cells: expected ROW:COLUMN like '{r}:{c}', got '{pattern}'")));
        };
        if !all().any(|(r, c)| matches(pattern, r, c)) {
            return Err(no_such_cell(blocks, row, column));
        }
    }
    Ok(())
}

/// Which part of the pattern `row`:`column` is wrong.
fn no_such_cell(blocks: &[&BlockSpec], row: &str, column: &str) -> Error {
    let unique = |names: &mut dyn Iterator<Item = &'static str>| {
        let mut known = Vec::new();
        names.for_each(|name| {
            if !known.contains(&name) {
                known.push(name)
            }
        });
        known
    };
    let rows = unique(&mut blocks.iter().flat_map(|block| block.rows.iter().copied()));
    let columns = unique(&mut blocks.iter().flat_map(|block| block.columns.iter().copied()));
    let unknown = |axis: fn(&BlockSpec) -> &'static str, name: &str, known: Vec<&str>| {
        let axis = blocks.last().map_or("name", |block| axis(block));
        Error::unknown(&format!("{} in --cells", axis.to_lowercase()), name, known)
    };
    if row != "*" && !rows.contains(&row) {
        return unknown(|block| block.row_axis, row, rows);
    }
    if !columns.iter().any(|name| matches(&format!("*:{column}"), row, name)) {
        return unknown(|block| block.column_axis, column, columns);
    }
    let why = blocks.iter().map(|block| block.absent).find(|why| !why.is_empty());
    let here = unique(&mut blocks.iter().flat_map(|block| block.cells()).filter(|(r, _)| *r == row).map(|(_, c)| c));
    let why = why.map_or(String::new(), |why| format!(", {why}"));
    Error::Usage(format!("--cells {row}:{column}: no such cell{why}; '{row}' has {}", here.join(", ")))
}

/// Replaces one value wherever it exists.
fn apply(cells: &mut [Cell], path: &str, value: &str) -> Result<()> {
    let reserved = [("epochs", "--epochs"), ("seed", "--seed and --seeds"), ("data", "--table and --data")];
    if let Some((_, flag)) = reserved.iter().find(|(name, _)| path.split('.').next() == Some(name)) {
        return Err(Error::Usage(format!("--set {path}: use {flag} instead")));
    }
    set_all(cells.iter_mut().flat_map(|cell| &mut cell.chain), path, value)
}
