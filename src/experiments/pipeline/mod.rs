//! Stages, the store of their results, and the plan that runs them.
//!
//! Every result of a table is the end of a chain of stages. A [`Stage`] is the resolved configuration of one job and
//! is known by the hash of it, so equal work is done once, whoever asks; the [`Store`] keeps what each left behind;
//! a [`Plan`] runs what is missing and a [`Worker`] does the work.

mod device;
mod plan;
mod result;
mod set;
mod stage;
mod store;
mod worker;

pub(crate) use device::on_backend;
pub use device::{AnyBackend, BackendSpec};
pub use plan::{Failure, Job, JobId, Monitor, Outcome, Plan, Prepared};
pub use result::{EvalResult, ImportResult, PruneResult, Scores, StageResult, SuiteResult};
pub use set::{paths, set, set_all};
pub use stage::{
    BackendName, EvalConfig, FORMAT, ImportConfig, Precision, PruneConfig, Stage, StageConfig, SuiteConfig,
};
pub use store::{StageDir, Store};
pub use worker::{EngineWorker, Worker};
