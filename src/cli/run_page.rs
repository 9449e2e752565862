//! Gathers what the page of a run shows of each cell.

use super::console;
use super::run_examples::{Attacked, ExampleMaker};
use crate::base::error::{Error, Result};
use crate::checkpoint::MODEL_FILE;
use crate::experiments::pipeline::{Job, JobId, Plan, StageConfig, StageResult, Store};
use crate::experiments::report::page::{CellChain, Examples, SeedChain, StageEntry};
use crate::experiments::tables::{Cell, CellJobs, step};

/// The cells of a run and what is found of them.
pub struct Gathering<'a> {
    pub cells: &'a [Cell],
    /// The jobs of each cell.
    pub jobs: &'a [CellJobs],
    pub plan: &'a Plan,
    pub store: &'a Store,
    /// By [`JobId::index`].
    pub results: &'a [Option<StageResult>],
    pub examples: &'a ExampleMaker<'a>,
}

impl Gathering<'_> {
    /// The cells in the order of the run, each with all its seeds.
    ///
    /// # Errors
    /// [`Error::Input`] for a damaged file of a stage, [`Error::Interrupted`].
    pub fn gather(&self) -> Result<Vec<CellChain>> {
        let mut chains: Vec<CellChain> = Vec::new();
        for (cell, jobs) in self.cells.iter().zip(self.jobs) {
            let at = &cell.at;
            let seed = self.seed(cell, jobs)?;
            let same = |chain: &&mut CellChain| {
                (&*chain.method, &*chain.row, &*chain.column) == (at.block.method, at.row, at.column)
            };
            match chains.iter_mut().find(same) {
                Some(chain) => chain.seeds.push(seed),
                None => chains.push(CellChain {
                    method: at.block.method.to_string(),
                    block: at.block.title.to_string(),
                    row: at.row.to_string(),
                    column: at.column.to_string(),
                    seeds: vec![seed],
                    examples: self.examples(cell, jobs)?,
                }),
            }
        }
        Ok(chains)
    }

    fn job(&self, id: &JobId) -> (&Job, Option<&StageResult>) {
        (&self.plan.jobs()[id.index()], self.results[id.index()].as_ref())
    }

    fn seed(&self, cell: &Cell, jobs: &CellJobs) -> Result<SeedChain> {
        let stages = jobs.chain.iter().chain(&jobs.suite).map(|id| self.stage(id)).collect::<Result<_>>()?;
        let end = jobs.chain.last().and_then(|id| self.job(id).1);
        Ok(SeedChain { seed: cell.at.seed, scores: end.and_then(StageResult::scores), stages })
    }

    fn stage(&self, id: &JobId) -> Result<StageEntry> {
        let (job, result) = self.job(id);
        Ok(StageEntry {
            step: step(&job.stage.config),
            key: job.key.clone(),
            epochs: job.stage.config.epochs(),
            result: result.cloned(),
            metrics: self.store.metrics(&job.key)?,
            residuals: self.store.residuals(&job.key)?,
        })
    }

    /// Images under the attack that measured the cell. What goes wrong with them costs the page its pictures, not the run
    /// its table.
    fn examples(&self, cell: &Cell, jobs: &CellJobs) -> Result<Option<Examples>> {
        let ids = || jobs.chain.iter().rev();
        let model = ids().map(|id| self.job(id)).find(|(job, _)| !matches!(job.stage.config, StageConfig::Eval(_)));
        let end = ids().map(|id| self.job(id)).next();
        let (Some((model, Some(_))), Some((end, Some(_)))) = (model, end) else { return Ok(None) };
        let Some(attack) = end.stage.config.eval_attack() else { return Ok(None) };
        let attacked = Attacked {
            model: &self.store.path(&model.key).join(MODEL_FILE),
            attack,
            seed: cell.at.seed,
            dir: &self.store.path(&end.key),
        };
        match self.examples.make(&attacked) {
            Ok(examples) => Ok(Some(examples)),
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) => {
                console::note(&format!("no images under attack of {}: {error}", end.label));
                Ok(None)
            }
        }
    }
}
