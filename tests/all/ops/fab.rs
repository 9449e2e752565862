//! The steps of FAB, against plain loops in f64.

use engine::backend::cpu::Cpu;
use engine::backend::{Backend, FabStep};

use super::samples::{Batch, IMAGES, assert_same_bits, sign};
use crate::backends::on_every_backend;
use crate::compare::assert_close;

on_every_backend! { fab_step, fab_reaches_the_hyperplane, fab_without_a_gradient, interpolate }

/// CUDA alone.
mod bits {
    use super::interpolate_agrees_with_the_cpu;
    crate::backends::on_cuda! { interpolate_agrees_with_the_cpu }
}

/// The smallest l-infinity move of `t` onto the hyperplane at `value`, within [0, 1]; as far as it goes, if there is none.
/// Where pixels reach their ends is sorted, and walked until the sum is enough.
fn onto_hyperplane(w: &[f64], t: &[f64], value: f64) -> Vec<f64> {
    let directions: Vec<f64> = w.iter().map(|&w| -sign(w) * if value >= 0.0 { 1.0 } else { -1.0 }).collect();
    let room = |i: usize| match directions[i] {
        up if up > 0.0 => 1.0 - t[i],
        down if down < 0.0 => t[i],
        _ => 0.0,
    };
    let mut ends: Vec<(f64, f64)> = (0..w.len()).map(|i| (room(i), w[i].abs())).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut full, mut slope) = (0.0, w.iter().map(|w| w.abs()).sum::<f64>());
    let mut length = 0.0;
    for (end, weight) in ends {
        if full + end * slope >= value.abs() {
            length = if slope > 0.0 { (value.abs() - full) / slope } else { 0.0 };
            break;
        }
        // Out of reach so far.
        length = end;
        full += weight * end;
        slope -= weight;
    }
    (0..w.len()).map(|i| directions[i] * room(i).min(length)).collect()
}

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Values of which some are near, some far, and some out of reach: no image of these has that much room.
fn values(b: &Batch) -> Vec<f32> {
    let reach = b.features as f32;
    (0..b.n).map(|i| [0.01, -0.07, 0.3, -9.0, 0.0, 0.15][(i + b.n) % 6] * reach).collect()
}

fn fab<B: Backend>(backend: &B, b: &Batch, step: &FabStep, values: &[f32]) -> Vec<f32> {
    let mut x = b.up(backend, &b.x);
    backend.fab_step(step, values, &b.up(backend, &b.clean), &b.up(backend, &b.dx), &mut x);
    backend.download_batch(b.n, &x)
}

pub fn fab_step<B: Backend>(backend: &B) {
    for b in Batch::all() {
        let values = values(&b);
        let step = FabStep { eta: 1.05, alpha_max: 0.1 };
        let mut want = Vec::new();
        for (image, &value) in values.iter().enumerate() {
            let [w, x, clean] = [&b.dx, &b.x, &b.clean].map(|of| f64s(b.of(image, of)));
            let value = f64::from(value);
            let at_clean = value + w.iter().zip(x.iter().zip(&clean)).map(|(w, (x, c))| w * (c - x)).sum::<f64>();
            let (own, other) = (onto_hyperplane(&w, &x, value), onto_hyperplane(&w, &clean, at_clean));
            let [own_most, other_most] = [&own, &other].map(|d| d.iter().fold(1e-8, |most: f64, d| most.max(d.abs())));
            let a = (own_most / (own_most + other_most)).min(f64::from(step.alpha_max));
            let eta = f64::from(step.eta);
            want.extend(
                (0..x.len())
                    .map(|i| ((1.0 - a) * (x[i] + eta * own[i]) + a * (clean[i] + eta * other[i])).clamp(0.0, 1.0)),
            );
        }
        assert_close(&b.what, &fab(backend, &b, &step, &values), &want, 0.0, 2e-5);
    }
}

/// From `x` alone: onto the hyperplane, if it is within reach, else every pixel to its end.
pub fn fab_reaches_the_hyperplane<B: Backend>(backend: &B) {
    let (mut reached, mut ends) = (0, 0);
    for b in Batch::all() {
        let values = values(&b);
        let got = fab(backend, &b, &FabStep { eta: 1.0, alpha_max: 0.0 }, &values);
        for (image, &value) in values.iter().enumerate() {
            let [w, x, y] = [&b.dx, &b.x, &got].map(|of| f64s(b.of(image, of)));
            let toward = |w: f64| if (w > 0.0) == (value >= 0.0) { 0.0 } else { 1.0 };
            let change = |y: &dyn Fn(usize) -> f64| (0..x.len()).map(|i| w[i] * (y(i) - x[i])).sum::<f64>();
            let most = change(&|i| toward(w[i]));
            if most.abs() >= f64::from(value).abs() {
                let left = f64::from(value) + change(&|i| y[i]);
                assert!(left.abs() <= 1e-6 * b.features as f64, "{}, image {image}: {left} from {value}", b.what);
                reached += 1;
            } else {
                let want: Vec<f64> = (0..x.len()).map(|i| if w[i] == 0.0 { x[i] } else { toward(w[i]) }).collect();
                assert_close(&format!("{}, image {image}: ends", b.what), &y, &want, 0.0, 1e-6);
                ends += 1;
            }
        }
    }
    assert!(reached > 20 && ends > 20, "{reached} reached, {ends} out of reach");
}

/// Nothing moves but towards the clean image, by half where `alpha_max` allows it.
pub fn fab_without_a_gradient<B: Backend>(backend: &B) {
    for n in IMAGES {
        let mut b = Batch::new(n, [3, 7, 6]);
        b.dx.fill(0.0);
        let values = vec![1.0; n];
        let still = fab(backend, &b, &FabStep { eta: 1.05, alpha_max: 0.0 }, &values);
        assert_close(&format!("{}: still", b.what), &still, &b.x, 0.0, 0.0);
        let half: Vec<f64> = b.each(|_, i| 0.5 * (f64::from(b.x[i]) + f64::from(b.clean[i])));
        let got = fab(backend, &b, &FabStep { eta: 1.05, alpha_max: 0.7 }, &values);
        assert_close(&format!("{}: half way", b.what), &got, &half, 0.0, 1e-6);
    }
}

fn shares(n: usize) -> Vec<f32> {
    (0..n).map(|i| [1.0, 0.5, 0.0, 1.0 / 3.0, 1.25][(i + n) % 5]).collect()
}

fn interpolated<B: Backend>(backend: &B, b: &Batch, t: &[f32]) -> Vec<f32> {
    let mut x = b.up(backend, &b.x);
    backend.interpolate(t, &b.up(backend, &b.clean), &mut x);
    backend.download_batch(b.n, &x)
}

pub fn interpolate<B: Backend>(backend: &B) {
    let mut rounded = 0;
    for b in Batch::all() {
        let t = shares(b.n);
        let got = interpolated(backend, &b, &t);
        let want = b.each(|image, i| {
            let (clean, x) = (f64::from(b.clean[i]), f64::from(b.x[i]));
            clean + f64::from(t[image]) * (x - clean)
        });
        assert_close(&b.what, &got, &want, 0.0, 2e-7);
        for image in (0..b.n).filter(|&image| t[image] == 1.0) {
            let bits = |values| b.of(image, values).iter().map(|v: &f32| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&got), bits(&b.x), "{}, image {image}: stays", b.what);
            rounded +=
                b.of(image, &b.x).iter().zip(b.of(image, &b.clean)).filter(|(x, c)| **c + (*x - *c) != **x).count();
        }
    }
    assert!(rounded > 100, "only {rounded} pixels would not have stayed");
}

pub fn interpolate_agrees_with_the_cpu<B: Backend>(backend: &B) {
    let cpu = Cpu::<f32>::new(1).unwrap();
    for b in Batch::all() {
        let t = shares(b.n);
        assert_same_bits(&b.what, &interpolated(backend, &b, &t), &interpolated(&cpu, &b, &t));
    }
}
