//! A chain of stages on one data set: what `train` and `prune` have in common.

use std::path::{Path, PathBuf};

use clap::Args;

use super::attack_args::AttackArgs;
use super::dataset_args::DatasetArgs;
use super::device_args::DeviceArgs;
use super::execute::Execution;
use super::run_args::key_value;
use super::{console, execute};
use crate::attack::PgdConfig;
use crate::base::error::{Error, Result};
use crate::checkpoint::MODEL_FILE;
use crate::data::Dataset;
use crate::experiments::pipeline::{JobId, Plan, StageConfig, StageResult, Store, set_all};
use crate::train::{TrainConfig, validate_attack};

#[derive(Args)]
pub struct ChainArgs {
    #[command(flatten)]
    pub images: DatasetArgs,
    /// Key of all random numbers
    #[arg(
        long, value_name = "S", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..1 << 63),
        allow_negative_numbers = true
    )]
    pub seed: u64,
    #[command(flatten)]
    pub attack: AttackArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Directory for results; a run found there is resumed
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Discard what earlier runs did
    #[arg(long)]
    fresh: bool,
    /// No progress
    #[arg(long)]
    quiet: bool,
    /// Change any other setting, like held_out=0; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

/// One stage of a chain, and what the user calls it.
pub type Link = (&'static str, StageConfig);

impl ChainArgs {
    /// A published training with this seed and attack.
    pub fn training(&self, paper: TrainConfig) -> TrainConfig {
        let attack = self.attack.resolve(self.images.name);
        TrainConfig {
            seed: self.seed,
            // Natural training is still measured under the paper's attack.
            eval_attack: attack.clone().unwrap_or(paper.eval_attack),
            // Restarts are for measuring only.
            attack: attack.map(|attack| PgdConfig { restarts: 1, ..attack }),
            ..paper
        }
    }

    /// Runs the stages, each on the result of the one before, and lets `publish` show their results. The first may
    /// import `model`; the last one's model is what all is about.
    ///
    /// # Errors
    /// [`Error::Usage`] for settings out of range, and whatever makes a stage fail.
    pub fn run(
        &self,
        title: &str,
        data: &Dataset,
        model: Option<&Path>,
        mut links: Vec<Link>,
        publish: impl FnOnce(&[StageResult]) -> Result<()>,
    ) -> Result<()> {
        let device = self.device.resolve()?;
        self.settle(&mut links, data)?;
        let mut plan = Plan::new(device.backend, device.precision);
        let mut last: Option<JobId> = None;
        for (name, config) in links {
            let label = if name.is_empty() { title.to_string() } else { format!("{title}: {name}") };
            let image_passes = config.image_passes(data.train.len(), data.test.len());
            last = Some(plan.add(&label, config, last.as_slice(), image_passes)?);
        }
        let store = Store::open(&self.out)?;
        let prepared = plan.prepare(&store, self.fresh)?;
        let dir = plan.jobs().last().map(|job| store.path(&job.key)).unwrap_or_default();
        let execution = Execution::new(&plan, prepared, data, &device, 1, model)?;
        console::print(&format!(
            "{title}: {}; {}; {}; results in {}",
            device.describe(),
            data.origin,
            execution.promise(),
            dir.display()
        ))?;

        let outcome = execution.run(self.quiet)?;
        let finished: Option<Vec<StageResult>> = outcome.results.into_iter().collect();
        let published = finished.map_or(Ok(()), |results| {
            publish(&results)?;
            console::print(&format!("model: {}", dir.join(MODEL_FILE).display()))
        });
        execute::conclude(outcome.failures, outcome.interrupted, published)
    }

    /// Applies `--set` and checks every value.
    fn settle(&self, links: &mut [Link], data: &Dataset) -> Result<()> {
        for (path, value) in &self.set {
            if has_its_own_flag(path) {
                return Err(Error::Usage(format!("--set {path}: another flag decides it; see --help")));
            }
            set_all(links.iter_mut().map(|(_, config)| config), path, value)?;
        }
        for (_, config) in links {
            match config {
                StageConfig::Train(config) => config.validate(data.train.len())?,
                StageConfig::Prune(config) => validate_attack("eval_attack", &config.eval_attack)?,
                StageConfig::Import(_) | StageConfig::Eval(_) | StageConfig::Suite(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether flags of their own decide a setting, or the stages of a chain must agree on it.
fn has_its_own_flag(path: &str) -> bool {
    let group = path.split('.').next().unwrap_or_default();
    let target = ["sparsity.kind", "sparsity.scheme", "sparsity.ratio", "sparsity.linear"];
    ["kind", "sha256", "data", "network", "width", "origin", "epochs", "seed"].contains(&group)
        || target.contains(&path)
}

/// "natural 98.12, adversarial 91.40", and whether the network has collapsed; nothing for a model that was not measured.
pub fn scores(result: &StageResult) -> String {
    let Some(scores) = result.scores() else { return String::new() };
    let collapsed = if scores.collapsed { "; collapsed: no better than a constant answer" } else { "" };
    format!("natural {:.2}, adversarial {:.2}{collapsed}", scores.natural, scores.adversarial)
}
