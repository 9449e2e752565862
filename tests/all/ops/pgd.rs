//! The steps of PGD, against plain loops.

use engine::backend::Backend;
use engine::base::rng::{Rng, Stream};

use crate::backends::{normal, on_every_backend, uniform};
use crate::compare::assert_close;

on_every_backend! {
    pgd_step, pgd_steps_of_many_images, pgd_stays_in_the_ball, pgd_projects_before_it_clamps, random_start,
    random_start_of_parts,
}

/// What rounding of `clean ± eps` may add to the distance.
const ULP: f32 = 1.2e-7;

pub fn pgd_step<B: Backend>(backend: &B) {
    let (n, features, eps, step) = (9, 7, 0.125, 0.0625);
    let (clean, offset) = (uniform(1, n * features), uniform(2, n * features));
    let x: Vec<f32> = clean.iter().zip(&offset).map(|(c, u)| (c + eps * (2.0 * u - 1.0)).clamp(0.0, 1.0)).collect();
    let mut dx = normal(3, n * features);
    dx[0] = 0.0;
    dx[5] = -0.0;
    dx[n * features - 1] = 0.0;
    dx[7] = 1e-38;
    dx[8] = -1e-38;
    let want: Vec<f32> = (0..x.len())
        .map(|i| {
            let sign = if dx[i] > 0.0 { 1.0 } else { -f32::from(dx[i] < 0.0) };
            (x[i] + step * sign).clamp(clean[i] - eps, clean[i] + eps).clamp(0.0, 1.0)
        })
        .collect();
    let (clean, mut x) = (backend.upload_batch(n, &clean), backend.upload_batch(n, &x));
    let mut metrics = backend.metrics();
    backend.pgd_step(n, eps, step, &clean, &backend.upload_batch(n, &dx), &mut x, &mut metrics);
    assert_close("x", &backend.download_batch(n, &x), &want, 0.0, f64::from(ULP));
    let counts = backend.metrics_read(&metrics);
    assert_eq!((counts.gradients, counts.zero_gradients), (63, 3));
    backend.pgd_step(n, eps, step, &clean, &backend.upload_batch(n, &[0.0; 63]), &mut x, &mut metrics);
    let counts = backend.metrics_read(&metrics);
    assert_eq!((counts.gradients, counts.zero_gradients), (126, 66), "counters add up");
    assert_close("x without a gradient", &backend.download_batch(n, &x), &want, 0.0, f64::from(ULP));
}

/// Images that need a third block of sixteen, gradients that are zero or NaN in some of each: those pixels stay where they are, and
/// zeros alone are counted.
pub fn pgd_steps_of_many_images<B: Backend>(backend: &B) {
    for (n, features) in [(33, 12), (40, 5), (17, 1027)] {
        let (eps, step) = (0.125, 0.0625);
        let clean: Vec<f32> = uniform(1, n * features).iter().map(|c| 0.25 + 0.5 * c).collect();
        let x: Vec<f32> = clean.iter().zip(uniform(2, n * features)).map(|(c, u)| c + eps * (2.0 * u - 1.0)).collect();
        let mut dx = normal(3, n * features);
        dx.iter_mut().step_by(7).for_each(|g| *g = 0.0);
        dx.iter_mut().skip(3).step_by(11).for_each(|g| *g = f32::NAN);
        let moved = |(i, &g): (usize, &f32)| match g {
            g if g > 0.0 => (x[i] + step).min(clean[i] + eps),
            g if g < 0.0 => (x[i] - step).max(clean[i] - eps),
            _ => x[i],
        };
        let want: Vec<f32> = dx.iter().enumerate().map(moved).collect();
        let mut at = backend.upload_batch(n, &x);
        let (clean, dx_on_device) = (backend.upload_batch(n, &clean), backend.upload_batch(n, &dx));
        let mut metrics = backend.metrics();
        backend.pgd_step(n, eps, step, &clean, &dx_on_device, &mut at, &mut metrics);
        assert_close(&format!("{n} x {features}"), &backend.download_batch(n, &at), &want, 0.0, f64::from(ULP));
        let (counts, zeros) = (backend.metrics_read(&metrics), dx.iter().filter(|&&g| g == 0.0).count());
        assert_eq!((counts.gradients, counts.zero_gradients), ((n * features) as u64, zeros as u64));
    }
}

pub fn pgd_stays_in_the_ball<B: Backend>(backend: &B) {
    let (n, features) = (10, 33);
    for (eps, step) in [(0.3, 0.1), (8.0 / 255.0, 2.0 / 255.0), (0.0, 0.1), (1.0, 5.0)] {
        let values = uniform(4, n * features);
        let clean = backend.upload_batch(n, &values);
        let rng = Rng::new(5, Stream::TrainAttack, 0);
        let mut x = backend.random_start(n, features, eps, &rng, 0, &clean);
        let mut metrics = backend.metrics();
        for round in 0..20 {
            for (at, clean) in backend.download_batch(n, &x).iter().zip(&values) {
                assert!((at - clean).abs() <= eps + ULP, "eps {eps}, step {round}: {at} is too far from {clean}");
                assert!((0.0..=1.0).contains(at), "eps {eps}, step {round}: {at}");
            }
            let dx = backend.upload_batch(n, &normal(100 + round, n * features));
            backend.pgd_step(n, eps, step, &clean, &dx, &mut x, &mut metrics);
        }
    }
}

/// Of clean values outside of [0, 1], on which the two orders differ; a pixel that is no number comes back to the ball's lower end.
pub fn pgd_projects_before_it_clamps<B: Backend>(backend: &B) {
    let clean = backend.upload_batch(1, &[1.5, -0.5, 0.5, 0.5]);
    let mut x = backend.upload_batch(1, &[0.5, 0.5, 0.5, f32::NAN]);
    let dx = backend.upload_batch(1, &[-1.0, 1.0, 1.0, 1.0]);
    backend.pgd_step(1, 0.25, 0.5, &clean, &dx, &mut x, &mut backend.metrics());
    assert_eq!(backend.download_batch(1, &x), [1.0, 0.0, 0.75, 0.25]);
}

/// From every place in a block of four numbers and far beyond 32 bits, with features that fill such blocks and others, in images
/// that need a second and a third block of sixteen.
pub fn random_start<B: Backend>(backend: &B) {
    let eps = 0.3;
    for (n, features) in [(1, 7), (9, 13), (33, 12), (40, 9), (17, 1029)] {
        for first in [0, 1, 2, 3, 1 << 33, (1 << 33) + 77] {
            let rng = Rng::new(6, Stream::EvalAttack, 2);
            let values = uniform(7, n * features);
            let x = backend.random_start(n, features, eps, &rng, first, &backend.upload_batch(n, &values));
            let noise = |i: usize| eps * (2.0 * rng.uniform_at(first * features as u64 + i as u64) - 1.0);
            let want: Vec<f32> = (0..n * features).map(|i| (values[i] + noise(i)).clamp(0.0, 1.0)).collect();
            let what = format!("{n} x {features} from image {first}");
            assert_close(&what, &backend.download_batch(n, &x), &want, 0.0, f64::from(ULP));
        }
    }
}

pub fn random_start_of_parts<B: Backend>(backend: &B) {
    let (n, features, eps, first) = (21, 10, 0.3, 77);
    let rng = Rng::new(8, Stream::TrainAttack, 3);
    let clean = backend.upload_batch(n, &uniform(9, n * features));
    let whole = backend.random_start(n, features, eps, &rng, first, &clean);
    let parts = backend.map_parts(n, |range| {
        let part = backend.part(n, range.clone(), &clean);
        let x = backend.random_start(range.len(), features, eps, &rng, first + range.start as u64, &part);
        backend.download_batch(range.len(), &x)
    });
    assert_eq!(parts.concat(), backend.download_batch(n, &whole));
}
