//! Kinds of image passes: those of one kind take the same time.

use std::mem::discriminant;
use std::sync::Arc;

use crate::attack::PgdConfig;
use crate::base::error::{Error, Result};
use crate::experiments::pipeline::{Job, Plan, StageConfig, SuiteConfig};
use crate::nn::models::Architecture;
use crate::prune::{Scheme, Target, groups};
use crate::train::{Sparsity, TrainConfig};

/// Work of a pass in multiply-adds of the network: forward, with the gradient of the images, and with that of the weights, which
/// an update of them needs. Only to reckon one kind from another that was measured.
const FORWARD: f64 = 1.0;
const GRADIENT: f64 = 2.0;
const UPDATE: f64 = 3.0;

/// Everything that decides the time of an image pass.
#[derive(Clone)]
pub struct Kind {
    pub architecture: Arc<Architecture>,
    pub work: Work,
}

/// The purpose of the passes, as a stage describes it.
#[derive(Clone)]
pub enum Work {
    /// Steps of a training: the attack and the update.
    Training(TrainConfig),
    /// A measurement.
    Evaluation(PgdConfig),
    /// Many attacks.
    Suite(SuiteConfig),
}

impl Kind {
    /// The kinds of `job`, a job of `plan` for images of so many classes: of the passes that train, and of those that measure.
    /// `None` for what it does not do.
    ///
    /// # Errors
    /// As [`Architecture::new`].
    pub fn of(plan: &Plan, job: &Job, classes: usize) -> Result<[Option<Kind>; 2]> {
        let config = &job.stage.config;
        let kind = |work| Ok::<_, Error>(Kind { architecture: network(plan, job, classes)?, work });
        let evaluation = config.eval_attack().map(|attack| kind(Work::Evaluation(attack.clone()))).transpose()?;
        Ok(match config {
            StageConfig::Import(_) => [None, None],
            StageConfig::Train(config) => [Some(kind(Work::Training(config.clone()))?), evaluation],
            StageConfig::Prune(_) | StageConfig::Eval(_) => [None, evaluation],
            StageConfig::Suite(config) => [None, Some(kind(Work::Suite(config.clone()))?)],
        })
    }

    /// Whether a pass of `other` takes the same time.
    pub fn is_like(&self, other: &Kind) -> bool {
        let size =
            |kind: &Kind| (kind.architecture.network, kind.architecture.width, kind.architecture.outputs.clone());
        let attack = |attack: &PgdConfig| (attack.steps, attack.restarts, attack.bn);
        size(self) == size(other)
            && match (&self.work, &other.work) {
                (Work::Training(a), Work::Training(b)) => {
                    let attacks = [a, b].map(|config| config.attack.as_ref().map(attack));
                    attacks[0] == attacks[1]
                        && a.batch == b.batch
                        && discriminant(&a.optimizer) == discriminant(&b.optimizer)
                        && discriminant(&a.sparsity) == discriminant(&b.sparsity)
                }
                (Work::Evaluation(a), Work::Evaluation(b)) => attack(a) == attack(b),
                (Work::Suite(a), Work::Suite(b)) => a.attacks == b.attacks,
                _ => false,
            }
    }

    /// Multiply-adds of an image pass, on average over the whole work.
    pub fn multiply_adds(&self) -> f64 {
        let (work, passes) = match &self.work {
            Work::Training(config) => {
                let steps = config.attack.as_ref().map_or(0, |attack| attack.steps);
                (self.work.multiply_adds(steps), steps + 1)
            }
            Work::Evaluation(attack) => {
                let restarts = attack.restarts as f64;
                let clean = self.work.multiply_adds(0) - FORWARD;
                let attacked = self.work.multiply_adds(attack.steps) - clean;
                (clean + restarts * attacked, 1 + attack.restarts * (attack.steps + 1))
            }
            Work::Suite(config) => {
                let classes = self.architecture.classes;
                let attacks = config.attacks.iter().map(|attack| {
                    let passes = attack.rounds(classes) as u64 * attack.image_passes();
                    (if attack.is_white_box() { GRADIENT } else { FORWARD } * passes as f64, passes as usize)
                });
                attacks.fold((0.0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
            }
        };
        work / passes.max(1) as f64 * self.architecture.multiply_adds as f64
    }
}

impl Work {
    /// Work of an image with an attack of `steps` steps from one start, in multiply-adds of the network: with the update of a
    /// training step, or with the two forward passes of a measurement.
    pub fn multiply_adds(&self, steps: usize) -> f64 {
        let rest = if matches!(self, Work::Training(_)) { UPDATE } else { 2.0 * FORWARD };
        GRADIENT * steps as f64 + rest
    }
}

/// The network that `job` computes with.
fn network(plan: &Plan, job: &Job, classes: usize) -> Result<Arc<Architecture>> {
    let config = &job.stage.config;
    let (network, width) = config.network();
    let full = Architecture::new(network, width, classes)?;
    // What measures takes the model as its parent left it.
    let model = match config {
        StageConfig::Eval(_) | StageConfig::Suite(_) => {
            job.parents.first().map(|id| &plan.jobs()[id.index()].stage.config)
        }
        _ => Some(config),
    };
    let compact = match model {
        Some(StageConfig::Train(TrainConfig { sparsity: Sparsity::Masked(masked), .. })) if masked.compact => masked,
        _ => return Ok(Arc::new(full)),
    };
    Ok(Arc::new(shrunk(full, &compact.target)?))
}

/// What is left of `full` when it is pruned to `target` and its empty channels are removed. Which channels training will leave
/// is not known yet: layers that write to the same stream are taken to choose independently of each other.
fn shrunk(full: Architecture, target: &Target) -> Result<Architecture> {
    if matches!(target.scheme, Scheme::Irregular | Scheme::Column) {
        return Ok(full);
    }
    // Per channel space: the share of its channels that no layer writes to.
    let mut empty = vec![1.0; full.spaces.len()];
    let mut written = vec![1.0; full.layers.len()];
    for group in groups(&full, target)? {
        // Layers of one group keep the same channels, so all but the first add nothing.
        let kept = group.keep as f64 / group.items as f64;
        group.layers.iter().enumerate().for_each(|(i, &layer)| written[layer] = if i == 0 { kept } else { 0.0 });
    }
    full.layers.iter().zip(written).for_each(|(layer, written)| empty[layer.writes] *= 1.0 - written);
    let hidden = &full.layers[..full.layers.len() - 1];
    let left = |space: usize| ((full.spaces[space] as f64 * (1.0 - empty[space])).round() as usize).max(1);
    let outputs = hidden.iter().map(|layer| left(layer.writes)).collect();
    Architecture::with_outputs(full.network, full.width, outputs, full.classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::data::{DataId, DatasetName};
    use crate::experiments::pipeline::{BackendName, EvalConfig, Precision};
    use crate::experiments::tables::defaults::{adam, paper_training, sgd};
    use crate::nn::init::{Init, initial_values};
    use crate::nn::models::{Model, Network};
    use crate::prune::{AdmmConfig, hard_prune, shrink};
    use crate::train::{MaskedConfig, Origin};

    fn data(name: DatasetName) -> DataId {
        DataId { name, subset: "full".into(), fingerprint: "0".into() }
    }

    fn training() -> TrainConfig {
        TrainConfig { width: 4, ..paper_training(&data(DatasetName::Mnist), 60_000) }
    }

    fn half(scheme: Scheme) -> Target {
        Target { scheme, ratio: 0.5, linear: true }
    }

    fn kind(config: TrainConfig) -> Kind {
        let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
        plan.add("a stage", StageConfig::Train(config), &[], 1).unwrap();
        let [training, evaluation] = Kind::of(&plan, &plan.jobs()[0], 10).unwrap();
        assert!(!training.clone().unwrap().is_like(&evaluation.unwrap()), "a measurement updates no weights");
        training.unwrap()
    }

    #[test]
    fn kinds_are_told_apart_by_what_decides_the_time() {
        let dense = kind(training());
        let steps = |steps| Some(PgdConfig { steps, ..PgdConfig::paper(DatasetName::Mnist) });
        let admm = AdmmConfig { target: half(Scheme::Filter), rho: 1e-3, growth: 1.3, update_every: 1 };
        let masked = MaskedConfig { target: half(Scheme::Filter), compact: false };
        let others = [
            TrainConfig { width: 2, ..training() },
            TrainConfig { batch: 16, ..training() },
            TrainConfig { attack: steps(10), ..training() },
            TrainConfig { attack: None, ..training() },
            TrainConfig { optimizer: sgd(0.1, 0.0), ..training() },
            TrainConfig { sparsity: Sparsity::Admm(admm), ..training() },
            TrainConfig { sparsity: Sparsity::Masked(masked), ..training() },
        ];
        let kinds: Vec<Kind> = others.into_iter().map(kind).collect();
        for (i, one) in kinds.iter().enumerate() {
            assert!(!one.is_like(&dense), "{i} and dense training");
            assert!(kinds.iter().enumerate().all(|(k, other)| one.is_like(other) == (i == k)), "{i} and another");
        }
        let same = TrainConfig { seed: 7, epochs: 3, optimizer: adam(0.5), init: Init::Orthogonal, ..training() };
        assert!(kind(same).is_like(&dense));
    }

    #[test]
    fn compact_retraining_and_what_measures_it_have_the_small_network() {
        let masked = |compact| Sparsity::Masked(MaskedConfig { target: half(Scheme::Filter), compact });
        let retraining = |compact| TrainConfig { origin: Origin::Parent, sparsity: masked(compact), ..training() };
        let width = |kind: &Kind| kind.architecture.width;
        assert_eq!((width(&kind(retraining(true))), width(&kind(retraining(false)))), (2, 4));

        let TrainConfig { data, network, width: full, seed, eval_attack, .. } = training();
        let eval = EvalConfig { data, network, width: full, seed, sparsity: Some(half(Scheme::Filter)), eval_attack };
        for compact in [false, true] {
            let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
            let parent = plan.add("retraining", StageConfig::Train(retraining(compact)), &[], 1).unwrap();
            plan.add("eval", StageConfig::Eval(eval.clone()), &[parent], 1).unwrap();
            let [none, evaluation] = Kind::of(&plan, &plan.jobs()[1], 10).unwrap();
            assert!(none.is_none());
            assert_eq!(width(&evaluation.unwrap()), if compact { 2 } else { 4 });
        }
    }

    /// Against the removal itself, of a network with random weights.
    #[test]
    fn the_small_network_is_about_as_large_as_what_pruning_leaves() {
        let backend = Cpu::<f32>::new(1).unwrap();
        for network in [Network::LeNet, Network::ResNet18, Network::Vgg16Bn] {
            for scheme in [Scheme::Irregular, Scheme::Filter, Scheme::Column, Scheme::BnFilter, Scheme::Tied] {
                // LeNet has no scales, and those of a fresh network are all the same: no choice between filters.
                if network != Network::Vgg16Bn && scheme == Scheme::BnFilter {
                    continue;
                }
                let full = || Architecture::new(network, 4, 10).unwrap();
                let values = initial_values(&full(), Init::Default, 3);
                let mut model = Model::new(&backend, Arc::new(full()), &values).unwrap();
                hard_prune(&backend, &half(scheme), &mut model).unwrap();
                let left = shrink(&backend, &model).unwrap().model.architecture().multiply_adds as f64;
                let reckoned = shrunk(full(), &half(scheme)).unwrap().multiply_adds as f64;
                assert!((0.9..1.1).contains(&(reckoned / left)), "{network} {scheme}: {reckoned} and {left}");
            }
        }
    }

    /// LeNet w=1 has 91,584 multiply-adds.
    #[test]
    fn passes_of_an_attack_are_cheaper_than_those_that_train() {
        let per_pass = |work| {
            let architecture = Arc::new(Architecture::new(Network::LeNet, 1, 10).unwrap());
            Kind { architecture, work }.multiply_adds() / 91_584.0
        };
        let paper = PgdConfig::paper(DatasetName::Mnist);
        let natural = TrainConfig { attack: None, ..training() };
        assert_eq!(per_pass(Work::Training(natural)), 3.0);
        // Forty steps of two and an update of three, in 41 passes.
        assert!((per_pass(Work::Training(training())) - 83.0 / 41.0).abs() < 1e-9);
        // Clean, and twice forty steps and the attacked image.
        let twice = PgdConfig { restarts: 2, ..paper };
        assert!((per_pass(Work::Evaluation(twice)) - (1.0 + 2.0 * 81.0) / 83.0).abs() < 1e-9);
    }
}
