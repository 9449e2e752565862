//! `engine train`: one network, from its initialisation or from a checkpoint.

use std::path::PathBuf;

use clap::Args;

use super::chain::{ChainArgs, Link, scores};
use super::console;
use super::pretrained::Pretrained;
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::data::Dataset;
use crate::experiments::pipeline::StageConfig;
use crate::experiments::tables::defaults::{adam, paper_training, sgd};
use crate::nn::init::Init;
use crate::nn::models::Network;
use crate::train::{MaskedConfig, Origin, Sparsity, TrainConfig};

named_enum! {
    /// Optimisers by name.
    pub enum OptimizerName: "optimiser" {
        /// Adam, learning rate 1e-4.
        Adam = "adam",
        /// SGD, learning rate 0.1, momentum 0.9.
        Sgd = "sgd",
    }
}

#[derive(Args)]
pub struct TrainArgs {
    /// Go on with this model instead of fresh weights; a pruned one keeps its zeros
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Insist that the model is pruned
    #[arg(long, requires = "model")]
    masked: bool,
    /// Train the places that the pruned model has kept from the initial weights, not from the model's
    #[arg(long, requires = "model")]
    inherit: bool,
    /// Network [default: the model's, or the paper's for the data set]
    #[arg(long)]
    network: Option<Network>,
    /// Width multiplier [default: the model's, or 1]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    width: Option<usize>,
    /// Initialiser of the convolutions [default: PyTorch's]
    #[arg(long)]
    init: Option<Init>,
    /// Update rule [default: the paper's for the data set]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: the optimiser's]
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f32>,
    /// Passes over the training images [default: the paper's for the data set]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    epochs: Option<usize>,
    #[command(flatten)]
    chain: ChainArgs,
}

pub fn run(args: &TrainArgs) -> Result<()> {
    // First, because data may have to be downloaded.
    let open = |path| Pretrained::open(path, args.chain.images.name);
    let pretrained = args.model.as_deref().map(open).transpose()?;
    let data = args.chain.images.load()?;
    let mut config = args.config(&data);
    let mut links: Vec<Link> = Vec::new();
    if let Some(pretrained) = &pretrained {
        args.continue_from(pretrained, &mut config)?;
        links.push(("import", pretrained.stage()));
    }
    let title = format!("{} w={} on {} seed {}", config.network, config.width, data.id.name, config.seed);
    links.push(("", StageConfig::Train(config)));
    args.chain.run(&title, &data, args.model.as_deref(), links, |results| match results.last() {
        Some(result) => console::print(&scores(result)),
        None => Ok(()),
    })
}

impl TrainArgs {
    /// The paper's settings for the data set with the flags' changes.
    fn config(&self, data: &Dataset) -> TrainConfig {
        let paper = paper_training(&data.id, data.train.len());
        let optimizer = match self.optimizer {
            Some(OptimizerName::Adam) => adam(1e-4),
            Some(OptimizerName::Sgd) => sgd(0.1, 0.0),
            None => paper.optimizer,
        };
        let config = TrainConfig {
            network: self.network.unwrap_or(paper.network),
            width: self.width.unwrap_or(paper.width),
            init: self.init.unwrap_or(paper.init),
            epochs: self.epochs.unwrap_or(paper.epochs),
            optimizer: optimizer.with_lr(self.lr),
            ..paper
        };
        self.chain.training(config)
    }

    /// Makes `config` start from `pretrained`.
    fn continue_from(&self, pretrained: &Pretrained, config: &mut TrainConfig) -> Result<()> {
        pretrained.check_flags(self.network, self.width)?;
        (config.network, config.width) = (pretrained.info.network, pretrained.info.width);
        if self.masked || self.inherit || pretrained.info.pruned.is_some() {
            config.sparsity = Sparsity::Masked(MaskedConfig { target: pretrained.pruning_target()?, compact: false });
        }
        config.origin = if self.inherit { Origin::Inherited } else { Origin::Parent };
        if self.init.is_some() && !self.inherit {
            let why = "--init: the weights come from the model; drop the flag, or add --inherit";
            return Err(Error::Usage(why.to_string()));
        }
        if self.inherit && pretrained.info.outputs.is_some() {
            let problem = "was shrunk, so the places it has kept are not known";
            return Err(Error::input(&pretrained.path, problem, "give the model it was shrunk from"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::attack::{AttackLoss, PgdConfig};
    use crate::nn::optim::OptimizerConfig;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: TrainArgs,
    }

    fn config(flags: &[&str]) -> TrainConfig {
        let args = [&["train", "--sample"], flags].concat();
        let Cli { args } = Cli::try_parse_from(args).unwrap_or_else(|e| panic!("{e}"));
        args.config(&args.chain.images.load().unwrap())
    }

    #[test]
    fn what_is_not_said_is_the_papers() {
        let data = |set: &str| config(&["--data-set", set]);
        let shown = |config: &TrainConfig| {
            let TrainConfig { network, width, init, epochs, batch, held_out, seed, augment, .. } = config;
            format!("{network} {width} {init} {epochs} {batch} {held_out} {seed} {augment}")
        };
        // A tenth of the sample's images is put aside.
        let mnist = config(&[]);
        assert_eq!(mnist, data("mnist"));
        assert_eq!(shown(&mnist), "lenet 1 default 83 64 300 0 false");
        assert_eq!(shown(&data("fashion-mnist")), "lenet 1 default 83 64 300 0 false");
        assert_eq!(shown(&data("cifar10")), "resnet18 1 default 300 128 80 0 true");
        assert_eq!((mnist.optimizer, data("cifar10").optimizer), (adam(1e-4), sgd(0.1, 1e-4)));
        assert_eq!(data("cifar10").schedule.milestones, [80, 150]);
        for config in [config(&[]), data("fashion-mnist"), data("cifar10")] {
            assert_eq!(config.eval_attack, PgdConfig::paper(config.data.name));
            assert_eq!(config.attack, Some(config.eval_attack));
        }
    }

    #[test]
    fn a_named_optimiser_has_the_rate_that_help_gives() {
        assert_eq!(config(&["--optimizer", "adam"]).optimizer, adam(1e-4));
        assert_eq!(config(&["--optimizer", "sgd"]).optimizer, sgd(0.1, 0.0));
        let slow = OptimizerConfig::Sgd { lr: 0.02, momentum: 0.9, weight_decay: 0.0 };
        assert_eq!(config(&["--optimizer", "sgd", "--lr", "0.02"]).optimizer, slow);
        assert_eq!(config(&["--lr", "0.02"]).optimizer, adam(0.02));
    }

    #[test]
    fn every_flag_changes_its_setting() {
        let flags = "--network lenet --width 3 --init orthogonal --epochs 7 --seed 11";
        let changed = config(&flags.split(' ').collect::<Vec<_>>());
        let TrainConfig { network, width, init, epochs, seed, .. } = changed;
        assert_eq!((network, width, init, epochs, seed), (Network::LeNet, 3, Init::Orthogonal, 7, 11));
        let flags = "--attack cw --eps 0.25 --attack-steps 12 --step-size 0.05 --restarts 3";
        let attacked = config(&flags.split(' ').collect::<Vec<_>>());
        let measured = PgdConfig {
            eps: 0.25,
            steps: 12,
            step_size: 0.05,
            restarts: 3,
            loss: AttackLoss::Margin,
            ..config(&[]).eval_attack
        };
        assert_eq!(attacked.eval_attack, measured);
        assert_eq!(attacked.attack, Some(PgdConfig { restarts: 1, ..measured }), "training attacks from one start");
        // Natural training is measured as any other.
        let natural = config(&["--attack", "none", "--eps", "0.25"]);
        assert_eq!((natural.attack, natural.eval_attack), (None, config(&[]).eval_attack));
    }
}
