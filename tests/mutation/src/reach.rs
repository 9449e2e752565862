//! Which tests reach which switch and launch which kernel, without any fault.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::records::Records;
use crate::runner::{End, Env, Runner, Test, each, empty};

/// No test takes longer without a fault.
const LIMIT: Duration = Duration::from_secs(600);

/// What is known of a test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    pub test: Test,
    pub seconds: f64,
    /// Whether it passes without a fault; else it is not asked.
    pub passed: bool,
    pub switches: BTreeSet<usize>,
    pub kernels: BTreeSet<String>,
}

impl Known {
    /// How long it may take with a fault before it hangs.
    pub fn limit(&self) -> Duration {
        Duration::from_secs_f64(10.0 + 10.0 * self.seconds)
    }
}

/// Runs every test that has no record in the file at `path` yet, and returns what is known of all, the quickest first.
///
/// # Errors
/// In one line.
pub fn reach(runner: &Runner, path: &Path, key: &str, jobs: usize) -> Result<Vec<Known>, String> {
    let tests = runner.list()?;
    let records: Records<Known> = Records::open(path, key)?;
    let mut known: HashMap<Test, Known> = records.all().into_iter().map(|known| (known.test.clone(), known)).collect();
    let missing: Vec<(usize, &Test)> = tests.iter().filter(|test| !known.contains_key(test)).enumerate().collect();
    let found = Mutex::new(Vec::new());
    if !missing.is_empty() {
        println!("{} of {} tests run once, to see what they reach", missing.len(), tests.len());
    }
    each(jobs, &missing, |(at, test)| {
        let fresh = one(runner, test, &runner.scratch.join(format!("reach-{at}")))?;
        records.add(&fresh)?;
        found.lock().expect("no thread panics").push(fresh);
        Ok(())
    })?;
    let found = found.into_inner().expect("no thread panics");
    known.extend(found.into_iter().map(|fresh| (fresh.test.clone(), fresh)));
    let mut all: Vec<Known> = tests.iter().filter_map(|test| known.remove(test)).collect();
    all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(all)
}

fn one(runner: &Runner, test: &Test, notes: &Path) -> Result<Known, String> {
    empty(notes)?;
    let (switches, kernels) = (notes.join("switches"), notes.join("kernels"));
    let env: Env = vec![("MUTATION_REACHED", (&switches).into()), ("ENGINE_HOST_LAUNCHES", (&kernels).into())];
    let (end, time) = runner.run(test, &env, LIMIT)?;
    // Nothing is reached where nothing was written.
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let (switches, kernels) = (lines(&switches), lines(&kernels));
    let _ = fs::remove_dir_all(notes);
    Ok(Known {
        test: test.clone(),
        seconds: time.as_secs_f64(),
        passed: end == End::Passed,
        switches: switches.lines().filter_map(|line| line.parse().ok()).collect(),
        kernels: kernels.lines().map(String::from).collect(),
    })
}
