//! The state of a training run on disk, so that it continues bit for bit after any interruption.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::{Selection, TrainConfig};
use super::step::Trainer;
use super::{Candidate, EpochRow, METRICS_FILE, RESIDUALS_FILE, ResidualRow};
use crate::backend::{Backend, Metrics};
use crate::base::csv::to_csv;
use crate::base::error::{Error, Result};
use crate::checkpoint::{self, Checkpoint, Entry, STATE_FILE};
use crate::prune::Admm;

/// Hint for the user of a damaged state.
const HINT: &str = "run again with --fresh to start this stage over";

/// Where a run is. Random numbers need no state: they are functions of the step.
#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    /// Guards against a state of another run.
    pub config: TrainConfig,
    /// Epochs completed, evaluation included.
    pub epoch: usize,
    /// Steps done of the epoch in flight.
    pub step: u64,
    /// Sums over those steps.
    pub counts: Metrics,
    /// Wall time of the epoch in flight.
    pub seconds: f64,
    /// Parameter updates done.
    pub updates: u32,
    /// Completed epochs.
    pub rows: Vec<EpochRow>,
    /// Updates of ADMM's variables.
    pub residuals: Vec<ResidualRow>,
    /// Weight of ADMM's penalty.
    pub rho: Option<f32>,
    /// The best so far by each rule.
    pub candidates: Vec<Candidate>,
}

impl Progress {
    pub fn new(config: &TrainConfig) -> Self {
        Progress {
            config: config.clone(),
            epoch: 0,
            step: 0,
            counts: Metrics::default(),
            seconds: 0.0,
            updates: 0,
            rows: Vec::new(),
            residuals: Vec::new(),
            rho: None,
            candidates: Vec::new(),
        }
    }
}

/// Weights of the candidates that a later epoch may not replace.
pub(super) type Kept = Vec<(Selection, Vec<Entry>)>;

/// Saves everything.
pub(super) fn save<B: Backend>(
    dir: &Path,
    backend: &B,
    progress: &mut Progress,
    trainer: &Trainer<B>,
    kept: &Kept,
) -> Result<()> {
    let Trainer { model, optimizer, sparsifier } = trainer;
    progress.updates = optimizer.updates();
    progress.rho = sparsifier.admm().map(Admm::rho);
    let prefixed = |prefix: &str, entries: Vec<Entry>| {
        let prefix = prefix.to_string();
        entries.into_iter().map(move |(name, shape, values)| (format!("{prefix}.{name}"), shape, values))
    };
    let mut entries: Vec<Entry> = prefixed("model", model.state(backend)).collect();
    entries.extend(prefixed("optimizer", optimizer.state(backend, &model.architecture().params)));
    if let Some(admm) = sparsifier.admm() {
        entries.extend(prefixed("admm", admm.state(backend, model)));
    }
    for (select, state) in kept {
        entries.extend(prefixed(select.name(), state.clone()));
    }
    // Values of a failed device must not replace a good state.
    backend.status()?;
    checkpoint::write_atomic(&dir.join(STATE_FILE), &checkpoint::encode(&entries, progress)?)
}

/// Continues from what [`save`] left in `dir`, if there is anything.
pub(super) fn resume<B: Backend>(
    dir: &Path,
    backend: &B,
    config: &TrainConfig,
    trainer: &mut Trainer<B>,
) -> Result<Option<(Progress, Kept)>> {
    let path = dir.join(STATE_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let file = Checkpoint::read(&path, HINT)?;
    let progress: Progress = file.metadata()?;
    if progress.config != *config {
        return Err(Error::input(&path, "belongs to a run with other settings", HINT));
    }
    let Trainer { model, optimizer, sparsifier } = trainer;
    model.load_state(backend, |name, shape| file.tensor(&format!("model.{name}"), shape))?;
    let params = &model.architecture().params;
    let lookup = |name: &str, shape: &[usize]| file.tensor(&format!("optimizer.{name}"), shape);
    optimizer.load_state(backend, params, progress.updates, lookup)?;
    if let (Some(admm), Some(rho)) = (sparsifier.admm_mut(), progress.rho) {
        admm.load_state(backend, model, rho, |name, shape| file.tensor(&format!("admm.{name}"), shape))?;
    }
    let kept = progress.candidates.iter().filter(|c| c.select != Selection::Last);
    let kept = kept.map(|c| (c.select, file.with_prefix(&format!("{}.", c.select)))).collect();
    Ok(Some((progress, kept)))
}

/// Writes `metrics.csv`, one row per completed epoch, and with ADMM `residuals.csv`, one per parameter and update.
pub(super) fn write_metrics(dir: &Path, progress: &Progress) -> Result<()> {
    write_csv(&dir.join(METRICS_FILE), &progress.rows)?;
    if progress.residuals.is_empty() { Ok(()) } else { write_csv(&dir.join(RESIDUALS_FILE), &progress.residuals) }
}

fn write_csv(path: &Path, rows: &[impl Serialize]) -> Result<()> {
    checkpoint::write_atomic(path, &to_csv(rows)?)
}
