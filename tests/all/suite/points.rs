//! Which of the points that an attack comes by it returns, by the definition: every point is judged by the network alone.

use std::cell::RefCell;

use engine::attack::apgd::{ApgdConfig, ApgdLoss};
use engine::attack::cw_l2::{CwL2Config, Nearest};
use engine::attack::fab::FabConfig;
use engine::attack::objective::margin;
use engine::attack::square::SquareConfig;
use engine::attack::target_model::{ImagePasses, TargetModel};
use engine::autograd::tensor::Tensor;
use engine::backend::{Memory, SquareUpdate};
use engine::base::rng::{Rng, Stream};

use super::{F32, N, Setting, pixel, uncounted};
use crate::compare::assert_close;
use crate::networks::recorded;

/// Every point of an attack, in order, and the logits there.
#[derive(Default)]
struct Seen {
    points: Vec<Vec<Vec<f32>>>,
    logits: Vec<Vec<Vec<f32>>>,
}

impl Seen {
    fn add(&mut self, setting: &Setting, x: &Tensor<F32>) {
        let n = x.shape().dims()[0];
        let logits = TargetModel::new(&setting.backend, &setting.model, &uncounted).logits(x).unwrap();
        self.points.push(x.values(&setting.backend).chunks(x.shape().len() / n).map(<[f32]>::to_vec).collect());
        self.logits.push((0..n).map(|i| logits.of_image(i).to_vec()).collect());
    }

    /// The numbers of the points at which image `i` is misclassified by `ahead` or more.
    fn wrong(&self, i: usize, label: u8, ahead: f64) -> Vec<usize> {
        let largest = |z: &[f32]| (0..z.len()).rev().max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
        let is_wrong = |&point: &usize| {
            let z = &self.logits[point][i];
            largest(z) != usize::from(label) && margin(z, label.into()) <= -ahead
        };
        (0..self.points.len()).filter(is_wrong).collect()
    }
}

/// The images of `x`.
fn images(setting: &Setting, x: &Tensor<F32>) -> Vec<Vec<f32>> {
    let values = x.values(&setting.backend);
    values.chunks(784).map(<[f32]>::to_vec).collect()
}

/// The first of the points, in order, that is nearest to `clean`.
fn nearest(points: &[usize], at: impl Fn(usize) -> f64) -> Option<usize> {
    points.iter().copied().reduce(|best, point| if at(point) < at(best) { point } else { best })
}

fn l2(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

fn l_inf(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

#[test]
fn apgd_returns_the_first_adversarial_point_or_else_the_last() {
    let setting = Setting::new();
    let (clean, labels) = setting.batch();
    let target_model = TargetModel::new(&setting.backend, &setting.model, &uncounted);
    let config = ApgdConfig { steps: 12, ..ApgdConfig::published(0.05, ApgdLoss::CrossEntropy) };
    let seen = RefCell::new(Seen::default());
    let start = Tensor::new(setting.backend.copy_batch(clean.buf()), clean.shape().clone());
    seen.borrow_mut().add(&setting, &start);
    let found =
        config.attack(&target_model, &clean, &labels, &[], start, |x| seen.borrow_mut().add(&setting, x)).unwrap();
    let seen = seen.into_inner();
    assert_eq!(seen.points.len(), 13, "some image stands to the end");
    let (mut at_once, mut later_right, mut at_last) = (0, 0, 0);
    for (i, found) in images(&setting, &found).iter().enumerate() {
        let wrong = seen.wrong(i, labels[i], 0.0);
        let expected = wrong.first().copied().unwrap_or(12);
        assert_eq!(*found, seen.points[expected][i], "image {i}, wrong at {wrong:?}");
        at_once += usize::from(expected == 0);
        later_right += usize::from(!wrong.is_empty() && expected < 12 && seen.points[12][i] != *found);
        at_last += usize::from(wrong.is_empty());
    }
    assert!(at_once > 0 && later_right > 0 && at_last > 0, "{at_once} {later_right} {at_last}: not every case");
}

/// No step is made where every image is misclassified from the start, and none after the last of them is found.
#[test]
fn apgd_ends_when_nothing_stands() {
    // Right below 0.6, and a step goes up.
    let backend = F32::new(1).unwrap();
    let model = pixel::network(&backend, &[&[(0.0, 0.6), (1.0, -0.4)], &[(0.0, 0.0)]]);
    let target_model = TargetModel::new(&backend, &model, &uncounted);
    for (levels, steps) in [([200, 180], 0), ([200, 128], 1)] {
        let pixels: Vec<f32> = pixel::images(&levels).images.iter().map(|&v| f32::from(v) / 255.0).collect();
        let clean = Tensor::upload(&backend, [2, 1, 28, 28], &pixels);
        let config = ApgdConfig { steps: 9, ..ApgdConfig::published(0.2, ApgdLoss::CrossEntropy) };
        let start = Tensor::new(backend.copy_batch(clean.buf()), clean.shape().clone());
        let before = target_model.image_passes();
        let x = config.attack(&target_model, &clean, &[0, 0], &[], start, |_| {}).unwrap();
        let passes = 2 * (1 + steps);
        let passes = ImagePasses { queries: passes, gradients: passes };
        assert_eq!(target_model.image_passes(), before + passes, "{levels:?}");
        assert_eq!(target_model.logits(&x).unwrap().wrong(&[0, 0]), [true; 2]);
    }
}

#[test]
fn fab_returns_the_nearest_adversarial_point() {
    let setting = Setting::new();
    let (clean, labels) = setting.batch();
    let target_model = TargetModel::new(&setting.backend, &setting.model, &uncounted);
    let targets = target_model.logits(&clean).unwrap().ranked(2);
    let config = FabConfig { steps: 15, ..FabConfig::published(0.3) };
    let (seen, before) = (RefCell::new(Seen::default()), target_model.image_passes());
    let found =
        config.attack(&target_model, &clean, &labels, &targets, |x| seen.borrow_mut().add(&setting, x)).unwrap();
    let (seen, clean) = (seen.into_inner(), images(&setting, &clean));
    assert_eq!(seen.points.len(), 15);
    let (mut not_the_last, mut not_the_first, mut none) = (0, 0, 0);
    for (i, found) in images(&setting, &found).iter().enumerate() {
        let wrong = seen.wrong(i, labels[i], 0.0);
        let expected = nearest(&wrong, |point| l_inf(&seen.points[point][i], &clean[i]));
        assert_eq!(*found, *expected.map_or(&clean[i], |point| &seen.points[point][i]), "image {i}: {wrong:?}");
        not_the_last += usize::from(expected.is_some() && expected != wrong.last().copied());
        not_the_first += usize::from(expected.is_some() && expected != wrong.first().copied());
        none += usize::from(expected.is_none());
    }
    assert!(not_the_last > 0 && not_the_first > 0, "{not_the_last} {not_the_first} {none}: not every case");
    // A pass at the start, one at every point, and one more where some image stepped back, but at the end.
    let stepped_back = (0..14).filter(|point| (0..N).any(|i| seen.wrong(i, labels[i], 0.0).contains(point))).count();
    let passes = ImagePasses { queries: (N * (1 + 15 + stepped_back)) as u64, gradients: (N * 15) as u64 };
    assert_eq!(target_model.image_passes(), before + passes);
}

/// The first image is across with its first step, the second is not; alone, each goes the same way.
#[test]
fn fab_steps_back_only_where_it_is_across() {
    let backend = F32::new(1).unwrap();
    let model = pixel::network(&backend, &[&[(0.0, 1.0), (0.4, 0.2), (0.9, -0.2)], &[(0.0, 0.0)]]);
    let points = |levels: &[u8]| {
        let pixels: Vec<f32> = pixel::images(levels).images.iter().map(|&v| f32::from(v) / 255.0).collect();
        let (n, mut points) = (levels.len(), Vec::new());
        let clean = Tensor::upload(&backend, [n, 1, 28, 28], &pixels);
        let target_model = TargetModel::new(&backend, &model, &uncounted);
        let config = FabConfig { steps: 4, ..FabConfig::published(0.3) };
        let see = |x: &Tensor<F32>| {
            let wrong = target_model.logits(x).unwrap().wrong(&vec![0; n]);
            points.push((wrong, x.values(&backend).chunks(784).map(|x| x[29]).collect::<Vec<f32>>()));
        };
        config.attack(&target_model, &clean, &vec![0; n], &vec![1; n], see).unwrap();
        points
    };
    let together = points(&[128, 60]);
    assert_eq!(together[0].0, [true, false]);
    for (image, level) in [128, 60].into_iter().enumerate() {
        let alone: Vec<f32> = points(&[level]).iter().map(|(_, x)| x[0]).collect();
        let together: Vec<f32> = together.iter().map(|(_, x)| x[image]).collect();
        assert_close(&format!("image {image}"), &together, &alone, 1e-6, 0.0);
    }
}

/// The whole search for weights, and among all its points the nearest that are far enough across.
#[test]
fn cw_l2_returns_the_nearest_adversarial_point_of_all_weights() {
    const KAPPA: f64 = 0.5;
    let setting = Setting::new();
    let (clean, labels) = setting.batch();
    let target_model = TargetModel::new(&setting.backend, &setting.model, &uncounted);
    let config =
        CwL2Config { steps: 30, searches: 5, first_weight: 0.3, kappa: KAPPA, lr: 0.05, ..CwL2Config::published(2.0) };
    let seen = RefCell::new(Seen::default());
    let mut nearest_yet = Nearest::none(&setting.backend, &clean);
    let (mut low, mut high, mut weights) = ([0.0; N], [f64::INFINITY; N], [0.3; N]);
    let mut seldom = 0;
    for _ in 0..5 {
        let first = seen.borrow().points.len();
        let on_iterate = |x: &Tensor<F32>| seen.borrow_mut().add(&setting, x);
        let succeeded = config.descend(&target_model, &clean, &labels, &weights, &mut nearest_yet, on_iterate).unwrap();
        for i in 0..N {
            let wrong = seen.borrow().wrong(i, labels[i], KAPPA);
            let wrong_now = wrong.iter().any(|&point| point >= first);
            assert_eq!(succeeded[i], wrong_now, "image {i}");
            seldom += usize::from(wrong_now && wrong.last() != Some(&(seen.borrow().points.len() - 1)));
            let end = if wrong_now { &mut high[i] } else { &mut low[i] };
            *end = weights[i];
            weights[i] = if high[i] < f64::INFINITY { (low[i] + high[i]) / 2.0 } else { 10.0 * weights[i] };
        }
    }
    assert!(seldom > 0, "some success must not be the last point's");
    let found = images(&setting, &config.attack(&target_model, &clean, &labels).unwrap());
    let (seen, clean) = (seen.into_inner(), images(&setting, &clean));
    let (mut not_the_last, mut not_the_first) = (0, 0);
    for (i, found) in found.iter().enumerate() {
        let wrong = seen.wrong(i, labels[i], KAPPA);
        let expected = nearest(&wrong, |point| l2(&seen.points[point][i], &clean[i]));
        assert_eq!(*found, *expected.map_or(&clean[i], |point| &seen.points[point][i]), "image {i}: {wrong:?}");
        not_the_last += usize::from(expected.is_some() && expected != wrong.last().copied());
        not_the_first += usize::from(expected.is_some() && expected != wrong.first().copied());
    }
    assert!(not_the_last > 0 && not_the_first > 0, "{not_the_last} {not_the_first}: not every case");
}

/// Every tenth of the steps the loss must have fallen by a ten-thousandth.
#[test]
fn cw_l2_gives_up_where_nothing_moves() {
    let backend = F32::new(1).unwrap();
    // No gradient at all.
    let model = pixel::network(&backend, &[&[(0.0, 1.0)], &[(0.0, 0.0)]]);
    let target_model = TargetModel::new(&backend, &model, &uncounted);
    let clean = Tensor::upload(&backend, [1, 1, 28, 28], &[0.5; 784]);
    for (steps, points) in [(60, 7), (69, 7), (70, 8), (5, 2), (1, 1)] {
        let config = CwL2Config { steps, ..CwL2Config::published(1.0) };
        let (mut seen, mut nearest) = (0, Nearest::none(&backend, &clean));
        let succeeded = config.descend(&target_model, &clean, &[0], &[1.0], &mut nearest, |_| seen += 1).unwrap();
        assert_eq!((seen, succeeded), (points, vec![false]), "{steps} steps");
    }
    // One that falls until the end.
    let model = pixel::network(&backend, &[&[(0.0, 90.0), (1.0, 0.0)], &[(0.0, 0.0)]]);
    let target_model = TargetModel::new(&backend, &model, &uncounted);
    let config = CwL2Config { steps: 60, ..CwL2Config::published(1.0) };
    let mut seen = 0;
    config.descend(&target_model, &clean, &[0], &[1.0], &mut Nearest::none(&backend, &clean), |_| seen += 1).unwrap();
    assert_eq!(seen, 60);
}

/// Square by the definition, image by image, a window at a time.
#[test]
fn square_keeps_what_lowers_the_margin_until_it_is_gone() {
    const EPS: f32 = 0.1;
    let setting = Setting::new();
    let (clean, labels) = setting.batch();
    let target_model = TargetModel::new(&setting.backend, &setting.model, &uncounted);
    let config = SquareConfig { queries: 60, ..SquareConfig::published(EPS) };
    let rng = Rng::new(5, Stream::Square, 1);
    let propose = |query: usize, i: usize| config.proposal([1, 28, 28], query, &rng, i as u64);
    let start = config.stripes(&setting.backend, &clean, &rng, 0).unwrap();
    let (mut best, clean_images) = (images(&setting, &start), images(&setting, &clean));
    let found = config.attack(&target_model, &clean, &labels, start, propose).unwrap();

    let margins = |x: &[Vec<f32>]| -> Vec<f64> {
        let x = Tensor::new(setting.backend.upload_batch(N, &x.concat()), clean.shape().clone());
        let logits = target_model.logits(&x).unwrap();
        (0..N).map(|i| margin(logits.of_image(i), labels[i].into())).collect()
    };
    let mut lowest = margins(&best);
    let (mut kept, mut dropped, mut done) = (0, 0, 0);
    for query in 0..60 {
        let mut proposed = best.clone();
        for i in 0..N {
            let SquareUpdate { top, left, side, up } = propose(query, i);
            for at in (0..side * side).map(|k| ((top + k / side) * 28 + left + k % side) as usize) {
                let pixel = clean_images[i][at] + if up & 1 == 1 { EPS } else { -EPS };
                proposed[i][at] = pixel.clamp(0.0, 1.0);
            }
        }
        for (i, margin) in margins(&proposed).into_iter().enumerate() {
            if lowest[i] <= 0.0 {
                done += 1;
            } else if margin < lowest[i] {
                (best[i], lowest[i], kept) = (proposed[i].clone(), margin, kept + 1);
            } else {
                dropped += 1;
            }
        }
    }
    assert!(kept > N && dropped > N && done > N, "{kept} {dropped} {done}: not every case");
    assert!(lowest.iter().any(|&margin| margin > 0.0), "the last query was made");
    assert_close("best points", &found.values(&setting.backend), &best.concat(), 0.0, 1e-7);
}

/// Ended by the last image that falls, not by the number of queries; a margin of zero has fallen.
#[test]
fn square_asks_no_more_when_nothing_stands() {
    let backend = F32::new(1).unwrap();
    let model = pixel::network(&backend, &[&[(0.0, 0.5), (1.0, -0.5)], &[(0.0, 0.0)]]);
    let target_model = TargetModel::new(&backend, &model, &uncounted);
    let clean = Tensor::upload(&backend, [1, 1, 28, 28], &[0.25; 784]);
    let config = SquareConfig { queries: 10, ..SquareConfig::published(0.25) };
    let start = Tensor::new(backend.copy_batch(clean.buf()), clean.shape().clone());
    // Where the network does not look, which is no better; down, which is worse; then up.
    let window = |at, up| SquareUpdate { top: at, left: at, side: 4, up };
    let propose = |query: usize, _| [window(8, 1), window(0, 0), window(0, 1)][query];
    let x = config.attack(&target_model, &clean, &[0], start, propose).unwrap();
    assert_eq!(target_model.image_passes(), ImagePasses { queries: 1 + 3, gradients: 0 });
    let brighter: Vec<usize> = (0..784).filter(|&at| x.values(&backend)[at] != 0.25).collect();
    assert_eq!(brighter, (0..16).map(|k| k / 4 * 28 + k % 4).collect::<Vec<_>>(), "the last square only");
}

/// With running statistics, and with the gradient of the images.
#[test]
fn a_target_model_asks_the_network_as_it_is_used() {
    let backend = F32::new(2).unwrap();
    let (oracle, model) = recorded(&backend, "resnet18");
    let labels = crate::networks::labels(&oracle, "labels");
    let x = Tensor::upload(&backend, oracle.shape("x").try_into().unwrap(), oracle.values("x"));
    let target_model = TargetModel::new(&backend, &model, &uncounted);
    let n = labels.len() as f32;
    let loss = target_model
        .value_and_gradient(&x, |i, z, dz| {
            let value = engine::attack::objective::cross_entropy(z, labels[i].into(), dz);
            dz.iter_mut().for_each(|dz| *dz /= n);
            value
        })
        .unwrap();
    let logits: Vec<f32> = (0..labels.len()).flat_map(|i| loss.logits.of_image(i).to_vec()).collect();
    assert_close("logits", &logits, oracle.values("eval.logits"), oracle.rtol("eval.logits"), 0.0);
    assert_close("dx", &loss.dx.values(&backend), oracle.values("eval.dx"), oracle.rtol("eval.dx"), 0.0);
    let mean = loss.values.iter().sum::<f64>() / f64::from(n);
    assert_close("loss", &[mean], oracle.values("eval.loss"), oracle.rtol("eval.loss"), 0.0);
}
