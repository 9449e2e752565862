//! Every setting of every stage, a second time: from the paper, and from docs/reproducing.md where the paper is silent.

use engine::attack::{EpsSchedule, PgdConfig, Ramp};
use engine::experiments::pipeline::{EvalConfig, PruneConfig, StageConfig};
use engine::experiments::tables::{Cell, Profile, Settings};
use engine::nn::init::Init;
use engine::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use engine::prune::{AdmmConfig, Target};
use engine::train::{MaskedConfig, Origin, ProximalConfig, Selection, Sparsity, TrainConfig};

use super::pruning::{cells, settings};

const PROFILES: [Profile; 4] = [Profile::Paper, Profile::Quick, Profile::Smoke, Profile::Demo];

fn optimizer(config: &OptimizerConfig) -> String {
    match config {
        OptimizerConfig::Sgd { lr, momentum, weight_decay } => {
            assert_eq!(*momentum, 0.9);
            format!("sgd {lr} {weight_decay}")
        }
        OptimizerConfig::Adam { lr, beta1, beta2, eps, weight_decay } => {
            assert_eq!((*beta1, *beta2, *eps, *weight_decay), (0.9, 0.999, 1e-8, 0.0), "PyTorch's constants");
            format!("adam {lr}")
        }
    }
}

fn schedule(LrSchedule { shape, milestones, gamma, period, warmup_epochs }: &LrSchedule) -> String {
    assert_eq!((*gamma, *warmup_epochs), (0.1, 0.0));
    assert!(*period == 0 || *shape == LrShape::Periodic, "a period without a use");
    match shape {
        LrShape::MultiStep => format!("multi-step {milestones:?}"),
        LrShape::Periodic => format!("periodic {period}"),
        LrShape::Constant | LrShape::Cosine => shape.to_string(),
    }
}

fn attack(PgdConfig { eps, step_size, steps, random_start, restarts, loss, bn }: &PgdConfig) -> String {
    assert!(*random_start && *restarts == 1);
    format!("{steps} x {step_size:.6} in {eps:.6} {loss} {bn}")
}

fn target(Target { scheme, ratio, linear }: &Target) -> String {
    assert!(linear, "rows of fully connected layers too");
    format!("{scheme} {ratio}")
}

fn sparsity(config: &Sparsity) -> String {
    match config {
        Sparsity::Dense => "dense".to_string(),
        Sparsity::Masked(MaskedConfig { target: to, compact }) => {
            format!("{} {}", if *compact { "compact" } else { "masked" }, target(to))
        }
        Sparsity::Admm(AdmmConfig { target: to, rho, growth, update_every }) => {
            format!("admm {rho} x {growth} each {update_every} {}", target(to))
        }
        Sparsity::Proximal(ProximalConfig { target: to, every }) => format!("proximal each {every} {}", target(to)),
    }
}

/// What all stages of a table have in common; and what this one has for itself.
fn shown(config: &StageConfig) -> [String; 2] {
    match config {
        StageConfig::Train(config) => training(config),
        StageConfig::Prune(PruneConfig { data, network, width, seed, sparsity, eval_attack }) => [
            format!("{network} on {} {}, seed {seed}, measured by {}", data.name, data.subset, attack(eval_attack)),
            format!("{width} prune {}", target(sparsity)),
        ],
        StageConfig::Eval(EvalConfig { data, network, width, seed, sparsity, eval_attack }) => {
            let pruned = sparsity.as_ref().map_or("dense".to_string(), target);
            [
                format!("{network} on {} {}, seed {seed}", data.name, data.subset),
                format!("{width} {pruned} measured by {}", attack(eval_attack)),
            ]
        }
        StageConfig::Import(_) | StageConfig::Suite(_) => panic!("no table has a stage like {config:?}"),
    }
}

fn training(config: &TrainConfig) -> [String; 2] {
    let TrainConfig { data, augment, network, width, origin, init, epochs, batch, held_out, select, .. } = config;
    let TrainConfig { seed, eps_schedule: EpsSchedule { ramp, epochs: ramped }, eval_every, .. } = config;
    let against = config.attack.as_ref().map_or("clean images".to_string(), attack);
    let augment = if *augment { "augmented, " } else { "" };
    let origin = match origin {
        Origin::Initialisation => "fresh",
        Origin::Parent => "parent",
        Origin::Inherited => "inherited",
    };
    let init = if *init == Init::Default { String::new() } else { format!(" {init}") };
    let ramp = match ramp {
        Ramp::Constant => String::new(),
        Ramp::Cosine => format!(", ramp {ramped:.4}"),
        Ramp::Linear => panic!("no table has a linear ramp"),
    };
    let select = match select {
        Selection::TestBest => "best",
        Selection::HeldOut => panic!("no table selects honestly unless asked to"),
        Selection::Last => "last",
    };
    let common = format!(
        "{network} on {} {}, seed {seed}, {augment}batch {batch}, {held_out} held out, against {against}, measured by {}",
        data.name,
        data.subset,
        attack(&config.eval_attack)
    );
    let (optimizer, schedule) = (optimizer(&config.optimizer), schedule(&config.schedule));
    let sparsity = sparsity(&config.sparsity);
    let phase = format!("{epochs} epochs, {optimizer} {schedule}{ramp}, {select} each {eval_every}, {sparsity}");
    [common, format!("{width} {origin}{init}: {phase}")]
}

/// The chain of one cell, with seed 7, and with the epochs of each phase if they are given.
pub fn chain(id: &str, profile: Profile, method: &str, cell: &str, epochs: Option<usize>) -> Vec<[String; 2]> {
    let settings = Settings {
        methods: vec![method.into()],
        cells: vec![cell.into()],
        seeds: vec![7],
        epochs,
        ..settings(id, profile)
    };
    let [Cell { chain, .. }] = &cells(id, &settings)[..] else { panic!("one cell") };
    chain.iter().map(shown).collect()
}

/// The phases that methods are made of, for 16 pruned to 4.
struct Phases {
    dense: &'static str,
    admm: &'static str,
    proximal: &'static str,
    retraining: &'static str,
    /// After pruning at once: as long as ADMM and retraining together.
    long_retraining: &'static str,
    /// As long as all three together, as is the next.
    scratch: &'static str,
    inherited: &'static str,
}

const PRUNE: &str = "16 prune filter 0.75";

impl Phases {
    fn chain(&self, method: &str) -> Vec<&'static str> {
        match method {
            "natural-training" | "adversarial-training" => vec![self.dense],
            "admm" => vec![self.dense, self.admm, PRUNE, self.retraining],
            "proximal" => vec![self.dense, self.proximal, PRUNE, self.retraining],
            "post-prune" => vec![self.dense, PRUNE, self.long_retraining],
            "no-retrain" => vec![self.dense, PRUNE],
            "scratch" => vec![self.scratch],
            "inherited" => vec![self.dense, PRUNE, self.inherited],
            other => panic!("a method that this test does not know: {other}"),
        }
    }
}

/// Paper, quick, smoke, demo.
const MNIST: [Phases; 4] = [
    Phases {
        dense: "16 fresh: 83 epochs, adam 0.0001 constant, best each 1, dense",
        admm: "16 parent: 40 epochs, sgd 0.01 0 periodic 4, last each 4, admm 0.001 x 1.3 each 4 filter 0.75",
        proximal: "16 parent: 40 epochs, sgd 0.01 0 periodic 4, last each 4, proximal each epoch filter 0.75",
        retraining: "16 parent: 40 epochs, adam 0.0001 constant, best each 1, compact filter 0.75",
        long_retraining: "16 parent: 80 epochs, adam 0.0001 constant, best each 1, compact filter 0.75",
        scratch: "4 fresh: 163 epochs, adam 0.0001 constant, best each 1, dense",
        inherited: "16 inherited: 163 epochs, adam 0.0001 constant, best each 1, compact filter 0.75",
    },
    Phases {
        dense: "16 fresh: 5 epochs, adam 0.001 constant, ramp 2.0000, best each 5, dense",
        admm: "16 parent: 3 epochs, sgd 0.01 0 periodic 1, last each 3, admm 0.03 x 1.3 each 1 filter 0.75",
        proximal: "16 parent: 3 epochs, sgd 0.01 0 periodic 1, last each 3, proximal each epoch filter 0.75",
        retraining: "16 parent: 3 epochs, adam 0.001 cosine, best each 3, compact filter 0.75",
        long_retraining: "16 parent: 6 epochs, adam 0.001 cosine, best each 6, compact filter 0.75",
        scratch: "4 fresh: 11 epochs, adam 0.001 constant, ramp 3.6667, best each 11, dense",
        inherited: "16 inherited: 11 epochs, adam 0.001 constant, ramp 3.6667, best each 11, compact filter 0.75",
    },
    Phases {
        dense: "16 fresh: 1 epochs, adam 0.001 constant, ramp 0.4000, best each 1, dense",
        admm: "16 parent: 1 epochs, sgd 0.01 0 periodic 1, last each 1, admm 0.03 x 1.3 each 1 filter 0.75",
        proximal: "16 parent: 1 epochs, sgd 0.01 0 periodic 1, last each 1, proximal each epoch filter 0.75",
        retraining: "16 parent: 1 epochs, adam 0.001 cosine, best each 1, compact filter 0.75",
        long_retraining: "16 parent: 2 epochs, adam 0.001 cosine, best each 2, compact filter 0.75",
        scratch: "4 fresh: 3 epochs, adam 0.001 constant, ramp 1.0000, best each 3, dense",
        inherited: "16 inherited: 3 epochs, adam 0.001 constant, ramp 1.0000, best each 3, compact filter 0.75",
    },
    Phases {
        dense: "16 fresh: 10 epochs, adam 0.001 constant, ramp 4.0000, best each 10, dense",
        admm: "16 parent: 10 epochs, sgd 0.01 0 periodic 1, last each 10, admm 0.03 x 1.3 each 1 filter 0.75",
        proximal: "16 parent: 10 epochs, sgd 0.01 0 periodic 1, last each 10, proximal each epoch filter 0.75",
        retraining: "16 parent: 10 epochs, adam 0.001 cosine, best each 10, compact filter 0.75",
        long_retraining: "16 parent: 20 epochs, adam 0.001 cosine, best each 20, compact filter 0.75",
        scratch: "4 fresh: 30 epochs, adam 0.001 constant, ramp 10.0000, best each 30, dense",
        inherited: "16 inherited: 30 epochs, adam 0.001 constant, ramp 10.0000, best each 30, compact filter 0.75",
    },
];

const CIFAR: [Phases; 4] = [
    Phases {
        dense: "16 fresh: 300 epochs, sgd 0.1 0.0001 multi-step [80, 150], best each 1, dense",
        admm: "16 parent: 200 epochs, sgd 0.01 0.0001 periodic 20, last each 20, admm 0.001 x 1.3 each 20 filter 0.75",
        proximal: "16 parent: 200 epochs, sgd 0.01 0.0001 periodic 20, last each 20, proximal each epoch filter 0.75",
        retraining: "16 parent: 100 epochs, sgd 0.01 0.0001 cosine, best each 1, compact filter 0.75",
        long_retraining: "16 parent: 300 epochs, sgd 0.01 0.0001 cosine, best each 1, compact filter 0.75",
        scratch: "4 fresh: 600 epochs, sgd 0.1 0.0001 multi-step [160, 300], best each 1, dense",
        inherited: "16 inherited: 600 epochs, sgd 0.1 0.0001 multi-step [160, 300], best each 1, compact filter 0.75",
    },
    Phases {
        dense: "16 fresh: 4 epochs, sgd 0.1 0.0001 cosine, best each 4, dense",
        admm: "16 parent: 4 epochs, sgd 0.01 0.0001 periodic 1, last each 4, admm 0.03 x 1.3 each 1 filter 0.75",
        proximal: "16 parent: 4 epochs, sgd 0.01 0.0001 periodic 1, last each 4, proximal each epoch filter 0.75",
        retraining: "16 parent: 3 epochs, sgd 0.01 0.0001 cosine, best each 3, compact filter 0.75",
        long_retraining: "16 parent: 7 epochs, sgd 0.01 0.0001 cosine, best each 7, compact filter 0.75",
        scratch: "4 fresh: 11 epochs, sgd 0.1 0.0001 cosine, best each 11, dense",
        inherited: "16 inherited: 11 epochs, sgd 0.1 0.0001 cosine, best each 11, compact filter 0.75",
    },
    Phases {
        dense: "16 fresh: 1 epochs, sgd 0.1 0.0001 cosine, best each 1, dense",
        admm: "16 parent: 1 epochs, sgd 0.01 0.0001 periodic 1, last each 1, admm 0.03 x 1.3 each 1 filter 0.75",
        proximal: "16 parent: 1 epochs, sgd 0.01 0.0001 periodic 1, last each 1, proximal each epoch filter 0.75",
        retraining: "16 parent: 1 epochs, sgd 0.01 0.0001 cosine, best each 1, compact filter 0.75",
        long_retraining: "16 parent: 2 epochs, sgd 0.01 0.0001 cosine, best each 2, compact filter 0.75",
        scratch: "4 fresh: 3 epochs, sgd 0.1 0.0001 cosine, best each 3, dense",
        inherited: "16 inherited: 3 epochs, sgd 0.1 0.0001 cosine, best each 3, compact filter 0.75",
    },
    Phases {
        dense: "16 fresh: 60 epochs, sgd 0.03 0.0001 cosine, best each 60, dense",
        admm: "16 parent: 30 epochs, sgd 0.01 0.0001 periodic 3, last each 30, admm 0.03 x 1.3 each 3 filter 0.75",
        proximal: "16 parent: 30 epochs, sgd 0.01 0.0001 periodic 3, last each 30, proximal each epoch filter 0.75",
        retraining: "16 parent: 30 epochs, sgd 0.01 0.0001 cosine, best each 30, compact filter 0.75",
        long_retraining: "16 parent: 60 epochs, sgd 0.01 0.0001 cosine, best each 60, compact filter 0.75",
        scratch: "4 fresh: 120 epochs, sgd 0.03 0.0001 cosine, best each 120, dense",
        inherited: "16 inherited: 120 epochs, sgd 0.03 0.0001 cosine, best each 120, compact filter 0.75",
    },
];

/// What all stages of a table share under one profile.
struct Common {
    /// Network, data and what a stage of training has beside its phase.
    network: &'static str,
    training: &'static str,
    /// In training, and in measuring.
    attacks: [&'static str; 2],
}

/// Eps 0.3, 40 steps of 0.01, and a quarter of the steps four times as long.
const DIGITS: [&str; 2] =
    ["40 x 0.010000 in 0.300000 cross-entropy train", "10 x 0.040000 in 0.300000 cross-entropy train"];
/// Eps 0.1, 40 steps of 0.005.
const FASHION: [&str; 2] =
    ["40 x 0.005000 in 0.100000 cross-entropy train", "10 x 0.020000 in 0.100000 cross-entropy train"];
/// Eps 8/255, 10 steps of 2/255, and one step of 8/255.
const COLOUR: [&str; 2] =
    ["10 x 0.007843 in 0.031373 cross-entropy train", "1 x 0.031373 in 0.031373 cross-entropy train"];

fn common(id: &str, profile: Profile) -> Common {
    let network = match (id, profile) {
        ("t2" | "c1", Profile::Demo) => "lenet on mnist sample:2700+500, seed 7",
        ("fashion", Profile::Demo) => "lenet on fashion-mnist sample:2700+500, seed 7",
        ("t3", Profile::Demo) => "lenet-cifar on cifar10 sample:800+200, seed 7",
        (_, Profile::Demo) => "resnet18 on cifar10 sample:800+200, seed 7",
        ("t2" | "c1", Profile::Smoke) => "lenet on mnist sample:400+200, seed 7",
        ("t2" | "c1", _) => "lenet on mnist full, seed 7",
        ("fashion", Profile::Smoke) => "lenet on fashion-mnist sample:150+50, seed 7",
        ("fashion", _) => "lenet on fashion-mnist full, seed 7",
        ("t3", Profile::Smoke) => "lenet-cifar on cifar10 sample:300+100, seed 7",
        ("t3", _) => "lenet-cifar on cifar10 full, seed 7",
        (_, Profile::Smoke) => "resnet18 on cifar10 sample:30+10, seed 7",
        _ => "resnet18 on cifar10 full, seed 7",
    };
    let cifar = network.contains("cifar10");
    let training = match (profile, cifar) {
        (Profile::Paper, false) => "batch 64, 5000 held out",
        (Profile::Paper, true) => "augmented, batch 128, 5000 held out",
        (Profile::Quick, false) => "batch 64, 1000 held out",
        (Profile::Quick, true) => "augmented, batch 128, 1000 held out",
        (Profile::Smoke | Profile::Demo, false) => "batch 16, 0 held out",
        (Profile::Smoke | Profile::Demo, true) => "augmented, batch 16, 0 held out",
    };
    let [full, cheap] = if cifar {
        COLOUR
    } else if id == "fashion" {
        FASHION
    } else {
        DIGITS
    };
    let attacks = match (profile, cifar) {
        (Profile::Paper, _) | (Profile::Quick, true) => [full, full],
        (Profile::Quick, false) | (Profile::Demo, _) => [cheap, full],
        (Profile::Smoke, _) => [cheap, cheap],
    };
    Common { network, training, attacks }
}

impl Common {
    fn of(&self, stage: &str, natural: bool) -> String {
        let Common { network, training, attacks: [against, measured] } = self;
        let against = if natural { "clean images" } else { against };
        if stage == PRUNE {
            format!("{network}, measured by {measured}")
        } else {
            format!("{network}, {training}, against {against}, measured by {measured}")
        }
    }
}

/// The demo of the LeNet on CIFAR-10, which has no batch normalisation, learns more slowly.
fn of(id: &str, profile: Profile, stage: &str) -> String {
    match (id, profile) {
        ("t3", Profile::Demo) => stage.replace("sgd 0.03 ", "sgd 0.01 "),
        _ => stage.to_string(),
    }
}

#[test]
fn every_stage_of_every_method_has_its_settings() {
    for (id, cell) in [("t2", "16:4"), ("t3", "16:4"), ("t4", "16:4"), ("a1", "16:4"), ("fashion", "16:4x")] {
        let table = engine::experiments::tables::Table::find(id).unwrap();
        for ((profile, mnist), cifar) in PROFILES.into_iter().zip(&MNIST).zip(&CIFAR) {
            let phases = if matches!(id, "t2" | "fashion") { mnist } else { cifar };
            for method in table.blocks.iter().map(|block| block.method) {
                let cell = if method.ends_with("-training") { "16:dense" } else { cell };
                let common = common(id, profile);
                let natural = method == "natural-training";
                let expected: Vec<[String; 2]> = phases
                    .chain(method)
                    .iter()
                    .map(|stage| [common.of(stage, natural), of(id, profile, stage)])
                    .collect();
                assert_eq!(chain(id, profile, method, cell, None), expected, "{id} {profile} {method}");
            }
        }
    }
    assert_eq!((8.0f32 / 255.0, 2.0f32 / 255.0), {
        let attack = engine::attack::PgdConfig::paper(engine::data::DatasetName::Cifar10);
        (attack.eps, attack.step_size)
    });
}

/// Of a number of steps that four does not divide the quarter is rounded up, and the ball stays.
#[test]
fn a_coarse_attack_has_a_quarter_of_the_steps() {
    let paper = engine::attack::PgdConfig::paper(engine::data::DatasetName::Cifar10);
    let coarse = engine::experiments::tables::defaults::coarse(&paper);
    assert_eq!((coarse.steps, coarse.step_size, coarse.eps), (3, 8.0 / 255.0, 8.0 / 255.0));
    assert_eq!(PgdConfig { steps: 10, step_size: 2.0 / 255.0, ..coarse }, paper);
}

/// Table C1 measures each model of table 2 once more.
#[test]
fn c1_adds_its_attack_to_the_chains_of_t2() {
    for (profile, margin) in PROFILES.into_iter().zip([
        "40 x 0.010000 in 0.300000 margin train",
        "40 x 0.010000 in 0.300000 margin train",
        "10 x 0.040000 in 0.300000 margin train",
        "40 x 0.010000 in 0.300000 margin train",
    ]) {
        for (method, cell, pruned) in [("adversarial-training", "16:dense", "dense"), ("admm", "16:4", "filter 0.75")] {
            let last = [common("c1", profile).network.to_string(), format!("16 {pruned} measured by {margin}")];
            let expected = [chain("t2", profile, method, cell, None), vec![last]].concat();
            assert_eq!(chain("c1", profile, method, cell, None), expected, "{profile} {method}");
        }
    }
}

#[test]
fn every_cell_of_b1_has_its_settings() {
    let optimizers = [
        ("scratch", "adam", "adam 0.0001 constant"),
        ("scratch", "sgd", "sgd 0.1 0 multi-step [20]"),
        ("scratch", "cosanneal", "sgd 0.1 0 cosine"),
        ("warmup", "adam-1e-4", "adam 0.0001 constant"),
        ("warmup", "adam-1e-3", "adam 0.001 constant"),
        ("warmup", "sgd", "sgd 0.1 0 multi-step [20]"),
        ("warmup", "cosanneal", "sgd 0.1 0 cosine"),
    ];
    let profiles = [
        (Profile::Paper, "lenet on mnist full, seed 7, batch 64, 5000 held out", [0, 0], 300, "30.0000"),
        (Profile::Quick, "lenet on mnist full, seed 7, batch 64, 5000 held out", [0, 0], 5, "3.0000"),
        (Profile::Smoke, "lenet on mnist sample:3000+1000, seed 7, batch 64, 300 held out", [1, 1], 8, "4.8000"),
        (Profile::Demo, "lenet on mnist sample:2700+500, seed 7, batch 16, 0 held out", [1, 0], 120, "30.0000"),
    ];
    for (profile, common, [against, measured], epochs, ramp) in profiles {
        let common = format!("{common}, against {}, measured by {}", DIGITS[against], DIGITS[measured]);
        for (method, column, optimizer) in optimizers {
            let ramp = if method == "warmup" { format!(", ramp {ramp}") } else { String::new() };
            for init in [
                "uniform",
                "normal",
                "xavier_uniform",
                "xavier_normal",
                "kaiming_uniform",
                "kaiming_normal",
                "orthogonal",
            ] {
                let each = if profile == Profile::Demo { epochs } else { 1 };
                let stage = format!("1 fresh {init}: {epochs} epochs, {optimizer}{ramp}, best each {each}, dense");
                let got = chain("b1", profile, method, &format!("{init}:{column}"), None);
                assert_eq!(got, [[common.clone(), stage]], "{profile} {method} {init}:{column}");
            }
        }
    }
}
