//! The chains of stages behind the methods that the pruning tables compare.
//!
//! Every method has the same epochs at its disposal: what ADMM spends on its two phases after dense training, another
//! method spends on what it does instead, and a network trained from scratch gets all three phases' epochs.

use super::defaults::{adam, coarse, paper_training, sgd};
use super::{Profile, Settings};
use crate::attack::{EpsSchedule, PgdConfig, Ramp};
use crate::base::named_enum::named_enum;
use crate::data::DatasetName;
use crate::experiments::pipeline::{PruneConfig, StageConfig};
use crate::nn::models::Network;
use crate::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
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
        /// What is left of the dense network after pruning, trained from the values it was initialised with.
        Inherited = "inherited",
    }
}

/// How one phase of a chain is trained.
#[derive(Clone)]
pub struct Phase {
    /// Its length.
    pub epochs: usize,
    /// Update rule.
    pub optimizer: OptimizerConfig,
    /// Learning rate over the phase.
    pub shape: LrShape,
}

/// The phases of a chain under one profile.
#[derive(Clone)]
pub struct Phases {
    /// Training of the dense network.
    pub dense: Phase,
    /// Training of the dense network towards a pruned one.
    pub approach: Phase,
    /// Training of what a hard prune has left.
    pub retrain: Phase,
    /// Weight of ADMM's penalty at the start of the approach.
    pub rho: f32,
}

/// What ADMM's penalty is multiplied by at each update.
pub const RHO_GROWTH: f32 = 1.3;

/// Epochs between updates of ADMM's variables: ten updates, as published for all data sets.
pub fn update_every(epochs: usize) -> usize {
    (epochs / 10).max(1)
}

/// The settings of a table's stages under one profile and seed.
pub struct Recipe {
    /// What all training stages have in common.
    base: TrainConfig,
    phases: Phases,
    profile: Profile,
}

impl Recipe {
    /// That of `network` on the data of `settings`.
    pub fn new(network: Network, settings: &Settings, seed: u64) -> Self {
        let Settings { profile, ref data, train_images, .. } = *settings;
        let base = TrainConfig { network, seed, ..paper_training(data, train_images) };
        let mut phases = Phases::of(profile, data.name);
        if let Some(epochs) = settings.epochs {
            phases.set_epochs(epochs);
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
                let (rho, update_every) = (self.phases.rho, self.update_every());
                let config = AdmmConfig { target, rho, growth: RHO_GROWTH, update_every };
                vec![dense, self.approach(width, Sparsity::Admm(config)), prune, retrain(self.phases.retrain.epochs)]
            }
            Method::Proximal => {
                let config = ProximalConfig { target, every: ProximalEvery::Epoch };
                vec![
                    dense,
                    self.approach(width, Sparsity::Proximal(config)),
                    prune,
                    retrain(self.phases.retrain.epochs),
                ]
            }
            Method::PostPrune => {
                vec![dense, prune, retrain(self.phases.approach.epochs.saturating_add(self.phases.retrain.epochs))]
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
        let Phases { dense, approach, retrain, .. } = &self.phases;
        let epochs = dense.epochs.saturating_add(approach.epochs).saturating_add(retrain.epochs);
        self.initialised(width, epochs, 1.0 / 3.0)
    }

    /// Dense training; where it is short, narrow networks only get going with an attack that grows over the first
    /// epochs, the share `ramp` of all.
    fn initialised(&self, width: usize, epochs: usize, ramp: f64) -> TrainConfig {
        let mut config = self.train(width, &Phase { epochs, ..self.phases.dense.clone() });
        if self.profile != Profile::Paper && config.data.name != DatasetName::Cifar10 {
            config.eps_schedule = EpsSchedule { ramp: Ramp::Cosine, epochs: ramp * epochs as f64 };
        }
        config
    }

    /// Training of the dense model towards a pruned one. The last model is the one to prune, so it suffices to measure
    /// now and then.
    fn approach(&self, width: usize, sparsity: Sparsity) -> StageConfig {
        let eval_every = if self.profile == Profile::Paper { self.update_every() } else { self.phases.approach.epochs };
        StageConfig::Train(TrainConfig {
            origin: Origin::Parent,
            select: Selection::Last,
            eval_every,
            sparsity,
            ..self.train(width, &self.phases.approach)
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
        let (epochs, shape) = (phase.epochs, phase.shape);
        // The published drops at epochs 80 and 150 of 300, stretched to other lengths.
        let drops: &[usize] = if shape == LrShape::MultiStep { &[80, 150] } else { &[] };
        let milestones = drops.iter().map(|drop| epochs.saturating_mul(*drop) / 300).collect();
        let period = if shape == LrShape::Periodic { self.update_every() } else { 0 };
        TrainConfig {
            width,
            epochs,
            optimizer: phase.optimizer.clone(),
            schedule: LrSchedule { shape, milestones, gamma: 0.1, period, warmup_epochs: 0.0 },
            eval_every: if self.profile == Profile::Paper { 1 } else { epochs },
            ..self.base.clone()
        }
    }

    fn update_every(&self) -> usize {
        update_every(self.phases.approach.epochs)
    }
}

impl Phases {
    /// Those of a profile on a data set.
    ///
    /// Unpublished and ours: the optimiser of the approach (next to Adam's normalised steps the small penalty would
    /// hardly pull), the learning rate and length of MNIST's retraining, and all of `quick`.
    pub fn of(profile: Profile, data: DatasetName) -> Self {
        use LrShape::{Constant, Cosine, MultiStep, Periodic};
        let cifar = data == DatasetName::Cifar10;
        let decay = if cifar { 1e-4 } else { 0.0 };
        let phase = |epochs, optimizer, shape| Phase { epochs, optimizer, shape };
        let approach = |epochs| phase(epochs, sgd(0.01, decay), Periodic);
        let [dense, approach, retrain] = match (profile, cifar) {
            (Profile::Paper, false) => [phase(83, adam(1e-4), Constant), approach(40), phase(40, adam(1e-4), Constant)],
            (Profile::Paper, true) => {
                [phase(300, sgd(0.1, decay), MultiStep), approach(200), phase(100, sgd(0.01, decay), Cosine)]
            }
            (_, false) => [phase(5, adam(1e-3), Constant), approach(3), phase(3, adam(1e-3), Cosine)],
            (_, true) => [phase(4, sgd(0.1, decay), Cosine), approach(4), phase(3, sgd(0.01, decay), Cosine)],
        };
        // A short approach needs a stronger pull to arrive.
        let rho = if profile == Profile::Paper { 1e-3 } else { 3e-2 };
        let mut phases = Phases { dense, approach, retrain, rho };
        if profile == Profile::Smoke {
            phases.set_epochs(1);
        }
        phases
    }

    /// Gives every phase this length.
    fn set_epochs(&mut self, epochs: usize) {
        for phase in [&mut self.dense, &mut self.approach, &mut self.retrain] {
            phase.epochs = epochs;
        }
    }
}

/// The paper's training with the cheaper attacks and measurements of a profile.
fn shortened(paper: TrainConfig, profile: Profile) -> TrainConfig {
    let cifar = paper.data.name == DatasetName::Cifar10;
    let attack = &paper.eval_attack;
    match profile {
        Profile::Paper => paper,
        Profile::Quick => {
            let attack = if cifar { attack.clone() } else { coarse(attack) };
            TrainConfig { attack: Some(attack), held_out: paper.held_out.min(1000), ..paper }
        }
        Profile::Smoke => {
            let attack =
                if cifar { PgdConfig { steps: 1, step_size: attack.eps, ..attack.clone() } } else { coarse(attack) };
            TrainConfig { attack: Some(attack.clone()), eval_attack: attack, held_out: 0, batch: 16, ..paper }
        }
    }
}

/// What a reader of a pruning table must know, whatever the network.
pub fn notes(settings: &Settings) -> Vec<String> {
    let mut notes = vec![
        "Pruning keeps the filters of largest norm, the same share of every layer; rows of fully connected layers too, \
         but not the classifier's."
            .to_string(),
        "Equal epochs: retraining after post-prune is as long as ADMM and retraining together, the proximal phase as \
         ADMM's, and training from scratch as all of them. ADMM and proximal: SGD 0.01, momentum 0.9; the paper does \
         not name its optimiser."
            .to_string(),
    ];
    match settings.profile {
        Profile::Smoke => notes.push(format!(
            "Smoke uses {} training and {} test images, one epoch a phase and an attack of {}: it shows that the chain \
             runs, not how the methods compare.",
            settings.train_images,
            settings.test_images,
            if settings.data.name == DatasetName::Cifar10 { "one step" } else { "10 steps" }
        )),
        Profile::Quick | Profile::Paper => {
            notes.push("Most published gaps are under 2 points: believe none that is within its spread.".to_string());
        }
    }
    notes
}
