//! The attack's own steps and the gathering of batches, against plain loops.

use engine::backend::{Backend, CropFlip};
use engine::rng::{Rng, Stream};

use crate::backends::{normal, on_every_backend, uniform};
use crate::compare::assert_close;

on_every_backend! {
    pgd_step, pgd_stays_in_the_ball, pgd_projects_before_it_clamps, random_start, random_start_of_parts, gather,
    gather_crops_and_flips,
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
    let mut tally = backend.tally();
    backend.pgd_step(n, eps, step, &clean, &backend.upload_batch(n, &dx), &mut x, &mut tally);
    assert_close("x", &backend.download_batch(n, &x), &want, 0.0, f64::from(ULP));
    let counts = backend.tally_read(&tally);
    assert_eq!((counts.gradients, counts.zero_gradients), (63, 3));
    backend.pgd_step(n, eps, step, &clean, &backend.upload_batch(n, &[0.0; 63]), &mut x, &mut tally);
    let counts = backend.tally_read(&tally);
    assert_eq!((counts.gradients, counts.zero_gradients), (126, 66), "counters add up");
    assert_close("x without a gradient", &backend.download_batch(n, &x), &want, 0.0, f64::from(ULP));
}

pub fn pgd_stays_in_the_ball<B: Backend>(backend: &B) {
    let (n, features) = (10, 33);
    for (eps, step) in [(0.3, 0.1), (8.0 / 255.0, 2.0 / 255.0), (0.0, 0.1), (1.0, 5.0)] {
        let values = uniform(4, n * features);
        let clean = backend.upload_batch(n, &values);
        let rng = Rng::new(5, Stream::TrainAttack, 0);
        let mut x = backend.random_start(n, features, eps, &rng, 0, &clean);
        let mut tally = backend.tally();
        for round in 0..20 {
            for (at, clean) in backend.download_batch(n, &x).iter().zip(&values) {
                assert!((at - clean).abs() <= eps + ULP, "eps {eps}, step {round}: {at} is too far from {clean}");
                assert!((0.0..=1.0).contains(at), "eps {eps}, step {round}: {at}");
            }
            let dx = backend.upload_batch(n, &normal(100 + round, n * features));
            backend.pgd_step(n, eps, step, &clean, &dx, &mut x, &mut tally);
        }
    }
}

/// Of clean values outside of [0, 1], on which the two orders differ.
pub fn pgd_projects_before_it_clamps<B: Backend>(backend: &B) {
    let clean = backend.upload_batch(1, &[1.5, -0.5, 0.5]);
    let mut x = backend.upload_batch(1, &[0.5, 0.5, 0.5]);
    let dx = backend.upload_batch(1, &[-1.0, 1.0, 1.0]);
    backend.pgd_step(1, 0.25, 0.5, &clean, &dx, &mut x, &mut backend.tally());
    assert_eq!(backend.download_batch(1, &x), [1.0, 0.0, 0.75]);
}

pub fn random_start<B: Backend>(backend: &B) {
    let (n, features, eps, first) = (9, 13, 0.3, 1 << 33);
    let rng = Rng::new(6, Stream::EvalAttack, 2);
    let values = uniform(7, n * features);
    let x = backend.random_start(n, features, eps, &rng, first, &backend.upload_batch(n, &values));
    let want: Vec<f32> = (0..n * features)
        .map(|i| (values[i] + eps * (2.0 * rng.uniform_at(first * features as u64 + i as u64) - 1.0)).clamp(0.0, 1.0))
        .collect();
    assert_close("start", &backend.download_batch(n, &x), &want, 0.0, f64::from(ULP));
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

const SHAPE: [usize; 3] = [2, 5, 6];
const IMAGES: usize = 12;
const INDICES: [u32; 9] = [11, 0, 3, 3, 7, 1, 10, 2, 5];

fn bytes() -> Vec<u8> {
    uniform(10, IMAGES * 60).iter().map(|u| (256.0 * u) as u8).collect()
}

pub fn gather<B: Backend>(backend: &B) {
    let bytes = bytes();
    let batch = backend.gather(&backend.resident(SHAPE, &bytes), &INDICES, None);
    let want: Vec<f32> = INDICES
        .iter()
        .flat_map(|&i| bytes[i as usize * 60..][..60].iter().map(|&byte| f32::from(byte) / 255.0))
        .collect();
    assert_eq!(backend.download_batch(INDICES.len(), &batch), want);
}

pub fn gather_crops_and_flips<B: Backend>(backend: &B) {
    let bytes = bytes();
    let [channels, h, w] = SHAPE;
    let augment = CropFlip { rng: Rng::new(11, Stream::Augment, 4), pad: 2 };
    let batch = backend.gather(&backend.resident(SHAPE, &bytes), &INDICES, Some(&augment));
    let mut want = Vec::new();
    let mut seen = (0, 0);
    for (position, &index) in INDICES.iter().enumerate() {
        let (top, left, flip) = augment.of(position);
        seen = (seen.0 + usize::from(flip), seen.1 + usize::from((top, left) != (2, 2)));
        for i in 0..channels * h * w {
            let (channel, row, col) = (i / (h * w), i / w % h, i % w);
            // In the padded image, then in the image itself.
            let (row, col) = (row + top, left + if flip { w - 1 - col } else { col });
            let inside = (2..h + 2).contains(&row) && (2..w + 2).contains(&col);
            let at = |row: usize, col: usize| bytes[((index as usize * channels + channel) * h + row) * w + col];
            want.push(if inside { f32::from(at(row - 2, col - 2)) / 255.0 } else { 0.0 });
        }
    }
    assert!((1..INDICES.len()).contains(&seen.0) && seen.1 > 4, "the draw has flips, no flips and crops: {seen:?}");
    assert_eq!(backend.download_batch(INDICES.len(), &batch), want);
}
