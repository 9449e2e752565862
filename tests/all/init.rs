//! The initialisers: moments, ranges, orthogonality, independence.

use engine::base::rng::{Rng, Stream};
use engine::nn::init::{Init, initial_values};
use engine::nn::models::{Architecture, Network};

use crate::compare::assert_close;

/// LeNet at w=16: `conv1` is 32×25, `conv2` 64×800 with 1600 outputs per input, `fc1` has 3136 inputs.
fn lenet(init: Init, seed: u64) -> Vec<Vec<f32>> {
    initial_values(&Architecture::new(Network::LeNet, 16, 10).unwrap(), init, seed)
}

const CONV1: usize = 0;
const CONV2: usize = 2;

/// Mean and standard deviation.
fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (mean, (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// Panics unless `values` look uniform between the bounds: they reach both, never pass them except by a rounding to
/// f32, and have the moments.
#[track_caller]
fn assert_uniform(what: &str, values: &[f32], low: f64, high: f64) {
    let (min, max) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v.into()), h.max(v.into())));
    let n = values.len() as f64;
    // The chance that no value falls into the outermost `slack` is e^-20.
    let slack = (high - low) * 20.0 / n;
    let rounding = 1e-7 * high;
    assert!(min >= low - rounding && min < low + slack, "{what}: smallest {min}, bound {low}");
    assert!(max <= high + rounding && max > high - slack, "{what}: largest {max}, bound {high}");
    let (mean, std) = moments(values);
    let spread = (high - low) / 12f64.sqrt();
    assert!((mean - (low + high) / 2.0).abs() < 5.0 * spread / n.sqrt(), "{what}: mean {mean}");
    assert!((std / spread - 1.0).abs() < 5.0 / n.sqrt(), "{what}: standard deviation {std}, expected {spread}");
}

/// Panics unless `values` look normal with mean 0.
#[track_caller]
fn assert_normal(what: &str, values: &[f32], expected: f64) {
    let n = values.len() as f64;
    let (mean, std) = moments(values);
    assert!(mean.abs() < 5.0 * expected / n.sqrt(), "{what}: mean {mean}");
    assert!((std / expected - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{what}: standard deviation {std}");
    let within = |k: f64| values.iter().filter(|v| f64::from(v.abs()) < k * expected).count() as f64 / n;
    for (k, fraction) in [(1.0, 0.682_69), (2.0, 0.954_5), (3.0, 0.997_3)] {
        assert!((within(k) - fraction).abs() < 0.01, "{what}: {} within {k} standard deviations", within(k));
    }
}

#[test]
fn uniform_convolutions() {
    for (init, low, high) in [
        (Init::Uniform, 0.0, 1.0),
        (Init::Default, -0.035_355_34, 0.035_355_34),
        (Init::XavierUniform, -0.05, 0.05),
        (Init::KaimingUniform, -0.086_602_55, 0.086_602_55),
    ] {
        assert_uniform(init.name(), &lenet(init, 1)[CONV2], low, high);
    }
}

#[test]
fn normal_convolutions() {
    for (init, std) in [(Init::Normal, 1.0), (Init::XavierNormal, 0.028_867_51), (Init::KaimingNormal, 0.05)] {
        assert_normal(init.name(), &lenet(init, 1)[CONV2], std);
    }
}

#[test]
fn orthogonal_convolutions() {
    let values = lenet(Init::Orthogonal, 1);
    assert_orthonormal("rows of conv2", 64, |i, j| values[CONV2][i * 800 + j], 800);
    assert_orthonormal("columns of conv1", 25, |i, j| values[CONV1][j * 25 + i], 32);
    // A QR without its signs fixed is not uniform: its first column has always the same sign.
    let narrow = Architecture::new(Network::LeNet, 1, 10).unwrap();
    let first = |seed| initial_values(&narrow, Init::Orthogonal, seed)[CONV1][0];
    let positive = (0..40).filter(|&seed| first(seed) > 0.0).count();
    assert!((8..=32).contains(&positive), "{positive} of 40 first elements are positive");
}

/// The Q of a matrix is unique where R's diagonal is positive: Gram and Schmidt's columns, one after the other.
#[test]
fn orthogonal_convolutions_are_gram_and_schmidts() {
    let values = lenet(Init::Orthogonal, 7);
    for (param, [rows, cols]) in [(CONV1, [32, 25]), (CONV2, [64, 800])] {
        let (long, short) = (rows.max(cols), rows.min(cols));
        let rng = Rng::new(7, Stream::Init, param as u32);
        let mut columns: Vec<Vec<f64>> =
            (0..short).map(|j| (0..long).map(|i| rng.normal_at((i * short + j) as u64)).collect()).collect();
        for j in 0..short {
            let (done, rest) = columns.split_at_mut(j);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            for q in done {
                let along = dot(q, &rest[0]);
                rest[0].iter_mut().zip(q).for_each(|(v, q)| *v -= along * *q);
            }
            let norm = dot(&rest[0], &rest[0]).sqrt();
            rest[0].iter_mut().for_each(|v| *v /= norm);
        }
        let at = |k: usize| if rows >= cols { columns[k % cols][k / cols] } else { columns[k / cols][k % cols] };
        let want: Vec<f64> = (0..rows * cols).map(at).collect();
        assert_close(&format!("{rows}x{cols}"), &values[param], &want, 1e-6, 0.0);
    }
}

/// Panics unless the `count` vectors `at(i, ..)` of length `len` are orthonormal.
#[track_caller]
fn assert_orthonormal(what: &str, count: usize, at: impl Fn(usize, usize) -> f32, len: usize) {
    let dot = |i, k| (0..len).map(|j| f64::from(at(i, j)) * f64::from(at(k, j))).sum::<f64>();
    let products: Vec<f64> = (0..count * count).map(|p| dot(p / count, p % count)).collect();
    let identity: Vec<f64> = (0..count * count).map(|p| f64::from(u8::from(p / count == p % count))).collect();
    assert_close(what, &products, &identity, 0.0, 1e-6);
}

#[test]
fn linear_layers_and_biases_have_pytorchs_defaults_under_every_initialiser() {
    for &init in Init::ALL {
        let values = lenet(init, 3);
        for (i, bound) in [(1, 0.2), (3, 0.035_355_34), (4, 1.0 / 56.0), (5, 1.0 / 56.0), (6, 1.0 / 32.0)] {
            assert_uniform(&format!("{init}, parameter {i}"), &values[i], -bound, bound);
        }
    }
}

#[test]
fn batch_norms_begin_as_the_identity() {
    let architecture = Architecture::new(Network::ResNet18, 1, 10).unwrap();
    let values = initial_values(&architecture, Init::Normal, 1);
    let mut norms = 0;
    for (param, values) in architecture.params.iter().zip(&values) {
        if param.name.contains("bn") || param.name.contains("shortcut.1") {
            let expected = if param.name.ends_with("weight") { 1.0 } else { 0.0 };
            assert!(values.iter().all(|&v| v == expected), "{}", param.name);
            norms += 1;
        }
    }
    assert_eq!(norms, 2 * architecture.norms.len());
}

#[test]
fn a_seed_decides_and_layers_differ() {
    for &init in Init::ALL {
        assert_eq!(lenet(init, 5), lenet(init, 5), "{init}");
        let (one, other) = (lenet(init, 5), lenet(init, 6));
        for (i, (a, b)) in one.iter().zip(&other).enumerate() {
            assert!(correlation(a, b).abs() < 5.0 / (a.len() as f64).sqrt().max(6.0), "{init}: seeds at parameter {i}");
        }
        assert!(correlation(&one[CONV1], &one[CONV2]).abs() < 0.2, "{init}: convolutions");
        assert!(correlation(&one[4], &one[6]).abs() < 0.05, "{init}: linear layers");
    }
}

/// Of the elements that both have.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len().min(b.len());
    let ((mean_a, std_a), (mean_b, std_b)) = (moments(&a[..n]), moments(&b[..n]));
    let product = |(&a, &b): (&f32, &f32)| (f64::from(a) - mean_a) * (f64::from(b) - mean_b);
    a.iter().zip(b).map(product).sum::<f64>() / (n as f64 * std_a * std_b)
}
