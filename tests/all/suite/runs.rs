//! Suites on small trained networks: verdicts, order, resumption, and the checks.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::attack::apgd::{ApgdConfig, ApgdLoss};
use engine::attack::config::AttackConfig;
use engine::attack::cw_l2::CwL2Config;
use engine::attack::evaluation::evaluate;
use engine::attack::fab::FabConfig;
use engine::attack::square::SquareConfig;
use engine::attack::suite::Assessment;
use engine::attack::transfer::TransferConfig;
use engine::attack::{AttackLoss, BnMode, PgdConfig};
use engine::base::error::Error;

use super::{N, Setting, uncounted};

pub fn pgd(eps: f32, steps: usize, random_start: bool) -> PgdConfig {
    let (loss, bn) = (AttackLoss::CrossEntropy, BnMode::Eval);
    PgdConfig { eps, step_size: eps / 2.0, steps, random_start, restarts: 2, loss, bn }
}

/// Every attack, cheap.
pub fn every_attack(eps: f32) -> Vec<AttackConfig> {
    let apgd = |loss| AttackConfig::Apgd(ApgdConfig { steps: 10, ..ApgdConfig::published(eps, loss) });
    vec![
        AttackConfig::Pgd(pgd(eps, 4, true)),
        AttackConfig::Pgd(PgdConfig { loss: AttackLoss::Margin, ..pgd(eps, 4, true) }),
        AttackConfig::Pgd(PgdConfig { step_size: eps, restarts: 1, ..pgd(eps, 1, false) }),
        AttackConfig::Transfer(TransferConfig(pgd(eps, 4, true))),
        apgd(ApgdLoss::CrossEntropy),
        apgd(ApgdLoss::Dlr),
        apgd(ApgdLoss::TargetedDlr),
        AttackConfig::Fab(FabConfig { steps: 10, ..FabConfig::published(eps) }),
        AttackConfig::Square(SquareConfig { queries: 300, ..SquareConfig::published(eps) }),
        AttackConfig::CwL2(CwL2Config {
            steps: 60,
            searches: 4,
            first_weight: 1.0,
            ..CwL2Config::published(20.0 * eps)
        }),
    ]
}

/// Each attack alone: what it says of an image is true of the image it gives back.
#[test]
fn verdicts_are_true() {
    let setting = Setting::new();
    for attack in every_attack(0.08) {
        let name = attack.name();
        let assessment = setting.assess(std::slice::from_ref(&attack));
        let clean = assessment.accuracy(0);
        assert!(clean > 60.0 && assessment.accuracy(1) < clean, "{name}: {clean} {}", assessment.accuracy(1));
        assert_eq!(assessment.verdicts.len(), N);
        let broken = assessment.broken_by(0) as f64;
        assert!((assessment.accuracy(1) - (clean - 100.0 * broken / N as f64)).abs() < 1e-9, "{name}");
        let queries = assessment.costs[0].passes.queries;
        assert!(queries > 0 || name == "transfer", "{name}: no query");
        assert_eq!(assessment.costs[0].passes.gradients > 0, attack.is_white_box(), "{name}");

        // The images, judged with nothing but the network.
        let pixels = assessment.attempts.concat();
        let target_model = engine::attack::target_model::TargetModel::new(&setting.backend, &setting.model, &uncounted);
        let x = engine::autograd::tensor::Tensor::upload(&setting.backend, [N, 1, 28, 28], &pixels);
        let classes = target_model.logits(&x).unwrap().predictions();
        for (i, verdict) in assessment.verdicts.iter().enumerate() {
            let index = 30 + N - 1 - i;
            assert_eq!(verdict.label, setting.split.labels[index]);
            let clean = setting.split.image(index).iter().map(|&v| f32::from(v) / 255.0);
            let apart: Vec<f64> =
                assessment.attempts[i].iter().zip(clean).map(|(a, c)| f64::from(a - c).abs()).collect();
            let l2 = apart.iter().map(|d| d * d).sum::<f64>().sqrt();
            let distance = if name == "cw-l2" { l2 } else { apart.iter().copied().fold(0.0, f64::max) };
            assert!(distance <= f64::from(attack.eps()) + 1e-6, "{name}, image {i}: {distance}");
            assert!(assessment.attempts[i].iter().all(|v| (0.0..=1.0).contains(v)), "{name}, image {i}");
            match &verdict.broken {
                None => assert!(!verdict.right() || classes[i] == verdict.label, "{name}, image {i}"),
                Some(broken) => {
                    assert_eq!((classes[i], verdict.natural), (broken.class, verdict.label), "{name}, image {i}");
                    assert_ne!(broken.class, verdict.label, "{name}, image {i}");
                    assert!((broken.distance - distance).abs() < 1e-5, "{name}, image {i}");
                }
            }
        }
    }
}

/// FGSM knows no chance: the same accuracy as by the evaluation that training uses.
#[test]
fn fgsm_is_the_evaluations() {
    let setting = Setting::new();
    let config = PgdConfig { step_size: 0.05, restarts: 1, ..pgd(0.05, 1, false) };
    let assessment = setting.assess(&[AttackConfig::Pgd(config.clone())]);
    let report = setting.with(&[], &uncounted, |suite| {
        evaluate(suite.backend, suite.model, suite.subset, Some(&config), 7, &uncounted).unwrap()
    });
    assert_eq!((assessment.accuracy(0), assessment.accuracy(1)), (report.natural, report.adversarial));
    assert!(report.adversarial < report.natural);
}

/// In order, each on what the ones before have left.
#[test]
fn only_standing_images_are_attacked() {
    let setting = Setting::new();
    let attacks = every_attack(0.05);
    let assessment = setting.assess(&attacks);
    let accuracies: Vec<f64> = (0..=attacks.len()).map(|i| assessment.accuracy(i)).collect();
    assert!(accuracies.windows(2).all(|pair| pair[1] <= pair[0]), "{accuracies:?}");
    assert!(accuracies[attacks.len()] > 0.0, "some must stand for the test to say something: {accuracies:?}");
    // PGD alone comes first, so it is as alone.
    assert_eq!(setting.assess(&attacks[..1]).accuracy(1), accuracies[1]);
    // Two rounds of four steps, the first on all that were right, the second on what stood then.
    let [right, left] = [accuracies[0], accuracies[1]].map(|percent| (percent * N as f64 / 100.0).round() as u64);
    let queries = assessment.costs[0].passes.queries;
    assert!((4 * (right + left)..=8 * right).contains(&queries), "{queries}: {right} {left}");
    for verdict in &assessment.verdicts {
        let last = attacks.len() - 1;
        match &verdict.broken {
            Some(broken) => assert_eq!(verdict.tried, Some((broken.attack, broken.round))),
            None if verdict.right() => assert_eq!(verdict.tried, Some((last, 0))),
            None => assert_eq!(verdict.tried, None, "a wrong prediction needs no attack"),
        }
    }
}

/// Interrupted at any point and gone on with: the same verdicts and images, and nothing is done twice but what was under way.
#[test]
fn a_resumed_suite_is_the_same() {
    let setting = Setting::new();
    let attacks = every_attack(0.05);
    let without_times = |mut assessment: Assessment| {
        assessment.costs.clear();
        assessment
    };
    let passes = AtomicU64::new(0);
    let mut whole = Assessment::default();
    let count = |n: u64| {
        passes.fetch_add(n, Ordering::Relaxed);
        Ok(())
    };
    setting.with(&attacks, &count, |suite| suite.run(&mut whole, &mut |_, _| Ok(()))).unwrap();
    let whole = without_times(whole);
    for part in [3, 10, 40, 70, 95] {
        let (stop_at, seen) = (passes.load(Ordering::Relaxed) * part / 100, AtomicU64::new(0));
        let stop = |n: u64| match seen.fetch_add(n, Ordering::Relaxed) {
            seen if seen >= stop_at => Err(Error::Interrupted),
            _ => Ok(()),
        };
        let mut assessment = Assessment::default();
        let outcome = setting.with(&attacks, &stop, |suite| suite.run(&mut assessment, &mut |_, _| Ok(())));
        assert!(matches!(outcome, Err(Error::Interrupted)), "{part} %");
        assert_ne!(without_times(assessment.clone()), whole, "{part} %: nothing was left to do");
        let rest = AtomicU64::new(0);
        let count = |n: u64| {
            rest.fetch_add(n, Ordering::Relaxed);
            Ok(())
        };
        setting.with(&attacks, &count, |suite| suite.run(&mut assessment, &mut |_, _| Ok(()))).unwrap();
        assert!(without_times(assessment) == whole, "{part} %");
        // Two threads, each with the images of a block.
        let under_way = 2 * 16 * attacks.iter().map(|attack| attack.image_passes()).max().unwrap();
        let (rest, total) = (rest.into_inner(), passes.load(Ordering::Relaxed));
        assert!(rest <= total - stop_at + under_way, "{part} %: {rest} of {total} after {stop_at}");
    }
}

/// What is left shrinks to nothing, and is never less than what comes.
#[test]
fn progress_is_an_upper_bound() {
    let setting = Setting::new();
    let attacks = every_attack(0.05);
    let seen = AtomicU64::new(0);
    let count = |n: u64| {
        seen.fetch_add(n, Ordering::Relaxed);
        Ok(())
    };
    let mut told = Vec::new();
    let mut assessment = Assessment::default();
    let mut report = |_: &Assessment, left: u64| {
        told.push((seen.load(Ordering::Relaxed), left));
        Ok(())
    };
    setting.with(&attacks, &count, |suite| suite.run(&mut assessment, &mut report)).unwrap();
    assert_eq!(told.last().unwrap().1, 0);
    let total = told.last().unwrap().0;
    // The judges' passes are not foreseen.
    assert!(told.iter().all(|(seen, left)| seen + left + total / 20 >= total), "{told:?} of {total}");
    assert!(told.windows(2).all(|pair| pair[1].1 <= pair[0].1), "{told:?}");
}

#[test]
fn few_classes() {
    for (attack, least) in every_attack(0.1).iter().zip([2, 2, 2, 2, 2, 3, 4, 2, 2, 2]) {
        assert!(attack.validate(least).is_ok(), "{}", attack.name());
        let error = attack.validate(least - 1).unwrap_err().to_string();
        assert!(error.contains(&format!("needs {least} classes or more")), "{error}");
    }
    let targets: Vec<usize> = [2, 5, 10, 100].iter().map(|&classes| every_attack(0.1)[7].rounds(classes)).collect();
    assert_eq!(targets, [1, 4, 9, 9]);
}

/// Square's schedule at its published length: the side for 80 % of 28 × 28 pixels, then for half of that, …
#[test]
fn squares_shrink_as_published() {
    let config = SquareConfig::published(0.3);
    let side = |query| config.side(28, 28, query);
    let sides: Vec<usize> = [0, 5, 6, 25, 26, 101, 251, 501, 1001, 2001, 3001, 4001, 4999].map(side).to_vec();
    assert_eq!(sides, [25, 25, 18, 18, 13, 9, 6, 4, 3, 2, 2, 1, 1]);
    let rng = engine::base::rng::Rng::new(3, engine::base::rng::Stream::Square, 0);
    for query in 0..2000 {
        let window = config.proposal([1, 28, 28], query, &rng, 4);
        assert!(window.top + window.side <= 28 && window.left + window.side <= 28, "{window:?}");
        assert_eq!(window, config.proposal([1, 28, 28], query, &rng, 4));
    }
    let last = (4001..5000).map(|query| config.proposal([1, 28, 28], query, &rng, 0));
    let reached = |of: fn(&engine::backend::SquareUpdate) -> u32| last.clone().map(|window| of(&window)).max();
    assert_eq!((reached(|w| w.top), reached(|w| w.left)), (Some(27), Some(27)), "the last row and column too");
}
