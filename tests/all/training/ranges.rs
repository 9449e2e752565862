//! Where the settings of a run end: the last value that is taken, and the first that is not.

use engine::attack::apgd::ApgdLoss;
use engine::attack::{AttackLoss, BnMode, PgdConfig, Ramp};
use engine::data::DatasetName;
use engine::nn::init::Init;
use engine::nn::models::Network;
use engine::nn::optim::{LrShape, OptimizerConfig};
use engine::prune::{AdmmConfig, Scheme, Target};
use engine::train::{Origin, ProximalEvery, Selection, Sparsity, TrainConfig};

use crate::small_runs::{config, digits};

/// A setting: its name, and how it is set.
type Setting<T> = (&'static str, fn(&mut TrainConfig, T));

/// What is said of a configuration for 150 training images.
fn verdict<T>(change: fn(&mut TrainConfig, T), value: T) -> Result<(), String> {
    let mut config = config(&digits(150, 1));
    change(&mut config, value);
    config.validate(150).map_err(|error| error.to_string())
}

fn check<T: Copy + std::fmt::Debug>((name, change): Setting<T>, taken: &[T], refused: &[T]) {
    for &value in taken {
        assert_eq!(verdict(change, value), Ok(()), "{name} = {value:?}");
    }
    for &value in refused {
        let error = verdict(change, value).expect_err(&format!("{name} = {value:?}"));
        assert!(error.starts_with(&format!("{name}: ")), "{name} = {value:?}: {error}");
    }
}

fn attack(config: &mut TrainConfig) -> &mut PgdConfig {
    config.attack.as_mut().unwrap()
}

#[test]
fn counts_have_a_least_and_a_most() {
    let most = [1, 100_000];
    check(("epochs", |c, v| c.epochs = v), &most, &[0, 100_001]);
    check(("eval_every", |c, v| c.eval_every = v), &most, &[0, 100_001]);
    check(("batch", |c, v| c.batch = v), &[1, 1_048_576], &[0, 1_048_577]);
    check(("width", |c, v| c.width = v), &[1, 64], &[0, 65]);
    check(("held_out", |c, v| c.held_out = v), &[0, 149], &[150, 151]);
    check(("attack.steps", |c, v| attack(c).steps = v), &[1, 10_000], &[0, 10_001]);
    check(("eval_attack.steps", |c, v| c.eval_attack.steps = v), &[1, 10_000], &[0, 10_001]);
    check(("attack.restarts", |c, v| attack(c).restarts = v), &[1], &[0, 2]);
    check(("eval_attack.restarts", |c, v| c.eval_attack.restarts = v), &[1, 1000], &[0, 1001]);
    let period: Setting<usize> = ("schedule.period", |c, v| {
        c.schedule.shape = LrShape::Periodic;
        c.schedule.period = v;
    });
    check(period, &most, &[0, 100_001]);
    check(("sparsity.update_every", |c, v| admm(c, 0.1, 1.3, v)), &most, &[0, 100_001]);
    check(("seed", |c, v| c.seed = v), &[0, i64::MAX as u64], &[1 << 63, u64::MAX]);
}

fn admm(config: &mut TrainConfig, rho: f32, growth: f32, update_every: usize) {
    let target = Target { scheme: Scheme::Filter, ratio: 0.5, linear: true };
    config.width = 2;
    config.sparsity = Sparsity::Admm(AdmmConfig { target, rho, growth, update_every });
}

fn sgd(config: &mut TrainConfig, lr: f32, momentum: f32, weight_decay: f32) {
    config.optimizer = OptimizerConfig::Sgd { lr, momentum, weight_decay };
}

fn adam(config: &mut TrainConfig, beta1: f32, beta2: f32, eps: f32) {
    config.optimizer = OptimizerConfig::Adam { lr: 0.1, beta1, beta2, eps, weight_decay: 0.0 };
}

#[test]
fn numbers_are_finite_and_not_negative() {
    let positive: [Setting<f32>; 13] = [
        ("schedule.gamma", |c, v| c.schedule.gamma = v),
        ("schedule.warmup_epochs", |c, v| c.schedule.warmup_epochs = v.into()),
        ("eps_schedule.epochs", |c, v| c.eps_schedule.epochs = v.into()),
        ("attack.eps", |c, v| attack(c).eps = v),
        ("attack.step_size", |c, v| attack(c).step_size = v),
        ("eval_attack.eps", |c, v| c.eval_attack.eps = v),
        ("eval_attack.step_size", |c, v| c.eval_attack.step_size = v),
        ("sparsity.rho", |c, v| admm(c, v, 1.3, 1)),
        ("sparsity.growth", |c, v| admm(c, 0.1, v, 1)),
        ("optimizer.lr", |c, v| sgd(c, v, 0.9, 0.0)),
        ("optimizer.weight_decay", |c, v| sgd(c, 0.1, 0.9, v)),
        ("optimizer.weight_decay", |c, v| {
            c.optimizer = OptimizerConfig::Adam { lr: 0.1, beta1: 0.9, beta2: 0.9, eps: 0.0, weight_decay: v };
        }),
        ("optimizer.eps", |c, v| adam(c, 0.9, 0.9, v)),
    ];
    for setting in positive {
        check(setting, &[0.0, 1.0, f32::MAX], &[-f32::MIN_POSITIVE, f32::INFINITY, f32::NAN]);
    }
    let below_one: [Setting<f32>; 3] = [
        ("optimizer.momentum", |c, v| sgd(c, 0.1, v, 0.0)),
        ("optimizer.beta1", |c, v| adam(c, v, 0.9, 0.0)),
        ("optimizer.beta2", |c, v| adam(c, 0.9, v, 0.0)),
    ];
    for setting in below_one {
        check(setting, &[0.0, 0.999_999], &[-f32::MIN_POSITIVE, 1.0, f32::NAN]);
    }
}

/// A network takes images of one size, and a masked network comes from one that was pruned.
#[test]
fn networks_and_data_sets_fit() {
    let setting: Setting<(Network, DatasetName)> = ("network", |c, (network, name)| {
        (c.network, c.data.name) = (network, name);
    });
    let (grey, colour) = ([DatasetName::Mnist, DatasetName::FashionMnist], DatasetName::Cifar10);
    for network in [Network::LeNetCifar, Network::ResNet18, Network::Vgg16Bn] {
        check(setting, &[(network, colour)], &grey.map(|name| (network, name)));
    }
    check(setting, &grey.map(|name| (Network::LeNet, name)), &[(Network::LeNet, colour)]);
    check(("origin", |c, v| c.origin = v), &[Origin::Initialisation, Origin::Parent], &[Origin::Inherited]);
}

/// Files and command lines that exist know them.
#[test]
fn choices_keep_their_names() {
    fn names<T: ToString>(all: &[T]) -> String {
        all.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
    }
    let initialisers = "default uniform normal xavier_uniform xavier_normal kaiming_uniform kaiming_normal orthogonal";
    assert_eq!(names(Init::ALL), initialisers);
    assert_eq!(names(Network::ALL), "lenet lenet-cifar resnet18 vgg16-bn");
    assert_eq!(names(LrShape::ALL), "constant multi-step cosine periodic");
    assert_eq!(names(Ramp::ALL), "constant linear cosine");
    assert_eq!(names(BnMode::ALL), "train train-moving eval");
    assert_eq!(names(AttackLoss::ALL), "cross-entropy margin");
    assert_eq!(names(ApgdLoss::ALL), "cross-entropy dlr targeted-dlr");
    assert_eq!(names(Selection::ALL), "test-best held-out last");
    assert_eq!(names(Origin::ALL), "initialisation parent inherited");
    assert_eq!(names(ProximalEvery::ALL), "step epoch");
}

/// A step passes each image once an attack step and once for the weights; a measurement once clean, and for each start once
/// an attack step and once attacked.
#[test]
fn passes_are_of_all_epochs_and_measurements() {
    let config = |epochs, eval_every, attack| {
        let config = config(&digits(150, 1));
        let eval_attack = PgdConfig { restarts: 2, ..config.eval_attack.clone() };
        let attack = if attack { config.attack.clone() } else { None };
        TrainConfig { epochs, eval_every, attack, eval_attack, ..config }
    };
    // 120 images trained on with two attack steps, 30 + 40 measured with two starts of three steps.
    let measured = (30 + 40) * (1 + 2 * (3 + 1));
    for (epochs, eval_every, measurements) in [(1, 1, 1), (5, 2, 3), (6, 3, 2), (5, 7, 1)] {
        let passes = |attack| config(epochs, eval_every, attack).image_passes(150, 40);
        let epochs = epochs as u64;
        assert_eq!(passes(true), epochs * 120 * 3 + measurements * measured, "{epochs} epochs, every {eval_every}");
        assert_eq!(passes(false), epochs * 120 + measurements * measured, "{epochs} epochs, every {eval_every}");
    }
}
