//! Running a plan, for every verb that has one.

use std::path::Path;
use std::time::Duration;

use indicatif::HumanDuration;

use super::device_args::Device;
use super::plan_progress::PlanProgress;
use super::{console, interrupt};
use crate::base::error::{Error, Result};
use crate::data::Dataset;
use crate::experiments::pipeline::{BackendName, EngineWorker, Failure, Outcome, Plan, Prepared, StageConfig};
use crate::nn::models::Architecture;

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
/// As many as there are cores, because narrow networks do not fill several; on a GPU at most [`GPU_JOBS`].
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
    let spec = device.spec((device.threads / jobs).max(1));
    let worker = EngineWorker::new(data, import, spec, jobs.min(prepared.pending()))?;
    let progress = PlanProgress::new(plan, &prepared, quiet);
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
    let work: f64 =
        prepared.remaining().map(|(job, image_passes)| image_passes as f64 * cost(&job.stage.config) as f64).sum();
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
        interrupt::note_resume();
        return Err(Error::Interrupted);
    }
    let Some(worst) = worst else { return published };
    if let Err(error) = published {
        note_failure(&error);
    }
    Err(worst.into_error())
}

fn note_failure(error: &Error) {
    console::note(&format!("failed: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataId, DatasetName};
    use crate::experiments::pipeline::{JobId, Precision, Store};
    use crate::experiments::tables::defaults::paper_training;

    fn device(backend: BackendName, threads: usize) -> Device {
        Device { backend, precision: Precision::F32, threads, gpu: None }
    }

    /// A plan of one training of LeNet w=1 that takes so many image passes.
    fn plan(passes: u64) -> (Plan, JobId) {
        let data = DataId { name: DatasetName::Mnist, subset: "full".into(), fingerprint: "0".into() };
        let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
        let id = plan.add("a stage", StageConfig::Train(paper_training(&data, 60_000)), &[], passes).unwrap();
        (plan, id)
    }

    #[test]
    fn as_many_stages_as_cores_but_no_more_than_there_are() {
        let (cpu, gpu) = (device(BackendName::Cpu, 6), device(BackendName::Cuda, 16));
        assert_eq!([20, 3, 1, 0].map(|pending| side_by_side(None, &cpu, pending)), [6, 3, 1, 1]);
        assert_eq!([20, 4].map(|pending| side_by_side(Some(9), &cpu, pending)), [9, 4]);
        assert_eq!(side_by_side(None, &gpu, 20), 4);
        assert_eq!(side_by_side(None, &device(BackendName::Cuda, 2), 20), 2);
        assert_eq!(side_by_side(Some(9), &gpu, 20), 9);
    }

    /// LeNet w=1 has 25·2·784 + 50·4·196 + 196·64 + 64·10 = 91,584 multiply-adds, and a pass takes them twice.
    #[test]
    fn the_estimate_is_work_by_speed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let of = |passes, device: &Device| {
            let (plan, _) = plan(passes);
            estimate(&plan.prepare(&store, false).unwrap(), device)
        };
        // 1.83e14 of them take 12,211 s of a core, and 37 s of the GPU.
        let passes = 1_000_000_000;
        let core = "at 15 G multiply-adds/s a core";
        assert_eq!(of(passes, &device(BackendName::Cpu, 1)), format!("about 3 hours {core}"));
        assert_eq!(of(passes, &device(BackendName::Cpu, 6)), format!("about 34 minutes {core}"));
        assert_eq!(of(passes / 1000, &device(BackendName::Cpu, 1)), format!("about 12 seconds {core}"));
        assert_eq!(of(1, &device(BackendName::Cpu, 1)), format!("about 1 second {core}"));
        assert_eq!(of(passes, &device(BackendName::Cuda, 6)), "about 37 seconds at 5000 G multiply-adds/s");
        assert_eq!(of(0, &device(BackendName::Cpu, 1)), "nothing left to do");
    }

    #[test]
    fn a_command_ends_with_the_first_of_its_worst_failures() {
        let failed = |error| Failure { id: plan(1).1, label: "a stage".into(), error };
        let failures = || {
            let usage = |text: &str| Error::Usage(text.into());
            let all = [Error::Failed("one".into()), usage("two"), usage("three"), Error::Diverged("four".into())];
            all.map(failed).into()
        };
        let end =
            |failures, interrupted, published| conclude(failures, interrupted, published).map_err(|e| e.to_string());
        assert_eq!(end(failures(), false, Ok(())), Err("two".into()));
        assert_eq!(end(failures(), true, Ok(())), Err("interrupted".into()));
        assert_eq!(end(failures(), false, Err(Error::Failed("no table".into()))), Err("two".into()));
        assert_eq!(end(vec![failed(Error::Diverged("NaN".into()))], false, Ok(())), Err("a stage: NaN".into()));
        assert_eq!(end(vec![], false, Err(Error::Failed("no table".into()))), Err("no table".into()));
        assert_eq!(end(vec![], false, Ok(())), Ok(()));
    }
}
