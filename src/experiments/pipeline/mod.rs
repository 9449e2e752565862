//! Stages, the store of their results, and the plan that runs them.
//!
//! Every result of a table is the end of a chain of stages. A [`Stage`] is the resolved configuration of one job and
//! is known by the hash of it, so equal work is done once, whoever asks; the [`Store`] keeps what each left behind;
//! a [`Plan`] runs what is missing and a [`Worker`] does the work.

mod device;
mod plan;
mod set;
mod stage;
mod store;
mod worker;

pub use device::{Task, on_backend};
pub use plan::{Failure, Job, JobId, Monitor, Outcome, Plan, Prepared};
pub use set::{paths, set, set_all};
pub use stage::{
    BackendName, EvalConfig, EvalResult, ImportConfig, Precision, PruneConfig, PruneResult, Scores, Stage, StageConfig,
    SuiteConfig, SuiteResult,
};
pub use store::{FORMAT, StageDir, Store};
pub use worker::{EngineWorker, Worker};
