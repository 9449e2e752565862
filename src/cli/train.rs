//! `engine train`: one network, as a stage of its own.

use std::path::PathBuf;

use clap::Args;

use super::attack_args::AttackArgs;
use super::device::DeviceArgs;
use super::run::key_value;
use super::{execute, output};
use crate::attack::PgdConfig;
use crate::choice::choice;
use crate::data::{Dataset, DatasetName};
use crate::error::Result;
use crate::init::Init;
use crate::models::Network;
use crate::optim::OptimizerConfig;
use crate::pipeline::{Plan, Scores, StageConfig, Store, set};
use crate::tables::defaults::{paper_training, sgd};
use crate::train::TrainConfig;

choice! {
    /// Optimisers by name.
    pub enum OptimizerName: "optimiser" {
        /// Adam.
        Adam = "adam",
        /// SGD with momentum.
        Sgd = "sgd",
    }
}

#[derive(Args)]
pub struct TrainArgs {
    /// lenet, lenet-cifar, resnet18 or vgg16-bn [default: the paper's for the data set]
    #[arg(long)]
    network: Option<Network>,
    /// Width multiplier
    #[arg(long, value_name = "W", default_value_t = 1, allow_negative_numbers = true)]
    width: usize,
    /// mnist, fashion-mnist or cifar10
    #[arg(long, value_name = "NAME", default_value_t = DatasetName::Mnist)]
    data_set: DatasetName,
    /// Directory with the data sets
    #[arg(long, value_name = "DIR", conflicts_with = "sample")]
    data: Option<PathBuf>,
    /// Train on the embedded sample
    #[arg(long)]
    sample: bool,
    /// Initialiser of the convolutions
    #[arg(long, default_value_t = Init::Default)]
    init: Init,
    /// adam (lr 1e-4) or sgd (lr 0.1, momentum 0.9) [default: the paper's for the data set]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: the optimiser's]
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f32>,
    /// Passes over the training images [default: the paper's for the data set]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    epochs: Option<usize>,
    /// Key of all random numbers
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    attack: AttackArgs,
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

pub fn run(args: &TrainArgs) -> Result<()> {
    let device = args.device.resolve()?;
    let data =
        if args.sample { Dataset::sample(args.data_set) } else { Dataset::load(args.data_set, args.data.as_deref()) }?;
    let config = args.config(&data)?;
    let (train, test) = (data.train.labels.len(), data.test.labels.len());
    config.validate(train)?;

    let label = format!("{} w={} on {} seed {}", config.network, config.width, args.data_set, config.seed);
    let config = StageConfig::Train(config);
    let passes = config.passes(train, test);
    let mut plan = Plan::new(device.backend, device.precision);
    let id = plan.add(&label, config, &[], passes)?;
    let job = &plan.jobs()[id.index()];
    let store = Store::open(&args.out)?;
    let prepared = plan.prepare(&store, args.fresh)?;
    let dir = store.path(&job.key);
    let time = execute::estimate(&prepared, &device);
    output::print(&format!(
        "{label}: {} {}, threads: {}; {}; {time}; results in {}",
        device.backend,
        device.precision,
        device.threads,
        data.origin,
        dir.display()
    ))?;

    let outcome = execute::execute(&plan, prepared, &data, &device, 1, args.quiet, None)?;
    let publish = |result| {
        let scores = Scores::of(&job.stage.config, result)?;
        let collapsed = if scores.collapsed { "; collapsed: one class for every image" } else { "" };
        output::print(&format!("natural {:.2}, adversarial {:.2}{collapsed}", scores.natural, scores.adversarial))?;
        output::print(&format!("model: {}", dir.join("model.safetensors").display()))
    };
    let published = outcome.results[id.index()].as_ref().map_or(Ok(()), publish);
    execute::conclude(outcome.failures, outcome.interrupted, published)
}

impl TrainArgs {
    /// The paper's settings for the data set with the flags' changes, `--set` last.
    fn config(&self, data: &Dataset) -> Result<TrainConfig> {
        let paper = paper_training(&data.id, data.train.len());
        let adam = OptimizerConfig::Adam { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let mut optimizer = match self.optimizer {
            Some(OptimizerName::Adam) => adam,
            Some(OptimizerName::Sgd) => sgd(0.1, 0.0),
            None => paper.optimizer,
        };
        if let Some(new) = self.lr {
            match &mut optimizer {
                OptimizerConfig::Sgd { lr, .. } | OptimizerConfig::Adam { lr, .. } => *lr = new,
            }
        }
        let attack = self.attack.resolve(self.data_set);
        let mut config = TrainConfig {
            network: self.network.unwrap_or(paper.network),
            width: self.width,
            init: self.init,
            epochs: self.epochs.unwrap_or(paper.epochs),
            seed: self.seed,
            optimizer,
            // Natural training is still measured under the paper's attack.
            eval_attack: attack.clone().unwrap_or(paper.eval_attack),
            // Restarts are for measuring only.
            attack: attack.map(|attack| PgdConfig { restarts: 1, ..attack }),
            ..paper
        };
        for (path, value) in &self.set {
            config = set(&config, path, value)?;
        }
        Ok(config)
    }
}
