//! Downloads of data sets, and flags of the verbs that need one.

use std::path::Path;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::console;
use crate::base::error::{Error, Result};
use crate::data::download::Event;
use crate::data::fetch::FetchPlan;
use crate::data::locate::{ENV, Roots, download_dir};
use crate::data::{Dataset, DatasetName};

/// Flags for a data set that is not on this machine yet.
#[derive(Args)]
pub struct FetchArgs {
    /// Download the data set if it is not on this machine; without this flag you are asked on a terminal
    #[arg(long)]
    pub fetch: bool,
    /// Download it from URL/<file> instead of the usual server
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
}

impl FetchArgs {
    /// Reads a data set as [`Dataset::load`] does. If files of it are missing they are downloaded first, if `--fetch` or the
    /// user says so. `without` tells how the command does without any.
    ///
    /// # Errors
    /// [`Error::Input`] if files are missing and shall not be downloaded; as [`FetchPlan::run`] and [`Dataset::load`].
    pub fn load(&self, name: DatasetName, dir: Option<&Path>, without: &str) -> Result<Dataset> {
        if let Err(missing) = Roots::new(dir).find(name).and_then(|found| found.check_complete()) {
            self.supply(name, dir, missing, without)?;
        }
        Dataset::load(name, dir)
    }

    /// Downloads what is missing, or says how to get it.
    fn supply(&self, name: DatasetName, dir: Option<&Path>, missing: Error, without: &str) -> Result<()> {
        let Error::Input { path, problem, .. } = missing else { return Err(missing) };
        let info = name.info();
        let size = format!("{:.0} MB", info.download_bytes as f64 / 1e6);
        let refused = || {
            let hint = format!(
                "add --fetch to download it ({size}), run `engine data fetch --data-set {name}`, or name its directory \
                 with --data or {ENV}; {without}"
            );
            Err(Error::input(&path, &problem, hint))
        };
        if !self.fetch && !console::is_terminal() {
            return refused();
        }
        let plan = FetchPlan::new(name, &download_dir(dir)?, self.mirror.as_deref())?;
        if !self.fetch {
            console::note(&format!("{}: {problem}", path.display()));
            let question = format!("Download {} ({size}) to {} now?", info.title, plan.dir.display());
            if !console::confirmed(&question)? {
                return refused();
            }
        }
        download(&plan)
    }
}

/// Downloads with a bar on a terminal, and a line for each file anywhere.
pub fn download(plan: &FetchPlan) -> Result<()> {
    // Draws on standard error, and nothing at all if that is not a terminal.
    let bar = ProgressBar::no_length();
    let style = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut printed = Ok(());
    let result = plan.run(&mut |event| {
        let line = match event {
            Event::Bytes(n) => return bar.inc(n),
            Event::Start { file, have, total } => {
                bar.reset();
                bar.set_message(file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()));
                bar.set_length(total.unwrap_or(have));
                return bar.set_position(have);
            }
            Event::Retry { reason } => format!("trying again: {reason}"),
            Event::Present { file } => format!("{}: present and verified", file.display()),
            Event::Done { file } => format!("{}: downloaded and verified", file.display()),
        };
        let outcome = bar.suspend(|| console::print(&line));
        printed = std::mem::replace(&mut printed, Ok(())).and(outcome);
    });
    bar.finish_and_clear();
    result.and(printed)
}
