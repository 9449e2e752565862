//! The chains of stages behind the methods that the pruning tables compare.
//!
//! Every method has the same epochs at its disposal: what ADMM spends on its two phases after dense training, another
//! method spends on what it does instead, and a network trained from scratch gets all three phases' epochs.

use super::defaults::{Hyperparameters, Phase, Phases, paper_training};
use super::{Profile, Settings};
use crate::attack::{EpsSchedule, Ramp};
use crate::base::named_enum::named_enum;
use crate::experiments::pipeline::{PruneConfig, StageConfig};
use crate::nn::models::Network;
use crate::prune::{AdmmConfig, Scheme, Target};
use crate::train::{MaskedConfig, Origin, ProximalConfig, ProximalEvery, Selection, Sparsity, TrainConfig};

named_enum! {
    /// How a network of a pruning table comes about.
    pub enum Method: "method" {
        /// Dense, trained on clean images.
        NaturalTraining = "natural-training",
        /// Dense, trained on attacked images.
        AdversarialTraining = "adversarial-training",
        /// Dense, then trained towards the pruned network with ADMM, pruned, retrained.
        Admm = "admm",
        /// Dense, pruned at once, retrained.
        PostPrune = "post-prune",
        /// Dense, pruned at once.
        NoRetrain = "no-retrain",
        /// As `admm`, but with the proximal gradient method.
        Proximal = "proximal",
        /// The small dense network, trained from its own initialisation.
        Scratch = "scratch",
        /// The weights that pruning keeps, trained from the values they were initialised with.
        Inherited = "inherited",
    }
}

/// Weight of ADMM's penalty at the start: a short phase needs a stronger pull to arrive.
pub fn initial_rho(profile: Profile) -> f32 {
    if profile == Profile::Paper { 1e-3 } else { 3e-2 }
}

/// Factor of ADMM's penalty at each update.
pub const RHO_GROWTH: f32 = 1.3;

/// Epochs between updates of ADMM's variables: ten updates, as published for all data sets.
pub fn update_every(epochs: usize) -> usize {
    (epochs / 10).max(1)
}

/// The settings of a table's stages under one profile and seed.
pub struct Recipe {
    /// The settings that all training stages share.
    base: TrainConfig,
    phases: Phases,
    profile: Profile,
}

impl Recipe {
    /// The recipe of `network` on the data of `settings`.
    pub fn new(network: Network, settings: &Settings, seed: u64) -> Self {
        let Settings { profile, ref data, train_images, .. } = *settings;
        let base = TrainConfig { network, seed, ..paper_training(data, train_images) };
        let mut phases = Hyperparameters::of(data.name).phases(profile);
        if let Some(epochs) = settings.epochs {
            phases = phases.with_epochs(epochs);
        }
        Recipe { base: shortened(base, profile), phases, profile }
    }

    /// The stages of `method` on the network of `width`, pruned to the share `kept` of each layer.
    pub fn chain(&self, method: Method, width: usize, kept: f64) -> Vec<StageConfig> {
        let target = Target { scheme: Scheme::Filter, ratio: 1.0 - kept, linear: true };
        let dense = StageConfig::Train(self.dense(width));
        let prune = self.prune(width, target);
        let retrain = |epochs| self.retrain(width, target, epochs);
        match method {
            Method::NaturalTraining => vec![StageConfig::Train(TrainConfig { attack: None, ..self.dense(width) })],
            Method::AdversarialTraining => vec![dense],
            Method::Admm => {
                let (rho, update_every) = (initial_rho(self.profile), self.update_every());
                let config = AdmmConfig { target, rho, growth: RHO_GROWTH, update_every };
                vec![dense, self.admm_phase(width, Sparsity::Admm(config)), prune, retrain(self.phases.retrain.epochs)]
            }
            Method::Proximal => {
                let config = ProximalConfig { target, every: ProximalEvery::Epoch };
                vec![
                    dense,
                    self.admm_phase(width, Sparsity::Proximal(config)),
                    prune,
                    retrain(self.phases.retrain.epochs),
                ]
            }
            Method::PostPrune => {
                vec![dense, prune, retrain(self.phases.admm.epochs.saturating_add(self.phases.retrain.epochs))]
            }
            Method::NoRetrain => vec![dense, prune],
            Method::Scratch => vec![StageConfig::Train(self.scratch((width as f64 * kept).round() as usize))],
            Method::Inherited => {
                let sparsity = Sparsity::Masked(MaskedConfig { target, compact: true });
                let config = TrainConfig { origin: Origin::Inherited, sparsity, ..self.scratch(width) };
                vec![dense, prune, StageConfig::Train(config)]
            }
        }
    }

    /// Adversarial training of a dense network.
    fn dense(&self, width: usize) -> TrainConfig {
        self.initialised(width, self.phases.dense.epochs, 0.4)
    }

    /// The same with the epochs of a whole chain.
    fn scratch(&self, width: usize) -> TrainConfig {
        // A length that is too large is refused with the stage's other settings; here it must only not wrap.
        let Phases { dense, admm, retrain } = &self.phases;
        let epochs = dense.epochs.saturating_add(admm.epochs).saturating_add(retrain.epochs);
        self.initialised(width, epochs, 1.0 / 3.0)
    }

    /// Dense training; where it is short, the attack may grow over the share `warmup` of the epochs.
    fn initialised(&self, width: usize, epochs: usize, warmup: f64) -> TrainConfig {
        let mut config = self.train(width, &Phase { epochs, ..self.phases.dense.clone() });
        if self.profile != Profile::Paper && Hyperparameters::of(config.data.name).eps_warmup {
            config.eps_schedule = EpsSchedule { ramp: Ramp::Cosine, epochs: warmup * epochs as f64 };
        }
        config
    }

    /// Training of the dense model towards a pruned one. The last model is the one to prune, so it suffices to measure
    /// now and then.
    fn admm_phase(&self, width: usize, sparsity: Sparsity) -> StageConfig {
        let eval_every = if self.profile == Profile::Paper { self.update_every() } else { self.phases.admm.epochs };
        StageConfig::Train(TrainConfig {
            origin: Origin::Parent,
            select: Selection::Last,
            eval_every,
            sparsity,
            ..self.train(width, &self.phases.admm)
        })
    }

    fn prune(&self, width: usize, target: Target) -> StageConfig {
        let TrainConfig { data, network, seed, eval_attack, .. } = self.base.clone();
        StageConfig::Prune(PruneConfig { data, network, width, seed, sparsity: target, eval_attack })
    }

    /// Training of what a hard prune has left.
    fn retrain(&self, width: usize, target: Target, epochs: usize) -> StageConfig {
        StageConfig::Train(TrainConfig {
            origin: Origin::Parent,
            sparsity: Sparsity::Masked(MaskedConfig { target, compact: true }),
            ..self.train(width, &Phase { epochs, ..self.phases.retrain.clone() })
        })
    }

    fn train(&self, width: usize, phase: &Phase) -> TrainConfig {
        TrainConfig {
            width,
            epochs: phase.epochs,
            optimizer: phase.optimizer.clone(),
            schedule: phase.schedule(self.update_every()),
            eval_every: if self.profile == Profile::Paper { 1 } else { phase.epochs },
            ..self.base.clone()
        }
    }

    fn update_every(&self) -> usize {
        update_every(self.phases.admm.epochs)
    }
}

/// The paper's training with the cheaper attacks and measurements of a profile.
pub fn shortened(paper: TrainConfig, profile: Profile) -> TrainConfig {
    let Hyperparameters { quick_attack, sample_attack, .. } = Hyperparameters::of(paper.data.name);
    match profile {
        Profile::Paper => paper,
        Profile::Quick => {
            let attack = quick_attack(&paper.eval_attack);
            TrainConfig { attack: Some(attack), held_out: paper.held_out.min(1000), ..paper }
        }
        Profile::Demo => {
            let attack = sample_attack(&paper.eval_attack);
            TrainConfig { attack: Some(attack), held_out: 0, batch: 16, ..paper }
        }
        Profile::Smoke => {
            let attack = sample_attack(&paper.eval_attack);
            TrainConfig { attack: Some(attack.clone()), eval_attack: attack, held_out: 0, batch: 16, ..paper }
        }
    }
}
