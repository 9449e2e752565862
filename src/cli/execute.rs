//! Running a plan, for every verb that has one.

use std::path::Path;
use std::time::Duration;

use indicatif::HumanDuration;

use super::device::Device;
use super::progress::Progress;
use super::{interrupt, output};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::models::Architecture;
use crate::pipeline::{BackendName, EngineWorker, Failure, Outcome, Plan, Prepared, StageConfig};

/// Assumed speed of a core, for the estimate before anything has been measured: LeNet w=1 reaches 17e9 on an idle AVX2
/// core, and no core is quite idle.
const MULTIPLY_ADDS_PER_SECOND: f64 = 15e9;

/// Assumed speed of a GPU, for the same purpose; no measurement stands behind it.
const GPU_MULTIPLY_ADDS_PER_SECOND: f64 = 5e12;

/// Stages side by side on a GPU, each on a stream of its own: one narrow network leaves most of it idle, but each takes
/// memory and a thread that feeds it. Four attacks on 64 digits each, two of their blocks on a multiprocessor, fill an H200.
const GPU_JOBS: usize = 4;

/// How many stages to work on side by side, where the user has not said.
///
/// Narrow networks do not fill several cores, so as many as there are cores.
pub fn side_by_side(jobs: Option<usize>, device: &Device, pending: usize) -> usize {
    let usual = match device.backend {
        BackendName::Cpu => device.threads,
        BackendName::Cuda => device.threads.min(GPU_JOBS),
    };
    jobs.unwrap_or(usual).min(pending).max(1)
}

/// Does the work of `prepared`, a preparation of `plan`, showing progress and heeding Ctrl-C; `import` is the
/// file of its import stage, if it has one.
pub fn execute(
    plan: &Plan,
    prepared: Prepared<'_>,
    data: &Dataset,
    device: &Device,
    jobs: usize,
    quiet: bool,
    import: Option<&Path>,
) -> Result<Outcome> {
    let stop = interrupt::flag()?;
    let progress = Progress::new(plan, &prepared, quiet);
    let worker = EngineWorker { data, threads: (device.threads / jobs).max(1), import };
    let outcome = prepared.run(&worker, &progress, stop, jobs);
    progress.finish();
    Ok(outcome)
}

/// "about 2 minutes", from the networks' multiply-adds and an assumed speed; it says so.
pub fn estimate(prepared: &Prepared<'_>, device: &Device) -> String {
    // A pass is one forward and one backward through the activations.
    let cost = |config: &StageConfig| {
        let (network, width) = config.network();
        Architecture::new(network, width, 10).map_or(0, |a| 2 * a.multiply_adds)
    };
    let work: f64 = prepared.remaining().map(|(job, passes)| passes as f64 * cost(&job.stage.config) as f64).sum();
    if work == 0.0 {
        return "nothing left to do".to_string();
    }
    let (speed, units, of) = match device.backend {
        BackendName::Cpu => (MULTIPLY_ADDS_PER_SECOND, device.threads, " a core"),
        BackendName::Cuda => (GPU_MULTIPLY_ADDS_PER_SECOND, 1, ""),
    };
    let seconds = work / (speed * units as f64);
    format!(
        "about {} at {} G multiply-adds/s{of}",
        HumanDuration(Duration::from_secs_f64(seconds.clamp(1.0, 1e9))),
        speed / 1e9
    )
}

/// Turns what went wrong into the command's own end: all but one of the failures are listed, and the one is returned.
/// `published` is what came of showing the results.
///
/// # Errors
/// [`Error::Interrupted`], after telling how to resume, or else the failure with the highest exit code.
pub fn conclude(mut failures: Vec<Failure>, interrupted: bool, published: Result<()>) -> Result<()> {
    // The first of the worst: `max_by_key` would give the last.
    let worst = (0..failures.len()).rev().max_by_key(|&i| failures[i].error.exit_code());
    let worst = worst.filter(|_| !interrupted).map(|i| failures.remove(i));
    failures.into_iter().for_each(|failure| note_failure(&failure.into_error()));
    if interrupted {
        output::note(&format!("interrupted; the state is saved, resume with: {}", interrupt::resume_command()));
        return Err(Error::Interrupted);
    }
    let Some(worst) = worst else { return published };
    if let Err(error) = published {
        note_failure(&error);
    }
    Err(worst.into_error())
}

fn note_failure(error: &Error) {
    output::note(&format!("failed: {error}"));
}
