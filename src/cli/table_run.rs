//! The output of `engine run`: its first line, the table, and the files.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::device_args::Device;
use super::run_examples::ExampleMaker;
use super::run_page::Gathering;
use super::{command_line, console, provenance, run_dir};
use crate::base::error::{Error, Result};
use crate::base::files::remove_if_present;
use crate::base::json::exact_json;
use crate::checkpoint::write_atomic;
use crate::data::Dataset;
use crate::experiments::pipeline::{Job, Plan, StageResult, Store};
use crate::experiments::report::page::Page;
use crate::experiments::report::run_record::{DataRecord, RUN_FILE, RunRecord};
use crate::experiments::report::{Report, csv, curves, markdown, rates, svg, terminal};
use crate::experiments::tables;
use crate::experiments::tables::{Cell, CellJobs, Difference, Settings, Table};

/// One run of one table.
pub struct TableRun<'a> {
    pub table: &'static Table,
    pub settings: Settings,
    pub data: Dataset,
    pub device: Device,
    pub cells: Vec<Cell>,
    pub plan: &'a Plan,
    /// The jobs of each cell.
    pub jobs: Vec<CellJobs>,
    pub store: &'a Store,
    /// Where the table goes.
    pub dir: PathBuf,
    /// Of the run, see [`RunRecord::fingerprint`].
    pub fingerprint: String,
    /// A sentence about the cells that were left out.
    pub not_run: Option<String>,
}

impl TableRun<'_> {
    /// The work, the device, the time it should take and where the results go.
    pub fn first_line(&self, pending: usize, jobs: usize, time: &str) -> String {
        let stages = self.plan.jobs().len();
        format!(
            "{} {}: {}; {} from {}; {stages} stages, {} finished, {jobs} side by \
             side; {time}; results in {}",
            self.table.id,
            self.settings.profile,
            self.device.describe(),
            self.data.id.name,
            self.data.origin,
            stages - pending,
            self.dir.display(),
        )
    }

    /// Writes and prints what the finished cells say; `start` is when this run began.
    pub fn publish(&self, results: &[Option<StageResult>], start: Instant) -> Result<()> {
        let report = self.report(results)?;
        self.write(&report, results, start.elapsed())?;
        console::print(&format!("\n{}", terminal::terminal(&report)))?;
        console::print(&format!(
            "\nWritten to {}: table.csv, table.md, table.svg, run.json, curves/, report.html",
            self.dir.display()
        ))?;
        console::print(&format!("Everything on one page: {}", self.page().display()))
    }

    /// The page with everything.
    pub fn page(&self) -> PathBuf {
        self.dir.join("report.html")
    }

    /// The report of the finished cells, with a note of where the numbers come from.
    fn report(&self, results: &[Option<StageResult>]) -> Result<Report> {
        let differences = tables::differences(self.table, &self.settings, &self.cells)?;
        let mut report = tables::report(self.table, &self.settings, &self.cells, self.plan, &self.jobs, results);
        let Device { backend, precision, .. } = &self.device;
        let (profile, name, origin) = (self.settings.profile, self.data.id.name, &self.data.origin);
        let seeds = self.settings.seeds.len();
        report
            .notes
            .push(format!("Profile {profile}, {backend} {precision}, {name} from {origin}, seeds a cell: {seeds}."));
        report.differences = differences.iter().map(Difference::to_string).collect();
        if !report.differences.is_empty() {
            report.notes.push(format!(
                "NOT comparable with the published numbers: {} settings are not the paper's; table.md and report.html name them.",
                report.differences.len()
            ));
        }
        report.notes.extend(self.not_run.clone());
        report.majority = 100.0 * self.data.test.majority();
        let changes: Vec<String> =
            self.settings.overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if !changes.is_empty() {
            report.settings.push(format!("Settings changed by the user: {}.", changes.join(", ")));
        }
        if let Some(images) = self.settings.autoattack {
            let images = images.min(self.settings.test_images);
            report.settings.push(format!("AutoAttack: the standard ensemble on the first {images} test images."));
        }
        Ok(report)
    }

    /// Writes the table's files; `wall` is the time this run took.
    fn write(&self, report: &Report, results: &[Option<StageResult>], wall: Duration) -> Result<()> {
        let create = |dir: &PathBuf| fs::create_dir_all(dir).map_err(Error::io(dir, "create directory"));
        create(&self.dir)?;
        run_dir::clear_another(&self.dir, &self.fingerprint)?;
        let path = self.dir.join("table.csv");
        let mut table = Vec::new();
        csv::write_csv(report, &mut table).map_err(Error::io(&path, "write"))?;
        write_atomic(&path, &table)?;
        write_atomic(&self.dir.join("table.md"), markdown::markdown(report).as_bytes())?;
        write_atomic(&self.dir.join("table.svg"), svg::table_svg(report)?.as_bytes())?;
        if let Some(rates) = rates::rates_svg(report)? {
            write_atomic(&self.dir.join("rates.svg"), rates.as_bytes())?;
        }
        let path = self.dir.join(RUN_FILE);
        let record = self.record(wall)?;
        let mut json = Vec::new();
        record.write(&mut json).map_err(Error::io(&path, "write"))?;
        write_atomic(&path, &json)?;

        let curves_dir = self.dir.join(run_dir::CURVES);
        create(&curves_dir)?;
        for (cell, end) in self.ends() {
            let path = curves_dir.join(format!("{}.svg", cell.file_name()));
            let rows = self.store.metrics(&end.key)?;
            // A failed stage has curves too, and they may tell why; one that never started has none.
            if rows.is_empty() {
                remove_if_present(&path)?;
            } else {
                write_atomic(&path, curves::curves_svg(&cell.label(self.table), &rows)?.as_bytes())?;
            }
        }
        self.write_page(report, &record, results)
    }

    fn write_page(&self, report: &Report, record: &RunRecord, results: &[Option<StageResult>]) -> Result<()> {
        let TableRun { cells, jobs, plan, store, .. } = self;
        let examples = &ExampleMaker::new(&self.data, &self.device);
        let cells = Gathering { cells, jobs, plan, store, results, examples }.gather()?;
        let whole = self.not_run.is_some().then(|| tables::whole_grid(self.table, report));
        let report = whole.as_ref().unwrap_or(report);
        let page = Page { report, record, command: &command_line::engine(), cells: &cells };
        write_atomic(&self.page(), page.html()?.as_bytes())
    }

    /// The cells, each with its last job.
    fn ends(&self) -> impl Iterator<Item = (&Cell, &Job)> {
        let jobs = self.plan.jobs();
        self.cells.iter().zip(&self.jobs).filter_map(|(cell, of)| Some((cell, &jobs[of.chain.last()?.index()])))
    }

    fn record(&self, wall: Duration) -> Result<RunRecord> {
        let mut stages = Vec::new();
        for (cell, end) in self.ends() {
            let chain = exact_json(&cell.chain)?;
            stages.push(json!({ "cell": cell.label(self.table), "stage": end.key, "chain": chain }));
        }
        Ok(RunRecord {
            command: command_line::args(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            commit: option_env!("ENGINE_COMMIT").map(str::to_string),
            table: self.table.id.to_string(),
            profile: self.settings.profile.to_string(),
            fingerprint: self.fingerprint.clone(),
            seeds: self.settings.seeds.clone(),
            data: vec![DataRecord { id: self.data.id.clone(), origin: self.data.origin.clone() }],
            machine: provenance::machine(&self.device),
            config: Value::Array(stages),
            wall_seconds: wall.as_secs_f64(),
        })
    }
}
