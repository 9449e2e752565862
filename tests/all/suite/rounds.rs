//! The rounds of a suite: whose network, which targets, which random numbers, how many passes; and the published settings.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::attack::apgd::{ApgdConfig, ApgdLoss};
use engine::attack::config::{AttackConfig, standard};
use engine::attack::cw_l2::CwL2Config;
use engine::attack::fab::FabConfig;
use engine::attack::pgd;
use engine::attack::pgd::{PgdAttack, Start};
use engine::attack::round::Round;
use engine::attack::square::SquareConfig;
use engine::attack::suite::{Assessment, Broken, Verdict};
use engine::attack::target_model::{ImagePasses, TargetModel};
use engine::attack::transfer::TransferConfig;
use engine::attack::{AttackLoss, PgdConfig};
use engine::autograd::tensor::Tensor;
use engine::backend::{Backend, Distance, Images, Loss, Memory, Pgd};
use engine::base::error::Error;
use engine::base::rng::{Rng, Stream};
use engine::nn::models::{Mode, Model};

use super::runs::{every_attack, pgd};
use super::{F32, N, Setting, pixel, uncounted};
use crate::backends::{labels, uniform};
use crate::networks::recorded;
use crate::small_runs::digits;

const SEED: u64 = 11;

fn round<'r, B: Backend>(number: usize, attack: usize, clean: &'r Tensor<B>, labels: &'r [u8]) -> Round<'r, B> {
    Round { number, clean, labels, seed: SEED, attack, first: 0, surrogate: None }
}

/// The numbers of attack 3, round `number`, as they are documented.
fn numbers(stream: Stream, number: u32) -> Rng {
    Rng::new(SEED, stream, 3 << 16 | number)
}

/// The classes by logit, the largest first.
fn by_logit(z: &[f32]) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..z.len()).collect();
    classes.sort_by(|&a, &b| z[b].partial_cmp(&z[a]).unwrap());
    classes
}

#[test]
fn each_round_of_a_targeted_attack_goes_for_the_next_likeliest_class() {
    let setting = Setting::new();
    let (backend, (clean, labels)) = (&setting.backend, setting.batch());
    let target_model = TargetModel::new(backend, &setting.model, &uncounted);
    let logits = target_model.logits(&clean).unwrap();
    let target = |rank: usize| (0..N).map(|i| by_logit(logits.of_image(i))[rank - 1]).collect::<Vec<_>>();
    let fab = FabConfig { steps: 3, ..FabConfig::published(0.1) };
    for (number, rank) in [(0, 2), (1, 3), (8, 10)] {
        let found = AttackConfig::Fab(fab.clone()).run(&target_model, &round(number, 3, &clean, &labels)).unwrap();
        let expected = fab.attack(&target_model, &clean, &labels, &target(rank), |_| {}).unwrap();
        assert_eq!(found.values(backend), expected.values(backend), "fab, round {number}");
    }
    // Two starts towards each target.
    let apgd = ApgdConfig { steps: 3, restarts: 2, ..ApgdConfig::published(0.1, ApgdLoss::TargetedDlr) };
    for (number, rank) in [(0, 2), (1, 2), (2, 3), (17, 10)] {
        let found = AttackConfig::Apgd(apgd.clone()).run(&target_model, &round(number, 3, &clean, &labels)).unwrap();
        let rng = numbers(Stream::SuiteStart, number as u32);
        let start = backend.random_start(N, 784, 0.1, &rng, 0, clean.buf());
        let start = Tensor::new(start, clean.shape().clone());
        let expected = apgd.attack(&target_model, &clean, &labels, &target(rank), start, |_| {}).unwrap();
        assert_eq!(found.values(backend), expected.values(backend), "apgd-t, round {number}");
    }
}

/// Square's stripes and proposals are of different streams, and of the places of the images in the round.
#[test]
fn square_draws_by_round_and_place() {
    let setting = Setting::new();
    let (backend, (clean, labels)) = (&setting.backend, setting.batch());
    let target_model = TargetModel::new(backend, &setting.model, &uncounted);
    let config = SquareConfig { queries: 20, ..SquareConfig::published(0.1) };
    let from_100 = Round { first: 100, ..round(2, 3, &clean, &labels) };
    let found = AttackConfig::Square(config.clone()).run(&target_model, &from_100).unwrap();
    let start = config.stripes(backend, &clean, &numbers(Stream::SuiteStart, 2), 100).unwrap();
    let rng = numbers(Stream::Square, 2);
    let propose = |query: usize, i: usize| config.proposal([1, 28, 28], query, &rng, 100 + i as u64);
    let expected = config.attack(&target_model, &clean, &labels, start, propose).unwrap();
    assert_eq!(found.values(backend), expected.values(backend));
}

/// A column of a channel has one sign, in all rows; each image has signs of its own.
#[test]
fn stripes_are_columns() {
    let backend = F32::new(1).unwrap();
    let [n, c, h, w] = [5, 3, 4, 6];
    let config = SquareConfig::published(0.25);
    let rng = Rng::new(2, Stream::SuiteStart, 0);
    let clean: Vec<f32> = (0..n * c * h * w).map(|i| [0.125, 0.5, 0.875][i / (2 * w) % 3]).collect();
    let batch = |images: &[f32]| Tensor::upload(&backend, [images.len() / (c * h * w), c, h, w], images);
    let stripes =
        |images: &[f32], first| config.stripes(&backend, &batch(images), &rng, first).unwrap().values(&backend);
    let x = stripes(&clean, 0);
    let mut signs = HashSet::new();
    for (image, (x, clean)) in x.chunks(c * h * w).zip(clean.chunks(c * h * w)).enumerate() {
        let up: Vec<bool> = (0..c * w).map(|k| x[k / w * h * w + k % w] > clean[k / w * h * w + k % w]).collect();
        for (i, (x, clean)) in x.iter().zip(clean).enumerate() {
            let element = ((image * c + i / (h * w)) * w + i % w) as u64;
            assert_eq!(up[i / (h * w) * w + i % w], rng.u32_at(element) >= 1 << 31, "image {image}, pixel {i}");
            let moved = if up[i / (h * w) * w + i % w] { clean + 0.25 } else { clean - 0.25 };
            assert_eq!(*x, moved.clamp(0.0, 1.0), "image {image}, pixel {i}");
        }
        signs.insert(up);
    }
    assert_eq!(signs.len(), n);
    assert_eq!(stripes(&clean[2 * c * h * w..], 2), x[2 * c * h * w..], "by place");
}

#[test]
fn squares_are_anywhere_and_of_either_sign() {
    let config = SquareConfig { queries: 400, ..SquareConfig::published(0.3) };
    let rng = Rng::new(3, Stream::Square, 0);
    let windows: Vec<_> = (0..4)
        .flat_map(|place| (0..400).map(move |query| (place, query)))
        .map(|(place, query)| config.proposal([1, 28, 28], query, &rng, place))
        .collect();
    let distinct: HashSet<_> = windows.iter().map(|w| (w.top, w.left, w.up)).collect();
    assert_eq!(distinct.len(), windows.len(), "every query of every image has numbers of its own");
    let small: Vec<_> = windows.iter().filter(|w| w.side <= 4).collect();
    let share = |of: &dyn Fn(&engine::backend::SquareUpdate) -> bool| {
        small.iter().filter(|w| of(w)).count() as f64 / small.len() as f64
    };
    let (low, right, up) =
        (|w: &_| half(w, |w| w.top), |w: &_| half(w, |w| w.left), |w: &engine::backend::SquareUpdate| w.up & 1 == 1);
    for (what, found) in [("low", share(&low)), ("right", share(&right)), ("up", share(&up))] {
        assert!((found - 0.5).abs() < 0.08, "{what}: {found}");
    }
    // No two of them go together.
    let together = [share(&|w| low(w) == right(w)), share(&|w| low(w) == up(w)), share(&|w| right(w) == up(w))];
    assert!(together.iter().all(|share| (share - 0.5).abs() < 0.08), "{together:?}");
}

/// Whether a window is in the lower, or the right, half of where it can be.
fn half(w: &engine::backend::SquareUpdate, at: fn(&engine::backend::SquareUpdate) -> u32) -> bool {
    2 * at(w) > 28 - w.side
}

/// The published schedule is of 10,000 queries; of 3,000 each is worth 3 1/3, cut off.
#[test]
fn squares_shrink_in_proportion_to_the_queries() {
    let config = SquareConfig { queries: 3000, ..SquareConfig::published(0.3) };
    let sides: Vec<usize> = [0, 3, 4, 15, 16, 60, 61, 2400, 2401, 2999].map(|q| config.side(32, 32, q)).to_vec();
    // The roots of 819.2, 409.6, 204.8, 102.4, 3.2 and 1.6.
    assert_eq!(sides, [29, 29, 20, 20, 14, 14, 10, 2, 1, 1]);
    assert_eq!(config.side(10, 40, 0), 10, "no larger than the image");
    assert_eq!(SquareConfig { p_init: 0.1, ..config }.side(2, 2, 2999), 1, "no smaller than a pixel");
}

/// On another network, from the points where an attack on it begins, at no cost to the one under attack.
#[test]
fn a_transfer_attacks_the_surrogate() {
    let setting = Setting::new();
    let (backend, (clean, labels)) = (&setting.backend, setting.batch());
    let (_, other) = recorded(backend, "lenet");
    let config = pgd(0.1, 4, true);
    let target_model = TargetModel::new(backend, &setting.model, &uncounted);
    let with_surrogate = Round { surrogate: Some(&other), ..round(1, 3, &clean, &labels) };
    let transfer = AttackConfig::Transfer(TransferConfig(config.clone()));
    let found = transfer.run(&target_model, &with_surrogate).unwrap();
    assert_eq!(target_model.image_passes(), ImagePasses::default());
    let on = |model: &Model<F32>| {
        let pgd = PgdAttack { backend, model, mode: Mode::Eval, config: &config };
        let start = Start { rng: &numbers(Stream::SuiteStart, 1), first: 0 };
        let batch = pgd::Batch { images: clean.clone(), labels: &backend.labels(&labels) };
        pgd.attack(start, &batch, &mut backend.metrics(), drop).unwrap().values(backend)
    };
    assert_eq!(found.values(backend), on(&other));
    let direct = AttackConfig::Pgd(config.clone()).run(&target_model, &with_surrogate).unwrap();
    assert_eq!(direct.values(backend), on(&setting.model));
    assert_eq!(target_model.image_passes(), ImagePasses { queries: 4 * N as u64, gradients: 4 * N as u64 });
    let none = transfer.run(&target_model, &round(1, 3, &clean, &labels));
    assert!(matches!(none, Err(Error::Usage(_))), "no surrogate");
}

/// A network is attacked as it is used: by its running statistics.
#[test]
fn pgd_attacks_with_running_statistics() {
    let backend = F32::new(2).unwrap();
    let (_, model) = recorded(&backend, "resnet18");
    let (n, labels) = (4, labels(2, 4, 10));
    let clean = Tensor::new(backend.upload_batch(n, &uniform(1, n * 3072)), model.input(n));
    let config = pgd(0.05, 3, true);
    let target_model = TargetModel::new(&backend, &model, &uncounted);
    let found = AttackConfig::Pgd(config.clone()).run(&target_model, &round(0, 3, &clean, &labels)).unwrap();
    let [eval, train] = [Mode::Eval, Mode::Train].map(|mode| {
        let pgd = PgdAttack { backend: &backend, model: &model, mode, config: &config };
        let start = Start { rng: &numbers(Stream::SuiteStart, 0), first: 0 };
        let batch = pgd::Batch { images: clean.clone(), labels: &backend.labels(&labels) };
        pgd.attack(start, &batch, &mut backend.metrics(), drop).unwrap().values(&backend)
    });
    assert_ne!(eval, train, "the mode must make a difference");
    assert_eq!(found.values(&backend), eval);
}

/// Copies of one image in more than one batch: only the random start tells them apart. A second round has other starts, so
/// has a second attack, and so has another seed.
#[test]
fn every_image_round_and_attack_has_a_start_of_its_own() {
    let backend = F32::new(2).unwrap();
    let model = pixel::network(&backend, &[&[(0.0, 1.0)], &[(0.0, 0.0)]]);
    let setting = Setting { surrogate: None, model, split: pixel::images(&[128]), indices: vec![0; 1100], backend };
    let rounds = |restarts| AttackConfig::Pgd(PgdConfig { step_size: 0.0, restarts, ..pgd(0.1, 1, true) });
    let mut points = HashSet::new();
    let mut expected = 0;
    for attacks in [vec![rounds(1)], vec![rounds(2)], vec![rounds(1), rounds(1)]] {
        let assessment = setting.assess(&attacks);
        assert_eq!(assessment.accuracy(1), 100.0, "nothing breaks");
        points.extend(assessment.attempts.iter().map(|x| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>()));
        expected += 1100;
        assert_eq!(points.len(), expected);
    }
}

/// Stopped after any of its batches and gone on with: half of the images break at random, and the rest of a round has the
/// places that it would have had.
#[test]
fn a_suite_resumed_between_batches_is_the_same() {
    let backend = F32::new(2).unwrap();
    let model = pixel::network(&backend, &[&[(0.0, 0.51), (1.0, -0.49)], &[(0.0, 0.0)]]);
    let setting = Setting { surrogate: None, model, split: pixel::images(&[128]), indices: vec![0; 1100], backend };
    let attacks = [AttackConfig::Pgd(PgdConfig { step_size: 0.0, ..pgd(0.1, 1, true) })];
    let run = |assessment: &mut Assessment, stop_at: usize| {
        let mut reports = 0;
        let mut report = |_: &Assessment, _| {
            reports += 1;
            if reports == stop_at { Err(Error::Interrupted) } else { Ok(()) }
        };
        let outcome = setting.with(&attacks, &uncounted, |suite| suite.run(assessment, &mut report));
        assessment.costs[0].seconds = 0.0;
        (outcome.is_ok(), reports)
    };
    let mut whole = Assessment::default();
    // Before all, after each of three batches of the first round, and of two or three of what it left.
    let (_, reports) = run(&mut whole, usize::MAX);
    assert!(reports >= 6 && whole.broken_by(0) > 600, "{reports} reports, {} broken", whole.broken_by(0));
    for stop_at in 1..=reports {
        let mut assessment = Assessment::default();
        assert!(!run(&mut assessment, stop_at).0);
        assert!(run(&mut assessment, usize::MAX).0);
        assert!(assessment == whole, "stopped at report {stop_at}");
    }
}

/// More than 512 images, each with its own class and prediction: FGSM, image by image.
#[test]
fn verdicts_of_a_second_batch_are_of_its_images() {
    let mut setting = Setting::new();
    setting.split = digits(1, 700).test;
    setting.indices = (0..700).rev().collect();
    let config = PgdConfig { step_size: 0.05, restarts: 1, ..pgd(0.05, 1, false) };
    let assessment = setting.assess(&[AttackConfig::Pgd(config.clone())]);
    let (clean, labels) = setting.batch();
    let backend = &setting.backend;
    let target_model = TargetModel::new(backend, &setting.model, &uncounted);
    let pgd = PgdAttack { backend, model: &setting.model, mode: Mode::Eval, config: &config };
    let start = Start { rng: &numbers(Stream::SuiteStart, 0), first: 0 };
    let batch = pgd::Batch { images: clean.clone(), labels: &backend.labels(&labels) };
    let x = pgd.attack(start, &batch, &mut backend.metrics(), drop).unwrap();
    let (natural, attacked) =
        (target_model.logits(&clean).unwrap().predictions(), target_model.logits(&x).unwrap().predictions());
    for (i, verdict) in assessment.verdicts.iter().enumerate() {
        assert_eq!((verdict.label, verdict.natural), (labels[i], natural[i]), "image {i}");
        let broken = verdict.broken.as_ref().map(|broken| broken.class);
        let expected = (natural[i] == labels[i] && attacked[i] != labels[i]).then_some(attacked[i]);
        assert_eq!(broken, expected, "image {i}");
    }
    assert!(assessment.verdicts[512..].iter().filter(|verdict| verdict.broken.is_some()).count() > 10);
}

/// Where nothing breaks, every pass is made: as many as are announced, and for FAB and C&W no more.
#[test]
fn passes_of_a_round_are_announced() {
    let backend = F32::new(1).unwrap();
    let model = pixel::network(&backend, &[&[(0.0, 1.0), (1.0, 0.9)], &[(0.0, 0.0)], &[(0.0, -1.0)], &[(0.0, -2.0)]]);
    let images = pixel::images(&[128]).images;
    let resident = backend.resident([1, 28, 28], &images);
    let clean = Tensor::new(backend.gather(&resident, &[0], None), model.input(1));
    for attack in every_attack(0.1) {
        let seen = AtomicU64::new(0);
        let on_image_passes = |n: u64| {
            seen.fetch_add(n, Ordering::Relaxed);
            Ok(())
        };
        let target_model = TargetModel::new(&backend, &model, &on_image_passes);
        let round = Round { surrogate: Some(&model), ..round(0, 3, &clean, &[0]) };
        attack.run(&target_model, &round).unwrap();
        let (seen, announced) = (seen.into_inner(), attack.image_passes());
        let may_end_before = matches!(attack, AttackConfig::Fab(_) | AttackConfig::CwL2(_));
        assert!(seen == announced || may_end_before && seen < announced, "{}: {seen} of {announced}", attack.name());
    }
    // One that breaks at every step: FAB steps back, and passes twice.
    let model = pixel::network(&backend, &[&[(0.0, 0.51), (1.0, -0.49)], &[(0.0, 0.0)]]);
    let seen = AtomicU64::new(0);
    let on_image_passes = |n: u64| {
        seen.fetch_add(n, Ordering::Relaxed);
        Ok(())
    };
    let target_model = TargetModel::new(&backend, &model, &on_image_passes);
    let fab = AttackConfig::Fab(FabConfig { steps: 10, ..FabConfig::published(0.1) });
    fab.run(&target_model, &round(0, 3, &clean, &[0])).unwrap();
    assert!(seen.into_inner() <= fab.image_passes());
}

/// What is left before anything is done: every round of every attack, on all images that are right.
#[test]
fn the_first_report_counts_all_rounds() {
    let setting = Setting::new();
    let attacks = every_attack(0.05);
    let mut told = Vec::new();
    let mut assessment = Assessment::default();
    let mut report = |assessment: &Assessment, left: u64| {
        told.push((assessment.verdicts.iter().filter(|verdict| verdict.right()).count() as u64, left));
        Err(Error::Interrupted)
    };
    let stopped = setting.with(&attacks, &uncounted, |suite| suite.run(&mut assessment, &mut report));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    // Two starts of PGD and C&W's loss, one of FGSM, two of the transfer, 1 of APGD, 9 targets, Square, C&W.
    let passes = 2 * 4 + 2 * 4 + 1 + 2 * 4 + 11 + 11 + 9 * 12 + 9 * 21 + 301 + 4 * 60;
    let [(right, left)] = told[..] else { panic!("{told:?}") };
    assert_eq!(left, right * passes);
}

#[test]
fn rounds_are_starts_times_targets() {
    let apgd = |loss, restarts| AttackConfig::Apgd(ApgdConfig { restarts, ..ApgdConfig::published(0.1, loss) });
    for (attack, classes, rounds) in [
        (apgd(ApgdLoss::CrossEntropy, 3), 10, 3),
        (apgd(ApgdLoss::Dlr, 2), 10, 2),
        (apgd(ApgdLoss::TargetedDlr, 2), 10, 18),
        (apgd(ApgdLoss::TargetedDlr, 3), 4, 9),
        (AttackConfig::Pgd(PgdConfig { restarts: 5, ..pgd(0.1, 1, true) }), 10, 5),
        (AttackConfig::Transfer(TransferConfig(PgdConfig { restarts: 5, ..pgd(0.1, 1, true) })), 10, 5),
        (AttackConfig::Square(SquareConfig::published(0.1)), 10, 1),
        (AttackConfig::CwL2(CwL2Config::published(0.1)), 10, 1),
    ] {
        assert_eq!(attack.rounds(classes), rounds, "{}", attack.name());
    }
}

/// Read from the papers and the authors' code.
#[test]
fn settings_are_the_published_ones() {
    let apgd = |loss| AttackConfig::Apgd(ApgdConfig { eps: 0.3, steps: 100, restarts: 1, loss, rho: 0.75 });
    let ensemble = [
        apgd(ApgdLoss::CrossEntropy),
        apgd(ApgdLoss::TargetedDlr),
        AttackConfig::Fab(FabConfig { eps: 0.3, steps: 100, alpha_max: 0.1, eta: 1.05, beta: 0.9 }),
        AttackConfig::Square(SquareConfig { eps: 0.3, queries: 5000, p_init: 0.8 }),
    ];
    assert_eq!(standard(0.3), ensemble);
    let cw = CwL2Config { eps: 0.3, steps: 10_000, lr: 0.01, searches: 9, first_weight: 0.001, kappa: 0.0 };
    assert_eq!(CwL2Config::published(0.3), cw);
}

#[test]
fn attacks_have_their_usual_names_and_distances() {
    let names: Vec<&str> = every_attack(0.1).iter().map(|attack| attack.name()).collect();
    let expected = ["pgd", "cw", "fgsm", "transfer", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", "cw-l2"];
    assert_eq!(names, expected);
    let one_step = |random_start, loss| AttackConfig::Pgd(PgdConfig { loss, ..pgd(0.1, 1, random_start) }).name();
    assert_eq!(one_step(true, AttackLoss::CrossEntropy), "pgd", "FGSM begins at the image");
    for attack in every_attack(0.1) {
        let name = attack.name();
        assert_eq!(attack.distance(), if name == "cw-l2" { Distance::L2 } else { Distance::LInf }, "{name}");
        assert_eq!(attack.eps(), if name == "cw-l2" { 2.0 } else { 0.1 }, "{name}");
        assert_eq!(attack.is_white_box(), !["transfer", "square"].contains(&name), "{name}");
    }
}

#[test]
fn settings_that_make_no_attack_are_refused() {
    let none = [
        AttackConfig::Pgd(PgdConfig { restarts: 0, ..pgd(0.1, 4, true) }),
        AttackConfig::Transfer(TransferConfig(PgdConfig { restarts: 0, ..pgd(0.1, 4, true) })),
        AttackConfig::Apgd(ApgdConfig { restarts: 0, ..ApgdConfig::published(0.1, ApgdLoss::Dlr) }),
        AttackConfig::Apgd(ApgdConfig { steps: 0, ..ApgdConfig::published(0.1, ApgdLoss::Dlr) }),
        AttackConfig::Fab(FabConfig { steps: 0, ..FabConfig::published(0.1) }),
        AttackConfig::Square(SquareConfig { queries: 0, ..SquareConfig::published(0.1) }),
        AttackConfig::CwL2(CwL2Config { steps: 0, ..CwL2Config::published(0.1) }),
    ];
    for attack in none {
        let error = attack.validate(10).unwrap_err().to_string();
        assert!(error.contains(attack.name()) && error.contains("must be at least 1, got 0"), "{error}");
    }
    for eps in [-1e-6, f32::INFINITY, f32::NAN] {
        assert!(AttackConfig::Fab(FabConfig::published(eps)).validate(10).is_err(), "{eps}");
    }
    assert!(AttackConfig::Fab(FabConfig::published(0.0)).validate(10).is_ok());
}

/// By hand: three right from the start, of which attack 0 breaks one and attack 2 another; one wrong.
#[test]
fn accuracy_falls_with_each_attack_that_broke_something() {
    let verdict = |natural: u8, attack: Option<usize>| Verdict {
        label: 1,
        natural,
        broken: attack.map(|attack| Broken { attack, round: 0, class: 0, distance: 0.1 }),
        tried: None,
    };
    let verdicts = vec![verdict(1, None), verdict(1, Some(0)), verdict(1, Some(2)), verdict(5, None)];
    let assessment = Assessment { verdicts, ..Assessment::default() };
    assert_eq!([0, 1, 2, 3].map(|attacks| assessment.accuracy(attacks)), [75.0, 50.0, 50.0, 25.0]);
    assert_eq!([0, 1, 2].map(|attack| assessment.broken_by(attack)), [1, 0, 1]);
    assert_eq!(assessment.verdicts.iter().map(Verdict::stands).collect::<Vec<_>>(), [true, false, false, false]);
}
