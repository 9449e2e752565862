//! Plans the stages and runs them: every stage once, parents first, several side by side.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use super::result::StageResult;
use super::stage::{BackendName, Precision, Stage, StageConfig};
use super::store::{StageDir, Store};
use super::worker::Worker;
use crate::base::error::{Error, Result};
use crate::train::{EpochRow, Observer};

/// A job's place in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId(usize);

impl JobId {
    /// Counted from 0, in the order the jobs were added.
    pub fn index(self) -> usize {
        self.0
    }
}

/// A stage that a plan wants done.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its place in the plan.
    pub id: JobId,
    /// The stage's key.
    pub key: String,
    /// Its name for the user; a stage that was added twice keeps the first one.
    pub label: String,
    /// The work.
    pub stage: Stage,
    /// Image passes in all.
    pub image_passes: u64,
    /// The jobs whose results it starts from.
    pub parents: Vec<JobId>,
}

/// Hears how a plan proceeds; called from several threads at once.
pub trait Monitor: Sync {
    /// Work on a stage begins; earlier runs trained `epochs` of its epochs.
    fn started(&self, job: &Job, epochs: usize);
    /// So many more image passes are done.
    fn advanced(&self, job: &Job, image_passes: u64);
    /// From now on this many image passes of the stage are left, at most.
    fn expect(&self, _job: &Job, _left: u64) {}
    /// An epoch ended.
    fn epoch(&self, job: &Job, row: &EpochRow, epochs: usize);
    /// Work on a stage ended, one way or the other.
    fn ended(&self, job: &Job, outcome: &Result<StageResult>);
}

/// Stages to be done on one backend. Equal stages are one job.
#[derive(Debug)]
pub struct Plan {
    backend: BackendName,
    precision: Precision,
    jobs: Vec<Job>,
    by_key: HashMap<String, JobId>,
}

impl Plan {
    /// An empty plan.
    pub fn new(backend: BackendName, precision: Precision) -> Self {
        Plan { backend, precision, jobs: Vec::new(), by_key: HashMap::new() }
    }

    /// Adds a stage that starts from the results of `parents`, or finds it if it is there already.
    pub fn add(&mut self, label: &str, config: StageConfig, parents: &[JobId], image_passes: u64) -> Result<JobId> {
        let parent_keys = parents.iter().map(|id| self.jobs[id.0].key.clone()).collect();
        let stage = Stage::new(self.backend, self.precision, parent_keys, config);
        let key = stage.key()?;
        if let Some(&id) = self.by_key.get(&key) {
            return Ok(id);
        }
        let id = JobId(self.jobs.len());
        self.by_key.insert(key.clone(), id);
        self.jobs.push(Job { id, key, label: label.to_string(), stage, image_passes, parents: parents.to_vec() });
        Ok(id)
    }

    /// The jobs, parents before children.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// Looks up what is finished and takes every other stage for this process; with `fresh`, starts all over.
    ///
    /// Taking them all at once, not one by one, lets a second run of the same work stop before it disturbs the first.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has one of the stages, [`Error::Input`] for a corrupt result or one of another kind of stage.
    pub fn prepare<'a>(&'a self, store: &'a Store, fresh: bool) -> Result<Prepared<'a>> {
        let take = |job: &Job| {
            let config = &job.stage.config;
            if !fresh && let Some(result) = store.result(&job.key, config)? {
                return Ok(Status::Finished(result));
            }
            let dir = store.lock(&job.key)?;
            // Another process may have finished the stage between that and the lock.
            match if fresh { None } else { dir.result(config)? } {
                Some(result) => Ok(Status::Finished(result)),
                None => Ok(Status::Pending(dir)),
            }
        };
        let statuses = self.jobs.iter().map(take).collect::<Result<Vec<_>>>()?;
        if fresh {
            // Only now that all are taken: nothing is lost if one was not to be had.
            for status in &statuses {
                if let Status::Pending(dir) = status {
                    dir.clear()?;
                }
            }
        }
        Ok(Prepared { plan: self, store, statuses })
    }
}

enum Status {
    Finished(StageResult),
    Pending(StageDir),
    Running,
    Failed,
}

/// A plan whose unfinished stages belong to this process.
pub struct Prepared<'a> {
    plan: &'a Plan,
    store: &'a Store,
    statuses: Vec<Status>,
}

/// A stage that did not finish.
#[derive(Debug)]
pub struct Failure {
    /// Its job.
    pub id: JobId,
    /// Its name for the user.
    pub label: String,
    /// Why.
    pub error: Error,
}

impl Failure {
    /// The error, saying which stage it is about.
    pub fn into_error(self) -> Error {
        match self.error {
            Error::Diverged(why) => Error::Diverged(format!("{}: {why}", self.label)),
            Error::Failed(why) => Error::Failed(format!("{}: {why}", self.label)),
            // The others name a file of the stage.
            error => error,
        }
    }
}

/// The outcome of a plan.
#[derive(Debug)]
pub struct Outcome {
    /// Results of the finished stages, by [`JobId::index`].
    pub results: Vec<Option<StageResult>>,
    /// The stages that failed, in the order they did.
    pub failures: Vec<Failure>,
    /// The user stopped the run before everything was done; unfinished stages have saved their state.
    pub interrupted: bool,
}

impl<'a> Prepared<'a> {
    /// Number of unfinished stages.
    pub fn pending(&self) -> usize {
        self.statuses.iter().filter(|status| matches!(status, Status::Pending(_))).count()
    }

    /// The unfinished stages, with the epochs that earlier runs trained of each.
    pub fn remaining(&self) -> impl Iterator<Item = (&Job, usize)> {
        let pending = self.plan.jobs.iter().zip(&self.statuses).filter(|(_, s)| matches!(s, Status::Pending(_)));
        pending.map(|(job, _)| (job, self.epochs(job)))
    }

    /// Epochs that earlier runs trained of an unfinished stage.
    fn epochs(&self, job: &Job) -> usize {
        // An unreadable metrics file makes the estimate worse; whether it fails the stage is for the worker to say.
        let epochs = self.store.metrics(&job.key).map_or(0, |rows| rows.len());
        epochs.min(job.stage.config.epochs())
    }

    /// Does what is unfinished, at most `side_by_side` stages at a time. A failing stage takes its children with it
    /// and nothing else; once `stop` is set, running stages save their state and no new one starts.
    pub fn run(
        mut self,
        worker: &dyn Worker,
        monitor: &dyn Monitor,
        stop: &AtomicBool,
        side_by_side: usize,
    ) -> Outcome {
        let mut failures = Vec::new();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let mut running = 0;
            loop {
                while running < side_by_side.max(1) && !stop.load(Ordering::Relaxed) {
                    let Some((job, dir)) = self.next(&mut failures) else { break };
                    let (sender, epochs) = (sender.clone(), self.epochs(job));
                    running += 1;
                    scope.spawn(move || {
                        monitor.started(job, epochs);
                        let outcome = work_on(job, &dir, worker, &StageObserver { job, monitor, stop });
                        monitor.ended(job, &outcome);
                        // The receiver outlives every sender; the directory goes with the message to stay locked.
                        let _ = sender.send((job, dir, outcome));
                    });
                }
                if running == 0 {
                    break;
                }
                let Ok((job, dir, outcome)) = receiver.recv() else { break };
                running -= 1;
                self.statuses[job.id.0] = match outcome {
                    Ok(result) => Status::Finished(result),
                    Err(Error::Interrupted) => Status::Pending(dir),
                    Err(error) => {
                        failures.push(Failure { id: job.id, label: job.label.clone(), error });
                        Status::Failed
                    }
                };
            }
        });
        let interrupted = self.pending() > 0;
        let results = self.statuses.into_iter().map(|status| match status {
            Status::Finished(result) => Some(result),
            _ => None,
        });
        Outcome { results: results.collect(), failures, interrupted }
    }

    /// The first pending job whose parents are finished, now marked as running. Pending jobs with a failed parent
    /// become failures on the way.
    fn next(&mut self, failures: &mut Vec<Failure>) -> Option<(&'a Job, StageDir)> {
        // Parents come before their children, so a failure reaches its last descendant in one walk.
        for job in &self.plan.jobs {
            if !matches!(self.statuses[job.id.0], Status::Pending(_)) {
                continue;
            }
            if let Some(parent) = job.parents.iter().find(|id| matches!(self.statuses[id.0], Status::Failed)) {
                let why = format!("not run, because '{}' failed", self.plan.jobs[parent.0].label);
                failures.push(Failure { id: job.id, label: job.label.clone(), error: Error::Failed(why) });
                self.statuses[job.id.0] = Status::Failed;
            } else if job.parents.iter().all(|id| matches!(self.statuses[id.0], Status::Finished(_)))
                && let Status::Pending(dir) = std::mem::replace(&mut self.statuses[job.id.0], Status::Running)
            {
                return Some((job, dir));
            }
        }
        None
    }
}

/// Connects the worker on one stage with the plan's monitor.
struct StageObserver<'a> {
    job: &'a Job,
    monitor: &'a dyn Monitor,
    stop: &'a AtomicBool,
}

impl Observer for StageObserver<'_> {
    fn advance(&self, image_passes: u64) {
        self.monitor.advanced(self.job, image_passes);
    }

    fn expect(&self, left: u64) {
        self.monitor.expect(self.job, left);
    }

    fn epoch(&self, row: &EpochRow, epochs: usize) {
        self.monitor.epoch(self.job, row, epochs);
    }

    fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn work_on(job: &Job, dir: &StageDir, worker: &dyn Worker, observer: &dyn Observer) -> Result<StageResult> {
    dir.write_config(&job.stage)?;
    // A bug in one stage must not take down a week of others; the panic's message is on stderr by then.
    let result = catch_unwind(AssertUnwindSafe(|| worker.run(&job.stage, dir, observer)))
        .unwrap_or_else(|_| Err(Error::Failed(format!("internal error in stage {}: please report it", job.key))))?;
    dir.finish(&job.stage.config, &result)?;
    Ok(result)
}
