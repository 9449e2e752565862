//! Flags of `engine run`.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;

use super::command_line;
use super::device_args::DeviceArgs;
use super::fetch::FetchArgs;
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::data::Dataset;
use crate::experiments::tables::{Cell, Profile, Settings, Table};

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
    pub table: Option<String>,
    /// Show every table: id, what it compares, number of cells
    #[arg(long)]
    pub list: bool,
    /// How much of the work is done [default: demo on the CPU, paper on a GPU]
    #[arg(long)]
    pub profile: Option<Profile>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Directory with the data sets
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub fetch: FetchArgs,
    /// Directory for results; stages found there are not done again
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: PathBuf,
    /// Directory in it for the table [default: the table, the profile, and the flags that change what is asked]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Use only so many training images, of every class as many [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub train_images: Option<usize>,
    /// Use only so many test images, of every class as many [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub test_images: Option<usize>,
    /// Only these cells, like 16:1, 4:dense or kaiming_normal:adam; `*` stands for every name
    #[arg(long, value_name = "ROW:COLUMN", value_delimiter = ',')]
    pub cells: Vec<String>,
    /// Only these methods, like admm,post-prune
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub method: Vec<String>,
    /// Seeds of each cell [default: the profile's]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=100_000),
        allow_negative_numbers = true
    )]
    pub seeds: Option<u64>,
    /// First seed
    #[arg(
        long, value_name = "S", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..1 << 62),
        allow_negative_numbers = true
    )]
    pub seed: u64,
    /// Epochs of each phase of training [default: the profile's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub epochs: Option<usize>,
    /// Also attack every cell's network with `autoattack`, in a column of its own
    #[arg(long, value_name = "NAME")]
    pub attack: Option<ExtraAttack>,
    /// Attack so many test images with it, the first ones
    #[arg(
        long, value_name = "N", default_value_t = 1000, requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    pub attack_images: u32,
    /// Stages to work on side by side; those that run share the CPU threads [default: one a core, at most 4 on a GPU]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        allow_negative_numbers = true
    )]
    pub jobs: Option<u16>,
    /// Discard what earlier runs did of these cells; with --name, also another run of that name
    #[arg(long)]
    pub fresh: bool,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
    /// Open the page of the run in a browser when it is done
    #[arg(long)]
    pub open: bool,
    /// Change a setting, like attack.eps=0.2; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

/// Splits `key=value` for `--set`.
pub fn key_value(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(Error::Usage(format!("expected KEY=VALUE, got '{text}'"))),
    }
}

impl RunArgs {
    /// The images that the run is about.
    ///
    /// # Errors
    /// [`Error::Usage`] for flags that do not go together; as [`FetchArgs::load`] and [`Dataset::subset`].
    pub fn load(&self, table: &Table, profile: Profile) -> Result<Dataset> {
        let sample = table.sample(profile);
        let FetchArgs { fetch, mirror } = &self.fetch;
        let flags = [("--data", self.data.is_some()), ("--fetch", *fetch), ("--mirror", mirror.is_some())];
        if let (Some(_), Some((flag, _))) = (sample, flags.iter().find(|(_, is_set)| *is_set)) {
            return Err(Error::Usage(format!(
                "{flag}: the {profile} profile uses the embedded sample; add --profile quick, or drop {flag}"
            )));
        }
        let (data, (train, test)) = match sample {
            Some(images) => (Dataset::sample(table.dataset)?, images),
            None => {
                let data = self.fetch.load(table.dataset, self.data.as_deref(), "--profile demo needs none")?;
                let all = (data.train.len(), data.test.len());
                (data, all)
            }
        };
        data.subset(self.train_images.unwrap_or(train), self.test_images.unwrap_or(test))
    }

    /// A sentence about the cells that a demo has left out, with the command that runs them.
    pub fn not_run(&self, table: &Table, settings: &Settings, cells: &[Cell]) -> Option<String> {
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
        // A name would be that of this run.
        let command = command_line::engine_without("--name");
        let left_out = all - run.len();
        (left_out > 0)
            .then(|| format!("Not run: {left_out} of {all} cells. All of them: {command} --cells '*:*'{method}"))
    }

    /// The settings of the table that the flags describe.
    pub fn settings(&self, table: &Table, profile: Profile, data: &Dataset) -> Settings {
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

/// The arguments of a run of table 2 with these flags.
#[cfg(test)]
pub fn of_table_2(flags: &[&str]) -> RunArgs {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: RunArgs,
    }
    let parsed = <Cli as clap::Parser>::try_parse_from([&["run", "--table", "t2"], flags].concat());
    parsed.unwrap_or_else(|error| panic!("{error}")).args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &[&str]) -> Settings {
        let args = of_table_2(flags);
        let table = Table::find("t2").unwrap();
        let profile = args.profile.unwrap_or(Profile::Smoke);
        args.settings(table, profile, &args.load(table, Profile::Smoke).unwrap())
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
