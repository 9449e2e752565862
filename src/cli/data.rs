//! `engine data`: what data there is, whether it is right, and how to get it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::console::print;
use super::fetch::download;
use crate::base::error::{Error, Result};
use crate::data::fetch::FetchPlan;
use crate::data::locate::{Roots, download_dir};
use crate::data::verify::{Verification, verify};
use crate::data::{Dataset, DatasetName, sample};

/// Arguments of `engine data`.
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show each data set: where it is, or how to get it
    List {
        #[command(flatten)]
        dir: DataDir,
    },
    /// Check structure and SHA-256 of every file
    Verify {
        #[command(flatten)]
        data_sets: DataSetsArgs,
        #[command(flatten)]
        dir: DataDir,
    },
    /// Write the sample embedded in this program as files in the published layout
    Sample {
        #[command(flatten)]
        data_sets: DataSetsArgs,
        /// Directory to write to; created if need be, files in it are not replaced
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Download what is missing; an interrupted download goes on where it stopped
    Fetch {
        #[command(flatten)]
        data_sets: DataSetsArgs,
        #[command(flatten)]
        dir: DataDir,
        /// Download from URL/<file> instead of the usual server; needs --data-set
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
    },
}

#[derive(Args, Debug)]
struct DataDir {
    /// Data directory [default: $ENGINE_DATA, then the platform's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct DataSetsArgs {
    /// Only this data set; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    data_set: Vec<DatasetName>,
}

impl DataSetsArgs {
    fn names(&self) -> &[DatasetName] {
        if self.data_set.is_empty() { DatasetName::ALL } else { &self.data_set }
    }
}

/// Runs `engine data`.
///
/// # Errors
///
/// Those of the library: wrong input, no network, no space. `verify` fails after its report if anything is wrong.
pub fn run(args: &DataArgs) -> Result<()> {
    match &args.command {
        Command::List { dir } => list(dir.data.as_deref()),
        Command::Verify { data_sets, dir } => verify_all(data_sets, dir.data.as_deref()),
        Command::Sample { data_sets, out } => data_sets.names().iter().try_for_each(|&name| {
            let dir = sample::write(name, out)?;
            print(&format!("{name}: sample written to {}", dir.display()))
        }),
        Command::Fetch { data_sets, dir, mirror } => {
            // MNIST and Fashion-MNIST have files of the same names, so a mirror can only be one set's.
            if mirror.is_some() && data_sets.data_set.len() != 1 {
                return Err(Error::Usage("--mirror is for one data set; name it with --data-set".into()));
            }
            let root = download_dir(dir.data.as_deref())?;
            data_sets.names().iter().try_for_each(|&name| download(&FetchPlan::new(name, &root, mirror.as_deref())?))
        }
    }
}

fn list(data: Option<&Path>) -> Result<()> {
    let roots = Roots::new(data);
    for &name in DatasetName::ALL {
        print(&match roots.find(name) {
            Ok(found) => format!("{name:14} {}", describe(verify(&found))),
            Err(_) => format!("{name:14} not found; get it with `engine data fetch --data-set {name}`"),
        })?;
    }
    print(&format!("{roots}\n\nIn this program:"))?;
    for &name in DatasetName::ALL {
        let data = Dataset::sample(name)?;
        print(&format!("{name:14} {}, {}", counts([data.train.len(), data.test.len()], name), data.origin))?;
    }
    Ok(())
}

/// One line about the files of a data set.
fn describe(checks: Verification) -> String {
    let (counts, dir) = (counts(checks.images(), checks.name), checks.dir.clone());
    match checks.verdict() {
        Ok(content) => format!("{counts}, {content}, in {}", dir.display()),
        Err(error) => format!("damaged: {error}"),
    }
}

/// "60000 + 10000 images of 1×28×28".
fn counts([train, test]: [usize; 2], name: DatasetName) -> String {
    let [c, h, w] = name.info().shape;
    format!("{train} + {test} images of {c}×{h}×{w}")
}

fn verify_all(data_sets: &DataSetsArgs, data: Option<&Path>) -> Result<()> {
    let roots = Roots::new(data);
    let mut verdict = Ok(());
    let mut checked = 0;
    for &name in data_sets.names() {
        let found = match roots.find(name) {
            Ok(found) => found,
            // Nobody needs all sets; only one asked for by name has to be there.
            Err(_) if data_sets.data_set.is_empty() => {
                print(&format!("{name}: not found"))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        checked += 1;
        let checks = verify(&found);
        print(&report(&checks))?;
        verdict = verdict.and(checks.verdict().map(drop));
    }
    match checked {
        0 => Err(Error::Usage(format!("no data set to verify ({roots}); get one with `engine data fetch`"))),
        _ => verdict,
    }
}

/// A line for each file.
fn report(checks: &Verification) -> String {
    let line = |check: &crate::data::verify::FileCheck| match &check.outcome {
        Ok(c) => format!("{}: {} records, SHA-256 {}, {}\n", check.path.display(), c.records, c.sha256, c.content),
        Err(error) => format!("{error}\n"),
    };
    checks.files.iter().map(line).collect()
}
