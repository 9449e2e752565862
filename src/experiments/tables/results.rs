//! Makes the report of a table from its finished stages.

use super::notes::notes;
use super::{BlockSpec, Cell, CellJobs, Coordinates, Method, Settings, Table};
use crate::attack::PgdConfig;
use crate::experiments::pipeline::{JobId, Plan, StageConfig, StageResult};
use crate::experiments::report::{Block, Comparison, NotRun, Report, Row, Summary};

/// The report of a table: `jobs` are those of each cell, in the order of `cells`, and `results` what the plan's
/// jobs left, by [`crate::experiments::pipeline::JobId::index`]. Cells without a result are empty.
pub fn report(
    table: &'static Table,
    settings: &Settings,
    cells: &[Cell],
    plan: &Plan,
    jobs: &[CellJobs],
    results: &[Option<StageResult>],
) -> Report {
    let row = |(cell, jobs): (&Cell, &CellJobs)| Some((cell.at, row(table, settings, cell, plan, jobs, results)?));
    let finished: Vec<(Coordinates, Row)> = cells.iter().zip(jobs).filter_map(row).collect();
    let mut report = Report {
        id: table.id.to_string(),
        title: table.title.to_string(),
        notes: Vec::new(),
        settings: notes(table, cells),
        differences: Vec::new(),
        majority: f64::NAN,
        rows: Vec::new(),
        blocks: Vec::new(),
        comparisons: Vec::new(),
    };
    let mut methods = Vec::new();
    for spec in table.blocks {
        let wanted: Vec<&Coordinates> =
            cells.iter().map(|c| &c.at).filter(|at| at.block.method == spec.method).collect();
        if !wanted.is_empty() {
            methods.push(spec.method);
            report.blocks.push(block(spec, &wanted, &finished, &mut report.rows));
        }
    }
    let find = |method: &Method| methods.iter().position(|m| *m == method.name()).map(|i| &report.blocks[i]);
    let compare = |(minuend, subtrahend): &(Method, Method)| {
        Comparison::of(&format!("{minuend} − {subtrahend}"), find(minuend)?, find(subtrahend)?)
    };
    report.comparisons = table.comparisons.iter().filter_map(compare).collect();
    report
}

/// The block's grid, reduced to the rows and columns that have a wanted cell; its rows go to `rows`, cell by cell.
fn block(spec: &BlockSpec, wanted: &[&Coordinates], finished: &[(Coordinates, Row)], rows: &mut Vec<Row>) -> Block {
    let keep = |names: &[&'static str], name_of: fn(&Coordinates) -> &'static str| -> Vec<&'static str> {
        names.iter().copied().filter(|name| wanted.iter().any(|at| name_of(at) == *name)).collect()
    };
    let (row_names, column_names) = (keep(spec.rows, |at| at.row), keep(spec.columns, |at| at.column));
    let mut summary = |row: &str, column: &str| {
        let here = |at: &Coordinates| at.block.method == spec.method && at.row == row && at.column == column;
        let seeds: Vec<Row> = finished.iter().filter(|(at, _)| here(at)).map(|(_, row)| row.clone()).collect();
        rows.extend_from_slice(&seeds);
        Summary::of(&seeds)
    };
    let cells = row_names.iter().map(|row| column_names.iter().map(|column| summary(row, column)).collect()).collect();
    Block {
        title: spec.title.to_string(),
        row_axis: spec.row_axis.to_string(),
        column_axis: spec.column_axis.to_string(),
        rows: row_names.iter().map(|name| name.to_string()).collect(),
        columns: column_names.iter().map(|name| name.to_string()).collect(),
        cells,
        not_run: Vec::new(),
    }
}

/// The report with every cell of its blocks, and the blocks that run by default: what was left out is marked as not run.
pub fn whole_grid(table: &'static Table, report: &Report) -> Report {
    let whole = |spec: &'static BlockSpec| {
        let run = report.blocks.iter().find(|block| block.title == spec.title);
        (run.is_some() || spec.by_default).then(|| whole_block(table, spec, run))
    };
    Report { blocks: table.blocks.iter().filter_map(whole).collect(), ..report.clone() }
}

/// The whole grid of `spec`, with the cells of `run`.
fn whole_block(table: &'static Table, spec: &'static BlockSpec, run: Option<&Block>) -> Block {
    let place = |names: &[String], name: &str| names.iter().position(|known| known == name);
    let cell = |row: &str, column: &str| {
        let run = run?;
        run.cell(place(&run.rows, row)?, place(&run.columns, column)?).cloned()
    };
    let not_run = |row: &'static str, column: &'static str| {
        let left_out = (spec.exists)(row, column) && cell(row, column).is_none();
        let published = table.published(&Coordinates { block: spec, row, column, seed: 0 });
        left_out.then(|| NotRun {
            paper_natural: published.and_then(|published| published.natural),
            paper_adversarial: published.map(|published| published.adversarial),
        })
    };
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Block {
        title: spec.title.to_string(),
        row_axis: spec.row_axis.to_string(),
        column_axis: spec.column_axis.to_string(),
        rows: names(spec.rows),
        columns: names(spec.columns),
        cells: spec.rows.iter().map(|row| spec.columns.iter().map(|column| cell(row, column)).collect()).collect(),
        not_run: spec.rows.iter().map(|&r| spec.columns.iter().map(|&c| not_run(r, c)).collect()).collect(),
    }
}

/// The row of a cell whose last stage is finished.
fn row(
    table: &Table,
    settings: &Settings,
    cell: &Cell,
    plan: &Plan,
    CellJobs { chain, suite }: &CellJobs,
    results: &[Option<StageResult>],
) -> Option<Row> {
    let scores = |id: &JobId| results[id.index()].as_ref()?.scores();
    let end = chain.last()?;
    let last = scores(end)?;
    let job = &plan.jobs()[end.index()];
    let config = &job.stage.config;
    let published = table.published(&cell.at);
    let identity = (table.identity)(&cell.at, config);
    Some(Row {
        table: table.id.to_string(),
        dataset: settings.data.name.to_string(),
        network: config.network().0.to_string(),
        method: cell.at.block.method.to_string(),
        init: identity.init,
        optimizer: identity.optimizer,
        original_w: identity.original_w,
        pruned_w: identity.pruned_w,
        seed: cell.at.seed,
        natural: last.natural,
        adversarial: last.adversarial,
        attack: config.eval_attack().map(attack_name).unwrap_or_default(),
        collapsed: last.collapsed,
        paper_natural: published.and_then(|p| p.natural),
        paper_adversarial: published.map(|p| p.adversarial),
        profile: settings.profile.to_string(),
        backend: job.stage.backend.to_string(),
        precision: job.stage.precision.to_string(),
        // The whole chain counts, whoever else shares its stages: this is the cost of the cell alone.
        epochs: cell.chain.iter().map(StageConfig::epochs).sum(),
        seconds: chain.iter().filter_map(scores).map(|scores| scores.seconds).sum(),
        stage: job.key.clone(),
        autoattack: suite.as_ref().and_then(scores).map(|scores| scores.adversarial),
    })
}

/// `pgd-40`, `cw-40` for the margin loss, `pgd-40x2` with two restarts.
pub fn attack_name(attack: &PgdConfig) -> String {
    let restarts = if attack.restarts > 1 { format!("x{}", attack.restarts) } else { String::new() };
    format!("{}-{}{restarts}", attack.loss.attack(), attack.steps)
}
