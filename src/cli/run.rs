//! `engine run`: a table of the paper.

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::device_args::Device;
use super::execute::Execution;
use super::run_args::RunArgs;
use super::table_run::TableRun;
use super::{browser, console, execute, run_dir};
use crate::base::error::{Error, Result};
use crate::base::files::hex;
use crate::experiments::pipeline::{BackendName, JobId, Plan, Store};
use crate::experiments::tables;
use crate::experiments::tables::{Cell, CellJobs, Profile, Settings, TABLES, Table};

pub fn run(args: &RunArgs) -> Result<()> {
    if args.list {
        return list();
    }
    let start = Instant::now();
    let table = Table::find(args.table.as_deref().unwrap_or_default())?;
    let device = args.device.resolve()?;
    let profile = args.profile.unwrap_or(match device.backend {
        BackendName::Cpu => Profile::Demo,
        BackendName::Cuda => Profile::Paper,
    });
    let name = args.dir_name(table, profile)?;
    let data = args.load(table, profile)?;
    let settings = args.settings(table, profile, &data);
    let cells = tables::cells(table, &settings)?;
    let (plan, cell_jobs) = plan(table, &settings, &cells, &device)?;
    let store = Store::open(&args.out)?;
    let prepared = plan.prepare(&store, args.fresh)?;
    let jobs = execute::side_by_side(args.jobs.map(usize::from), &device, prepared.pending());
    let fingerprint = fingerprint(table, profile, &cells, &cell_jobs, &plan)?;
    let dir = run_dir::choose(&args.out, &name, &fingerprint, args.name.is_some(), args.fresh)?;
    let not_run = args.not_run(table, &settings, &cells);
    let this = TableRun {
        table,
        settings,
        data,
        device,
        cells,
        plan: &plan,
        jobs: cell_jobs,
        store: &store,
        dir,
        fingerprint,
        not_run,
    };
    let pending = prepared.pending();
    let execution = Execution::new(&plan, prepared, &this.data, &this.device, jobs, None)?;
    console::print(&this.first_line(pending, jobs, &execution.promise()))?;

    let outcome = execution.run(args.quiet)?;
    let published = if outcome.interrupted { Ok(()) } else { this.publish(&outcome.results, start) };
    if args.open && !outcome.interrupted && published.is_ok() {
        browser::open(&this.page());
    }
    execute::conclude(outcome.failures, outcome.interrupted, published)
}

fn list() -> Result<()> {
    for table in TABLES {
        console::print(&format!("{}  {} ({} cells)", table.id, table.title, table.size()))?;
    }
    Ok(())
}

/// First 16 hex digits of the SHA-256 over the cells and the keys of the stages that end them, which are made of all settings
/// and of the data.
fn fingerprint(table: &Table, profile: Profile, cells: &[Cell], jobs: &[CellJobs], plan: &Plan) -> Result<String> {
    let key = |id: &JobId| plan.jobs()[id.index()].key.as_str();
    let of_cell = |(cell, jobs): (&Cell, &CellJobs)| {
        let ends = jobs.chain.last().into_iter().chain(&jobs.suite).map(key);
        [cell.label(table)].into_iter().chain(ends.map(str::to_string)).collect::<Vec<String>>()
    };
    let all: Vec<Vec<String>> = cells.iter().zip(jobs).map(of_cell).collect();
    let text = serde_json::to_string(&(table.id, profile, all))
        .map_err(|e| Error::Failed(format!("cannot name the run: {e}")))?;
    Ok(hex(&Sha256::digest(text)[..8]))
}

/// All stages of all cells, and the jobs of each cell.
fn plan(table: &Table, settings: &Settings, cells: &[Cell], device: &Device) -> Result<(Plan, Vec<CellJobs>)> {
    let mut plan = Plan::new(device.backend, device.precision);
    let jobs = cells.iter().map(|cell| cell.plan(table, settings, &mut plan)).collect::<Result<Vec<_>>>()?;
    Ok((plan, jobs))
}
