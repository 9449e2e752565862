//! Running a plan, for every verb that has one.

use std::path::Path;

use super::device_args::Device;
use super::estimate::{Estimate, Probe};
use super::plan_progress::PlanProgress;
use super::{console, interrupt};
use crate::base::error::{Error, Result};
use crate::data::Dataset;
use crate::experiments::pipeline::{BackendName, EngineWorker, Failure, Outcome, Plan, Prepared};

/// Stages side by side on a GPU, each on a stream of its own: one narrow network leaves most of it idle, but each takes
/// memory and a thread that feeds it. Four attacks on 64 digits each, two of their blocks on a multiprocessor, fill an H200.
const GPU_JOBS: usize = 4;

/// How many stages to work on side by side, where the user has not said.
///
/// As many as there are cores, because narrow networks do not fill several, and stages that run divide the cores anew at every step;
/// on a GPU at most [`GPU_JOBS`].
pub fn side_by_side(jobs: Option<usize>, device: &Device, pending: usize) -> usize {
    let usual = match device.backend {
        BackendName::Cpu => device.threads,
        BackendName::Cuda => device.threads.min(GPU_JOBS),
    };
    jobs.unwrap_or(usual).min(pending).max(1)
}

/// The unfinished stages of a plan, the backends for them, and how long they should take.
pub struct Execution<'a> {
    plan: &'a Plan,
    prepared: Prepared<'a>,
    worker: EngineWorker<'a>,
    estimate: Estimate,
    jobs: usize,
}

impl<'a> Execution<'a> {
    /// Gets ready to do the work of `prepared`, a preparation of `plan`, at most `jobs` stages at a time, and measures how long it
    /// will take. `import` is the file of its import stage, if it has one.
    ///
    /// # Errors
    /// As [`EngineWorker::new`].
    pub fn new(
        plan: &'a Plan,
        prepared: Prepared<'a>,
        data: &'a Dataset,
        device: &Device,
        jobs: usize,
        import: Option<&'a Path>,
    ) -> Result<Self> {
        let spec = device.spec();
        let slots = jobs.min(prepared.pending());
        let worker = EngineWorker::new(data, import, spec, slots)?;
        let probe = Probe { data, spec, slots };
        let estimate = Estimate::new(plan, &prepared, data, slots, |kinds| probe.measure(&worker, kinds));
        Ok(Execution { plan, prepared, worker, estimate, jobs })
    }

    /// "about 2 minutes, measured in 1.0 s".
    pub fn promise(&self) -> String {
        self.estimate.promise()
    }

    /// Does the work, showing progress and heeding Ctrl-C.
    ///
    /// # Errors
    /// [`Error::Failed`] if Ctrl-C cannot be watched for.
    pub fn run(self, quiet: bool) -> Result<Outcome> {
        let Execution { plan, prepared, worker, estimate, jobs } = self;
        let stop = interrupt::flag()?;
        let progress = PlanProgress::new(plan, &prepared, estimate, quiet);
        let outcome = prepared.run(&worker, &progress, stop, jobs);
        progress.finish();
        Ok(outcome)
    }
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
    use crate::experiments::pipeline::{Precision, StageConfig};
    use crate::experiments::tables::defaults::paper_training;

    fn device(backend: BackendName, threads: usize) -> Device {
        Device { backend, precision: Precision::F32, threads, gpu: None }
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

    #[test]
    fn a_command_ends_with_the_first_of_its_worst_failures() {
        let data = DataId { name: DatasetName::Mnist, subset: "full".into(), fingerprint: "0".into() };
        let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
        let id = plan.add("a stage", StageConfig::Train(paper_training(&data, 60_000)), &[], 1).unwrap();
        let failed = |error| Failure { id, label: "a stage".into(), error };
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
