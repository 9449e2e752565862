//! The signs that a network only hides its gradients: each on a network that must fail, and on one that must not.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::attack::PgdConfig;
use engine::attack::apgd::{ApgdConfig, ApgdLoss};
use engine::attack::config::{AttackConfig, standard};
use engine::attack::square::SquareConfig;
use engine::attack::suite::checks::Check;
use engine::attack::transfer::TransferConfig;

use super::runs::pgd;
use super::{F32, N, Setting, pixel, uncounted};

impl Setting {
    fn checks(&self, eps: f32) -> Vec<Check> {
        self.with(&[], &uncounted, |suite| suite.checks(eps)).unwrap()
    }

    fn check(&self, name: &str, eps: f32) -> Check {
        self.checks(eps).into_iter().find(|check| check.name == name).unwrap()
    }

    /// As many copies of an image with one pixel of this level, under a network that looks at it.
    fn of_pixels(level: u8, curves: &[&[(f32, f32)]]) -> Self {
        let backend = F32::new(2).unwrap();
        let model = pixel::network(&backend, curves);
        Setting { backend, model, surrogate: None, split: pixel::images(&[level]), indices: vec![0; N] }
    }
}

#[test]
fn a_network_that_hides_nothing_passes() {
    let setting = Setting::new();
    let checks = setting.checks(0.05);
    assert_eq!(checks.len(), 6);
    assert!(checks.iter().all(|check| check.passed), "{checks:#?}");
}

/// An undefended network whose logits are multiplied by ten thousand: softmax saturates, and PGD on the cross-entropy is
/// blind. It must not pass for robust.
#[test]
fn masked_gradients_are_caught() {
    let mut setting = Setting::new();
    let plain = setting.assess(&[AttackConfig::Pgd(pgd(0.05, 10, true))]);
    let mut state: std::collections::HashMap<_, _> =
        setting.model.state(&setting.backend).into_iter().map(|(name, _, values)| (name, values)).collect();
    for name in ["fc2.weight", "fc2.bias"] {
        state.get_mut(name).unwrap().iter_mut().for_each(|v| *v *= 1e4);
    }
    let Setting { backend, model, .. } = &mut setting;
    model.load_state(backend, |name, _| Ok(state[name].clone())).unwrap();
    let masked = setting.assess(&[AttackConfig::Pgd(pgd(0.05, 10, true))]);
    assert_eq!(masked.accuracy(0), plain.accuracy(0), "the same predictions");
    assert!(masked.accuracy(1) > plain.accuracy(1) + 10.0, "PGD must be fooled for the test to say something");

    let checks = setting.checks(0.05);
    let failed: Vec<&str> = checks.iter().filter(|check| !check.passed).map(|check| check.name).collect();
    assert!(failed.contains(&"gradients") && failed.contains(&"large eps"), "{checks:#?}");
    // The ensemble does not believe it either: its other losses know no scale.
    let ensemble = setting.assess(&standard(0.05));
    assert!(ensemble.accuracy(4) <= plain.accuracy(1), "{} {}", ensemble.accuracy(4), plain.accuracy(1));
}

#[test]
fn a_network_that_is_not_a_number_fails() {
    let mut setting = Setting::new();
    let Setting { backend, model, .. } = &mut setting;
    model.load_state(backend, |_, shape| Ok(vec![f32::NAN; shape.iter().product()])).unwrap();
    let checks = setting.checks(0.05);
    let failed = |name: &str| checks.iter().any(|check| check.name == name && !check.passed);
    assert!(failed("repeatable") && failed("gradients"), "{checks:#?}");
}

/// Where the pixel is, and the radius of the attacks.
const AT: f32 = 128.0 / 255.0;
const RADIUS: f32 = 0.1;

/// Two classes that never come first, so that every attack can be made.
const THIRD: &[(f32, f32)] = &[(0.0, -3.0)];
const FOURTH: &[(f32, f32)] = &[(0.0, -4.0)];

/// The loss rises up to the pixel as it is, falls over a short stretch, and rises again. PGD-10 steps across the stretch,
/// PGD-40 seldom, PGD-100 never.
#[test]
fn a_network_that_is_fooled_by_fewer_steps_fails() {
    let right = [(0.0, 1.5), (AT, 0.5), (AT + 0.005, 0.7), (AT + 0.1, -1.0)];
    let setting = Setting::of_pixels(128, &[&right, &[(0.0, 0.0)], THIRD, FOURTH]);
    let check = setting.check("more steps", RADIUS);
    assert!(!check.passed, "{check:?}");
    let accuracy = |steps: usize| {
        let config = PgdConfig { step_size: 2.5 * RADIUS / steps as f32, restarts: 1, ..pgd(RADIUS, steps, true) };
        setting.assess(&[AttackConfig::Pgd(config)]).accuracy(1)
    };
    let [few, more, most] = [10, 40, 100].map(accuracy);
    assert!(few < more - 1.0, "{few} {more}");
    assert_eq!(check.finding, format!("accuracy {few:.2}, {more:.2}, {most:.2} under PGD with 10, 40, 100 steps"));
}

/// A step function: there is no gradient to follow, but whoever proposes a brighter pixel is through, and so is who follows
/// the gradient of another network.
#[test]
fn a_network_that_breaks_without_its_gradient_fails() {
    let right = [(0.0, 1.0), (AT + 0.03, 1.0), (AT + 0.031, -1.0), (1.0, -1.0)];
    let mut setting = Setting::of_pixels(128, &[&right, &[(0.0, 0.0)], THIRD, FOURTH]);
    let surrogate = [&[(0.0, 1.0), (1.0, 0.0)][..], &[(0.0, 0.5)], THIRD, FOURTH];
    setting.surrogate = Some(pixel::network(&setting.backend, &surrogate));
    let pgd =
        |steps: usize| PgdConfig { step_size: 2.5 * RADIUS / steps as f32, restarts: 1, ..pgd(RADIUS, steps, true) };
    let broken = setting.assess(&[
        AttackConfig::Pgd(pgd(100)),
        AttackConfig::Apgd(ApgdConfig::published(RADIUS, ApgdLoss::Dlr)),
        AttackConfig::Square(SquareConfig { queries: 1000, ..SquareConfig::published(RADIUS) }),
        AttackConfig::Transfer(TransferConfig(pgd(40))),
    ]);
    let [first, second, square, transfer] = [0, 1, 2, 3].map(|attack| broken.broken_by(attack));
    let left = N - first - second;
    assert!(first > 0 && square > 1 && transfer > 0, "{first} by chance, {square} and {transfer} of {left}");
    let check = setting.check("black box", RADIUS);
    assert!(!check.passed, "{check:?}");
    let finding = format!("of {left} images that PGD and APGD leave, square breaks {square}");
    assert_eq!(check.finding, format!("{finding}, transfer breaks {transfer}"));
    setting.surrogate = None;
    assert_eq!(setting.check("black box", RADIUS).finding, finding);
}

/// A black image has no gradient, because ReLU has none at 0; the points around it do.
#[test]
fn gradients_are_taken_at_random_points_of_the_ball() {
    let setting = Setting::of_pixels(0, &[&[(0.0, 0.8), (1.0, -0.2)], &[(0.0, 0.0)], THIRD, FOURTH]);
    let check = setting.check("gradients", RADIUS);
    assert!(check.passed && check.finding.starts_with("of 40 images 0 have"), "{check:?}");
    let check = setting.check("gradients", 0.0);
    assert!(!check.passed && check.finding.starts_with("of 40 images 40 have"), "{check:?}");
}

/// The network errs where a pixel is brighter than 0.8: nowhere in the ball of radius 0.55, but in that of radius 1.
#[test]
fn only_the_ball_of_all_images_must_be_lost() {
    let setting = Setting::of_pixels(0, &[&[(0.0, 0.8), (1.0, -0.2)], &[(0.0, 0.0)], THIRD, FOURTH]);
    let check = setting.check("large eps", RADIUS);
    assert!(check.passed, "{check:?}");
    assert_eq!(check.finding, "accuracy 100.00, 0.00 with eps 0.550, 1 (100 steps)");
    // One that never errs.
    let setting = Setting::of_pixels(0, &[&[(0.0, 0.8)], &[(0.0, 0.0)], THIRD, FOURTH]);
    let check = setting.check("large eps", RADIUS);
    assert!(!check.passed, "{check:?}");
    assert_eq!(check.finding, "accuracy 100.00, 100.00 with eps 0.550, 1 (100 steps)");
}

/// With two classes there is no ratio of differences of logits; the other attacks can be made.
#[test]
fn a_network_of_two_classes_is_checked_without_what_needs_three() {
    let setting = Setting::of_pixels(128, &[&[(0.0, 1.0), (1.0, -0.2)], &[(0.0, 0.0)]]);
    let checks = setting.checks(0.01);
    assert_eq!(checks.iter().map(|check| check.passed).collect::<Vec<_>>(), [true; 6], "{checks:#?}");
    assert_eq!(checks[5].finding, format!("of {N} images that PGD and APGD leave, square breaks 0"));
}

/// Where nothing breaks, all passes are made that were announced, and those of the judges: each of seven suites classifies the clean
/// images, and each attack's attempts are classified once.
#[test]
fn passes_of_the_checks_are_announced() {
    let nothing: &[(f32, f32)] = &[(0.0, 0.0)];
    for with_surrogate in [false, true] {
        let mut setting = Setting::of_pixels(128, &[&[(0.0, 0.8)], &[(0.0, 0.0)], THIRD, FOURTH]);
        setting.surrogate = with_surrogate.then(|| pixel::network(&setting.backend, &[nothing; 4]));
        let seen = AtomicU64::new(0);
        let count = |n: u64| {
            seen.fetch_add(n, Ordering::Relaxed);
            Ok(())
        };
        let announced = setting.with(&[], &count, |suite| {
            suite.checks(RADIUS).unwrap();
            suite.check_image_passes()
        });
        let seen = seen.into_inner();
        let judges = 7 + 9 + u64::from(with_surrogate);
        assert_eq!(seen, announced + judges * N as u64, "announced {announced}");
    }
}
