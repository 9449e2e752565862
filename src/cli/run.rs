//! `engine run`: a table of the paper.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use sha2::{Digest, Sha256};

use super::device_args::{Device, DeviceArgs};
use super::execute::Execution;
use super::fetch::FetchArgs;
use super::table_run::TableRun;
use super::{console, execute, run_dir};
use crate::base::error::{Error, Result};
use crate::base::files::hex;
use crate::base::named_enum::named_enum;
use crate::data::Dataset;
use crate::experiments::pipeline::{BackendName, JobId, Plan, Store};
use crate::experiments::tables;
use crate::experiments::tables::{Cell, CellJobs, Profile, Settings, TABLES, Table};

named_enum! {
    /// Attacks on cells beside the attack that measures them.
    pub enum ExtraAttack: "attack for a column of its own" {
        /// The standard AutoAttack ensemble.
        AutoAttack = "autoattack",
    }
}

#[derive(Args)]
pub struct RunArgs {
    /// Table to reproduce; `--list` shows them all
    #[arg(long, value_name = "ID", required_unless_present = "list")]
    table: Option<String>,
    /// Show every table: id, what it compares, number of cells
    #[arg(long)]
    list: bool,
    /// How much of the work is done [default: demo on the CPU, paper on a GPU]
    #[arg(long)]
    profile: Option<Profile>,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Directory with the data sets
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    fetch: FetchArgs,
    /// Directory for results; stages found there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Directory in it for the table [default: the table, the profile, and the flags that change what is asked]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Use only so many training images, of every class as many [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) train_images: Option<usize>,
    /// Use only so many test images, of every class as many [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) test_images: Option<usize>,
    /// Only these cells, like 16:1, 4:dense or kaiming_normal:adam; `*` stands for every name
    #[arg(long, value_name = "ROW:COLUMN", value_delimiter = ',')]
    pub(super) cells: Vec<String>,
    /// Only these methods, like admm,post-prune
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) method: Vec<String>,
    /// Seeds of each cell [default: the profile's]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=100_000),
        allow_negative_numbers = true
    )]
    pub(super) seeds: Option<u64>,
    /// First seed
    #[arg(
        long, value_name = "S", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..1 << 62),
        allow_negative_numbers = true
    )]
    pub(super) seed: u64,
    /// Epochs of each phase of training [default: the profile's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) epochs: Option<usize>,
    /// Also attack every cell's network with `autoattack`, in a column of its own
    #[arg(long, value_name = "NAME")]
    pub(super) attack: Option<ExtraAttack>,
    /// Attack so many test images with it, the first ones
    #[arg(
        long, value_name = "N", default_value_t = 1000, requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    pub(super) attack_images: u32,
    /// Stages to work on side by side [default: one a core, at most 4 on a GPU]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        allow_negative_numbers = true
    )]
    jobs: Option<u16>,
    /// Discard what earlier runs did of these cells; with --name, also another run of that name
    #[arg(long)]
    fresh: bool,
    /// No progress
    #[arg(long)]
    quiet: bool,
    /// Change a setting, like attack.eps=0.2; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<(String, String)>,
}

/// Splits `key=value` for `--set`.
pub fn key_value(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(Error::Usage(format!("expected KEY=VALUE, got '{text}'"))),
    }
}

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
    let data = load(args, table, profile)?;
    let settings = args.settings(table, profile, &data);
    let cells = tables::cells(table, &settings)?;
    let (plan, cell_jobs) = plan(table, &settings, &cells, &device)?;
    let store = Store::open(&args.out)?;
    let prepared = plan.prepare(&store, args.fresh)?;
    let jobs = execute::side_by_side(args.jobs.map(usize::from), &device, prepared.pending());
    let fingerprint = fingerprint(table, profile, &cells, &cell_jobs, &plan)?;
    let name = args.dir_name(table, profile)?;
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
    execute::conclude(outcome.failures, outcome.interrupted, published)
}

fn list() -> Result<()> {
    for table in TABLES {
        console::print(&format!("{}  {} ({} cells)", table.id, table.title, table.size()))?;
    }
    Ok(())
}

fn load(args: &RunArgs, table: &Table, profile: Profile) -> Result<Dataset> {
    let sample = table.sample(profile);
    let flags = [("--data", args.data.is_some()), ("--fetch", args.fetch.fetch)];
    if let (Some(_), Some((flag, _))) = (sample, flags.iter().find(|(_, is_set)| *is_set)) {
        return Err(Error::Usage(format!(
            "{flag}: the {profile} profile uses the embedded sample; add --profile quick, or drop {flag}"
        )));
    }
    let (data, (train, test)) = match sample {
        Some(images) => (Dataset::sample(table.dataset)?, images),
        None => {
            let data = args.fetch.load(table.dataset, args.data.as_deref(), "--profile demo needs none")?;
            let all = (data.train.len(), data.test.len());
            (data, all)
        }
    };
    data.subset(args.train_images.unwrap_or(train), args.test_images.unwrap_or(test))
}

impl RunArgs {
    /// A sentence about the cells that a demo has left out, with the command that runs them.
    fn not_run(&self, table: &Table, settings: &Settings, cells: &[Cell]) -> Option<String> {
        if settings.profile != Profile::Demo || !self.cells.is_empty() {
            return None;
        }
        let mut methods = settings.methods.clone();
        let wanted = table.blocks.iter().filter(|block| block.by_default && self.method.is_empty());
        methods.extend(wanted.map(|block| block.method.to_string()));
        let blocks: Vec<_> = table.blocks.iter().filter(|block| methods.iter().any(|m| m == block.method)).collect();
        let all: usize = blocks.iter().map(|block| block.cells().count()).sum();
        let run: HashSet<_> = cells.iter().map(|cell| (cell.at.block.method, cell.at.row, cell.at.column)).collect();
        let names: Vec<&str> = blocks.iter().map(|block| block.method).collect();
        let method = if self.method.is_empty() { format!(" --method {}", names.join(",")) } else { String::new() };
        let command = console::command_line();
        let left_out = all - run.len();
        (left_out > 0)
            .then(|| format!("Not run: {left_out} of {all} cells. All of them: {command} --cells '*:*'{method}"))
    }

    fn settings(&self, table: &Table, profile: Profile, data: &Dataset) -> Settings {
        let seeds = self.seeds.unwrap_or((table.seeds)(profile) as u64);
        let or = |given: &[String], default: Vec<String>| if given.is_empty() { default } else { given.to_vec() };
        let methods = or(&self.method, table.default_methods(profile));
        Settings {
            profile,
            data: data.id.clone(),
            train_images: data.train.len(),
            test_images: data.test.len(),
            cells: or(&self.cells, table.default_cells(profile, &methods)),
            methods,
            seeds: (self.seed..self.seed + seeds).collect(),
            epochs: self.epochs,
            autoattack: self.attack.map(|ExtraAttack::AutoAttack| self.attack_images as usize),
            overrides: self.set.clone(),
        }
    }
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: RunArgs,
    }

    fn settings(flags: &[&str]) -> Settings {
        let Cli { args } = Cli::try_parse_from([&["run", "--table", "t2"], flags].concat()).unwrap();
        let table = Table::find("t2").unwrap();
        let profile = args.profile.unwrap_or(Profile::Smoke);
        args.settings(table, profile, &load(&args, table, Profile::Smoke).unwrap())
    }

    #[test]
    fn what_is_not_said_is_the_tables() {
        let smoke = settings(&[]);
        assert_eq!((smoke.train_images, smoke.test_images, &*smoke.data.subset), (400, 200, "sample:400+200"));
        assert_eq!(smoke.methods, ["natural-training", "adversarial-training", "admm"]);
        assert_eq!((smoke.seeds, smoke.epochs, smoke.autoattack), (vec![0], None, None));
        assert!(smoke.cells.is_empty() && smoke.overrides.is_empty());
        assert_eq!(settings(&["--profile", "paper"]).seeds, [0, 1, 2]);
    }

    #[test]
    fn every_flag_changes_its_setting() {
        assert_eq!(settings(&["--seeds", "3", "--seed", "5"]).seeds, [5, 6, 7]);
        assert_eq!(settings(&["--seed", "5"]).seeds, [5]);
        let some = settings(&["--train-images", "70", "--test-images", "30"]);
        assert_eq!((some.train_images, some.test_images, &*some.data.subset), (70, 30, "sample:70+30"));
        assert_eq!(settings(&["--method", "admm,scratch"]).methods, ["admm", "scratch"]);
        assert_eq!(settings(&["--cells", "16:1,*:dense"]).cells, ["16:1", "*:dense"]);
        assert_eq!(settings(&["--epochs", "3"]).epochs, Some(3));
        assert_eq!(settings(&["--attack", "autoattack"]).autoattack, Some(1000));
        assert_eq!(settings(&["--attack", "autoattack", "--attack-images", "77"]).autoattack, Some(77));
        // Only the first sign of equality parts the two.
        assert_eq!(settings(&["--set", "a.b=c=d"]).overrides, [("a.b".to_string(), "c=d".to_string())]);
    }
}
