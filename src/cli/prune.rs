//! `engine prune`: a smaller network from a trained one.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::chain::{ChainArgs, Link, scores};
use super::console;
use super::pretrained::Pretrained;
use crate::backend::cpu::Cpu;
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::checkpoint::{ModelInfo, load_model};
use crate::data::Dataset;
use crate::experiments::pipeline::{PruneConfig, StageConfig, StageResult};
use crate::experiments::tables::Profile;
use crate::experiments::tables::chains::{RHO_GROWTH, initial_rho, update_every};
use crate::experiments::tables::defaults::{Hyperparameters, Phase, paper_training};
use crate::prune::{AdmmConfig, Scheme, SparsityReport, Target, groups};
use crate::train::{MaskedConfig, Origin, ProximalConfig, ProximalEvery, Selection, Sparsity, TrainConfig};

named_enum! {
    /// Ways to a pruned network.
    pub enum PruneMethod: "pruning method" {
        /// At once, by magnitude.
        PostPrune = "post-prune",
        /// After training towards the pruned network with ADMM.
        Admm = "admm",
        /// After training with projections.
        Proximal = "proximal",
    }
}

#[derive(Args)]
#[command(group = ArgGroup::new("amount").args(["to_width", "ratio", "report"]).required(true))]
pub struct PruneArgs {
    /// The model.safetensors of a finished stage, or of `engine import`
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Only show what is left of the model, layer by layer
    #[arg(long)]
    report: bool,
    /// Remove as much of every layer as leaves the size of this width
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    to_width: Option<usize>,
    /// Share removed of every layer, at least 0 and below 1
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    ratio: Option<f64>,
    /// How the network gets to the pruned one
    #[arg(long, value_name = "NAME", default_value_t = PruneMethod::PostPrune)]
    method: PruneMethod,
    /// The unit that is kept or removed as a whole
    #[arg(long, value_name = "NAME", default_value_t = Scheme::Filter)]
    scheme: Scheme,
    /// Leave fully connected layers as they are
    #[arg(long)]
    keep_linear: bool,
    /// Epochs of admm or proximal [default: 40, or 200 for CIFAR-10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    epochs: Option<usize>,
    /// Learning rate of admm or proximal, which use SGD [default: 0.01]
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f32>,
    /// Weight of admm's penalty at the start [default: 0.001]
    #[arg(long, allow_negative_numbers = true)]
    rho: Option<f32>,
    /// Factor of admm's rho at each update [default: 1.3]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    growth: Option<f32>,
    /// Epochs between two updates of admm [default: a tenth of its epochs]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100_000),
        allow_negative_numbers = true
    )]
    update_every: Option<u32>,
    /// How often proximal projects [default: epoch]
    #[arg(long, value_name = "WHEN")]
    every: Option<ProximalEvery>,
    /// Stop after pruning
    #[arg(long, conflicts_with_all = ["retrain_epochs", "retrain_lr"])]
    no_retrain: bool,
    /// Epochs of the training with masks that follows [default: 40, or 100 for CIFAR-10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    retrain_epochs: Option<usize>,
    /// Learning rate of the training with masks [default: 1e-4 with Adam, or 0.01 with SGD for CIFAR-10]
    #[arg(long, value_name = "LR", allow_negative_numbers = true)]
    retrain_lr: Option<f32>,
    #[command(flatten)]
    chain: ChainArgs,
}

pub fn run(args: &PruneArgs) -> Result<()> {
    if args.report {
        let backend = Cpu::<f32>::new(1)?;
        let (model, _) = load_model(&backend, &args.model)?;
        return console::print(&SparsityReport::of(&backend, &model).text());
    }
    args.check_method()?;
    // First, because data may have to be downloaded.
    let pretrained = Pretrained::open(&args.model, args.chain.images.name)?;
    let target = args.target(&pretrained)?;
    let data = args.chain.images.load()?;
    let ModelInfo { network, width, .. } = pretrained.info;
    let title = format!(
        "{network} w={width} pruned by {:.4} ({}, {}) on {} seed {}",
        target.ratio, args.method, target.scheme, data.id.name, args.chain.seed
    );
    args.chain.run(&title, &data, Some(&args.model), args.links(&pretrained, target, &data), publish)
}

/// Prints the results of pruning and retraining.
fn publish(results: &[StageResult]) -> Result<()> {
    let mut results = results.iter().skip_while(|result| !matches!(result, StageResult::Prune(_)));
    let Some(after @ StageResult::Prune(pruned)) = results.next() else { return Ok(()) };
    console::print(&pruned.sparsity.text())?;
    let before = &pruned.before;
    console::print(&format!("before pruning    natural {:.2}, adversarial {:.2}", before.natural, before.adversarial))?;
    console::print(&format!("after pruning     {}", scores(after)))?;
    match results.next() {
        Some(result) => console::print(&format!("after retraining  {}", scores(result))),
        None => Ok(()),
    }
}

impl PruneArgs {
    /// # Errors
    /// [`Error::Usage`] for a flag that means nothing to the method.
    fn check_method(&self) -> Result<()> {
        use PruneMethod::{Admm, Proximal};
        let (admm, proximal) = ("add --method admm", "add --method proximal");
        let method = self.method;
        let wrong = |set: bool, methods: &[PruneMethod]| set && !methods.contains(&method);
        for (flag, wrong, hint) in [
            ("--epochs", wrong(self.epochs.is_some(), &[Admm, Proximal]), "use --retrain-epochs, or another --method"),
            ("--lr", wrong(self.lr.is_some(), &[Admm, Proximal]), "use --retrain-lr, or another --method"),
            ("--rho", wrong(self.rho.is_some(), &[Admm]), admm),
            ("--growth", wrong(self.growth.is_some(), &[Admm]), admm),
            ("--update-every", wrong(self.update_every.is_some(), &[Admm]), admm),
            ("--every", wrong(self.every.is_some(), &[Proximal]), proximal),
        ] {
            if wrong {
                return Err(Error::Usage(format!("{flag}: means nothing to {method}; {hint}")));
            }
        }
        Ok(())
    }

    /// The target that `pretrained` is to be pruned to.
    ///
    /// # Errors
    /// [`Error::Input`] if it is pruned already; [`Error::Usage`] for a width that is not smaller, and as [`groups()`].
    fn target(&self, pretrained: &Pretrained) -> Result<Target> {
        if pretrained.info.pruned.is_some() || pretrained.info.outputs.is_some() {
            return Err(Error::input(&self.model, "is pruned already", "give the dense model it was made from"));
        }
        let width = pretrained.info.width;
        let ratio = match (self.to_width, self.ratio) {
            (Some(to), _) if (1..width).contains(&to) => 1.0 - to as f64 / width as f64,
            (Some(to), _) => {
                let why = format!("the model has width {width}; prune to a smaller width, 1 or more");
                return Err(Error::Usage(format!("--to-width {to}: {why}")));
            }
            (None, ratio) => ratio.unwrap_or_default(),
        };
        let target = Target { scheme: self.scheme, ratio, linear: !self.keep_linear };
        groups(&pretrained.architecture, &target)?;
        Ok(target)
    }

    /// Import, training towards the pruned network if the method has one, prune, retraining.
    fn links(&self, pretrained: &Pretrained, target: Target, data: &Dataset) -> Vec<Link> {
        let ModelInfo { network, width, .. } = pretrained.info;
        let paper =
            TrainConfig { network, width, origin: Origin::Parent, ..paper_training(&data.id, data.train.len()) };
        let paper = self.chain.training(paper);
        let prune = PruneConfig {
            data: data.id.clone(),
            network,
            width,
            seed: self.chain.seed,
            sparsity: target,
            eval_attack: paper.eval_attack.clone(),
        };
        let mut links: Vec<Link> = vec![("import", pretrained.stage())];
        links.extend(self.admm_phase(target, &paper).map(|config| (self.method.name(), StageConfig::Train(config))));
        links.push(("pruning", StageConfig::Prune(prune)));
        if !self.no_retrain {
            links.push(("retraining", StageConfig::Train(self.retraining(target, &paper))));
        }
        links
    }

    /// The training that ends in a network which is almost pruned, if the method has one.
    fn admm_phase(&self, target: Target, paper: &TrainConfig) -> Option<TrainConfig> {
        let mut phase = Hyperparameters::of(paper.data.name).paper.admm.clone();
        phase.epochs = self.epochs.unwrap_or(phase.epochs);
        let update_every = self.update_every.map_or(update_every(phase.epochs), |n| n as usize);
        let sparsity = match self.method {
            PruneMethod::PostPrune => return None,
            PruneMethod::Admm => Sparsity::Admm(AdmmConfig {
                target,
                rho: self.rho.unwrap_or(initial_rho(Profile::Paper)),
                growth: self.growth.unwrap_or(RHO_GROWTH),
                update_every,
            }),
            PruneMethod::Proximal => {
                Sparsity::Proximal(ProximalConfig { target, every: self.every.unwrap_or(ProximalEvery::Epoch) })
            }
        };
        Some(TrainConfig {
            epochs: phase.epochs,
            schedule: phase.schedule(update_every),
            optimizer: phase.optimizer.with_lr(self.lr),
            // The last model is the one to prune.
            select: Selection::Last,
            sparsity,
            ..paper.clone()
        })
    }

    /// The training with masks.
    fn retraining(&self, target: Target, paper: &TrainConfig) -> TrainConfig {
        let retrain = Hyperparameters::of(paper.data.name).paper.retrain.clone();
        let phase = Phase { epochs: self.retrain_epochs.unwrap_or(retrain.epochs), ..retrain };
        TrainConfig {
            epochs: phase.epochs,
            schedule: phase.schedule(0),
            optimizer: phase.optimizer.with_lr(self.retrain_lr),
            sparsity: Sparsity::Masked(MaskedConfig { target, compact: false }),
            ..paper.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::checkpoint::{MODEL_FILE, save_model};
    use crate::data::DatasetName;
    use crate::experiments::tables::defaults::{adam, sgd};
    use crate::nn::init::{Init, initial_values};
    use crate::nn::models::{Architecture, Model, Network};
    use crate::nn::optim::{LrSchedule, LrShape};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PruneArgs,
    }

    /// The stages after the import, for a model of width 4 of the data set.
    fn links(name: DatasetName, flags: &[&str]) -> Vec<Link> {
        let backend = Cpu::<f32>::new(1).unwrap();
        let network = *Network::ALL.iter().find(|network| network.input() == name.info().shape).unwrap();
        let architecture = Arc::new(Architecture::new(network, 4, 10).unwrap());
        let values = initial_values(&architecture, Init::Default, 1);
        let model = Model::new(&backend, architecture, &values).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODEL_FILE);
        save_model(&path, &model.state(&backend), &ModelInfo::new(model.architecture(), None, 3)).unwrap();
        let path = path.to_str().unwrap();
        let args = [&["prune", "--sample", "--data-set", name.name(), "--model", path, "--to-width", "1"], flags];
        let Cli { args } = Cli::try_parse_from(args.concat()).unwrap_or_else(|e| panic!("{e}"));
        let data = args.chain.images.load().unwrap();
        let pretrained = Pretrained::open(&args.model, name).unwrap();
        let mut links = args.links(&pretrained, args.target(&pretrained).unwrap(), &data);
        assert_eq!(links.remove(0).0, "import");
        links
    }

    fn trainings(links: &[Link]) -> Vec<&TrainConfig> {
        let training = |(_, config): &'_ Link| matches!(config, StageConfig::Train(_));
        let trainings = links.iter().filter(|link| training(link));
        trainings
            .map(|(_, config)| if let StageConfig::Train(config) = config { config } else { unreachable!() })
            .collect()
    }

    /// The help of a flag.
    fn help(flag: &str) -> String {
        let command = Cli::command();
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag)).unwrap();
        argument.get_help().unwrap().to_string()
    }

    fn schedule(shape: LrShape, period: usize) -> LrSchedule {
        LrSchedule { shape, milestones: Vec::new(), gamma: 0.1, period, warmup_epochs: 0.0 }
    }

    const TARGET: Target = Target { scheme: Scheme::Filter, ratio: 0.75, linear: true };

    #[test]
    fn what_is_not_said_is_as_help_says() {
        for (name, epochs, update_every, retraining, decay) in
            [(DatasetName::Mnist, 40, 4, 40, 0.0), (DatasetName::Cifar10, 200, 20, 100, 1e-4)]
        {
            let links = links(name, &["--method", "admm"]);
            assert_eq!(links.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["admm", "pruning", "retraining"]);
            let [admm, masked] = trainings(&links)[..] else { panic!("two trainings") };
            let cifar = name == DatasetName::Cifar10;
            assert_eq!((admm.epochs, masked.epochs), (epochs, retraining));
            assert_eq!((admm.select, masked.select), (Selection::Last, Selection::TestBest));
            assert_eq!(admm.optimizer, sgd(0.01, decay));
            assert_eq!(masked.optimizer, if cifar { sgd(0.01, decay) } else { adam(1e-4) });
            assert_eq!(admm.schedule, schedule(LrShape::Periodic, update_every));
            assert_eq!(masked.schedule, schedule(if cifar { LrShape::Cosine } else { LrShape::Constant }, 0));
            let config = AdmmConfig { target: TARGET, rho: 1e-3, growth: 1.3, update_every };
            assert_eq!(admm.sparsity, Sparsity::Admm(config));
            assert_eq!(masked.sparsity, Sparsity::Masked(MaskedConfig { target: TARGET, compact: false }));
            assert_eq!((admm.origin, masked.origin), (Origin::Parent, Origin::Parent));
            let (StageConfig::Prune(prune), steps) = (&links[1].1, if cifar { 10 } else { 40 }) else {
                panic!("no prune")
            };
            assert_eq!((prune.sparsity, prune.width, prune.seed, prune.eval_attack.steps), (TARGET, 4, 0, steps));
        }
        assert!(help("epochs").ends_with("[default: 40, or 200 for CIFAR-10]"));
        assert!(help("retrain-epochs").ends_with("[default: 40, or 100 for CIFAR-10]"));
        assert!(help("retrain-lr").ends_with("[default: 1e-4 with Adam, or 0.01 with SGD for CIFAR-10]"));
        assert!(help("lr").ends_with("[default: 0.01]") && help("rho").ends_with("[default: 0.001]"));
        assert!(help("growth").ends_with("[default: 1.3]") && help("every").ends_with("[default: epoch]"));
        assert!(help("update-every").ends_with("[default: a tenth of its epochs]"));
    }

    #[test]
    fn a_tenth_of_other_lengths_is_rounded_down_and_a_flag_goes_before_it() {
        let updates = |flags: &[&str]| {
            let links = links(DatasetName::Mnist, &[&["--method", "admm"], flags].concat());
            let admm = trainings(&links)[0];
            let Sparsity::Admm(config) = admm.sparsity else { panic!("{:?}", admm.sparsity) };
            assert_eq!(admm.schedule.period, config.update_every, "the rate starts over at an update");
            config.update_every
        };
        assert_eq!(updates(&["--epochs", "29"]), 2);
        assert_eq!(updates(&["--epochs", "9"]), 1);
        assert_eq!(updates(&["--epochs", "29", "--update-every", "7"]), 7);
    }

    #[test]
    fn other_methods_have_their_stages() {
        let names = |flags: &[&str]| links(DatasetName::Mnist, flags).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(&[]), ["pruning", "retraining"]);
        assert_eq!(names(&["--no-retrain"]), ["pruning"]);
        assert_eq!(names(&["--method", "proximal"]), ["proximal", "pruning", "retraining"]);
        let links = links(DatasetName::Mnist, &["--method", "proximal", "--scheme", "column", "--keep-linear"]);
        let target = Target { scheme: Scheme::Column, linear: false, ..TARGET };
        let proximal = ProximalConfig { target, every: ProximalEvery::Epoch };
        assert_eq!(trainings(&links)[0].sparsity, Sparsity::Proximal(proximal));
        assert!(links.iter().all(|(_, config)| config.target() == Some(&target)));
    }
}
