//! Ops on single images of a batch, against plain loops in f64; and the batches on which the attacks' steps are tested.

use engine::backend::cpu::Cpu;
use engine::backend::{Backend, Distance, Samples};

use crate::backends::{normal, on_every_backend, uniform};
use crate::compare::{assert_close, bits};

on_every_backend! { copy_samples, distances, nan_is_a_distance }

/// CUDA alone.
mod bits {
    use super::agree_with_the_cpu;
    crate::backends::on_cuda! { agree_with_the_cpu }
}

pub(super) const IMAGES: [usize; 4] = [1, 3, 17, 33];
/// Also sizes that are not a multiple of four, and ones for which a block of threads is too small.
const SHAPES: [[usize; 3]; 5] = [[1, 5, 5], [3, 7, 6], [1, 28, 28], [3, 20, 20], [1, 33, 33]];

/// Images, points near them, and gradients.
pub(super) struct Batch {
    pub what: String,
    pub n: usize,
    pub shape: [usize; 3],
    pub features: usize,
    pub clean: Vec<f32>,
    pub x: Vec<f32>,
    pub dx: Vec<f32>,
}

impl Batch {
    pub fn new(n: usize, shape: [usize; 3]) -> Self {
        let features = shape.iter().product();
        let (mut clean, mut dx) = (uniform(n as u64, n * features), normal(1, n * features));
        for (i, clean) in clean.iter_mut().enumerate() {
            match i % 7 {
                0 => *clean = 0.0,
                3 => *clean = 1.0,
                _ => {}
            }
        }
        // Some so small that they round in a sum with `clean`.
        let mut x = near(&clean, 2);
        x.iter_mut().skip(4).step_by(13).for_each(|x| *x *= 1e-3);
        for (i, dx) in dx.iter_mut().enumerate() {
            match i % 11 {
                2 => *dx = 0.0,
                5 => *dx = -0.0,
                8 => *dx *= 1e-6,
                _ => {}
            }
        }
        // An image without any gradient.
        if n > 2 {
            dx[2 * features..3 * features].fill(0.0);
        }
        Batch { what: format!("{n} images of {shape:?}"), n, shape, features, clean, x, dx }
    }

    pub fn all() -> impl Iterator<Item = Batch> {
        SHAPES.into_iter().flat_map(|shape| IMAGES.map(|n| Batch::new(n, shape)))
    }

    pub fn up<B: Backend>(&self, backend: &B, values: &[f32]) -> B::Batch {
        backend.upload_batch(self.n, values)
    }

    /// The pixels of an image.
    pub fn of<'a, T>(&self, image: usize, values: &'a [T]) -> &'a [T] {
        &values[image * self.features..][..self.features]
    }

    /// What `f` makes of the pixels of each image.
    pub fn each(&self, f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        (0..self.n * self.features).map(|i| f(i / self.features, i)).collect()
    }
}

/// Points in [0, 1] not far from `clean`.
pub(super) fn near(clean: &[f32], seed: u64) -> Vec<f32> {
    let moves = uniform(seed, clean.len());
    clean.iter().zip(moves).map(|(c, u)| (c + 0.2 * (2.0 * u - 1.0)).clamp(0.0, 1.0)).collect()
}

pub(super) fn sign(x: f64) -> f64 {
    if x > 0.0 { 1.0 } else { -f64::from(x < 0.0) }
}

/// Fails where the bits of `got` and `want` differ.
pub(super) fn assert_same_bits(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(bits(got), bits(want), "{what}");
}

/// Which images, in several patterns.
fn choices(n: usize) -> [Vec<bool>; 4] {
    [|_, _| false, |_, _| true, |i, _| i % 3 == 1, |i, n| i + 1 == n]
        .map(|choose: fn(usize, usize) -> bool| (0..n).map(|i| choose(i, n)).collect())
}

fn copied<B: Backend>(backend: &B, b: &Batch, chosen: &[bool]) -> Vec<f32> {
    let mut to = b.up(backend, &b.x);
    backend.copy_samples(chosen, &b.up(backend, &b.dx), &mut to);
    backend.download_batch(b.n, &to)
}

pub fn copy_samples<B: Backend>(backend: &B) {
    for b in Batch::all() {
        for chosen in choices(b.n) {
            let want = b.each(|image, i| f64::from(if chosen[image] { b.dx[i] } else { b.x[i] }));
            assert_close(&format!("{}: {chosen:?}", b.what), &copied(backend, &b, &chosen), &want, 0.0, 0.0);
        }
    }
}

pub fn distances<B: Backend>(backend: &B) {
    for b in Batch::all() {
        let (x, clean) = (b.up(backend, &b.x), b.up(backend, &b.clean));
        let differences: Vec<f64> = b.each(|_, i| f64::from(b.x[i]) - f64::from(b.clean[i]));
        let of = |f: &dyn Fn(&[f64]) -> f64| (0..b.n).map(|image| f(b.of(image, &differences))).collect::<Vec<_>>();
        let largest = of(&|d| d.iter().fold(0.0, |most, d| d.abs().max(most)));
        let euclidean = of(&|d| d.iter().map(|d| d * d).sum::<f64>().sqrt());
        for (distance, want) in [(Distance::LInf, largest), (Distance::L2, euclidean)] {
            let what = format!("{}: {distance:?}", b.what);
            assert_close(&what, &backend.distances(b.n, distance, &x, &clean), &want, 1e-6, 0.0);
            assert_eq!(backend.distances(b.n, distance, &x, &x), vec![0.0; b.n], "{what}: of itself");
        }
    }
}

/// Of the image that has one, wherever it is.
pub fn nan_is_a_distance<B: Backend>(backend: &B) {
    for n in IMAGES {
        for shape in [[1, 5, 5], [1, 28, 28]] {
            let b = Batch::new(n, shape);
            let clean = b.up(backend, &b.clean);
            for (image, pixel) in [(0, 0), (n - 1, b.features - 1), (n / 2, b.features / 2)] {
                let mut x = b.x.clone();
                x[image * b.features + pixel] = f32::NAN;
                let x = b.up(backend, &x);
                for distance in [Distance::LInf, Distance::L2] {
                    let got = backend.distances(n, distance, &x, &clean);
                    let nan: Vec<bool> = got.iter().map(|d| d.is_nan()).collect();
                    let want: Vec<bool> = (0..n).map(|i| i == image).collect();
                    assert_eq!(nan, want, "{}: {distance:?} with NaN in pixel {pixel} of image {image}", b.what);
                }
            }
        }
    }
}

pub fn agree_with_the_cpu<B: Backend>(backend: &B) {
    let cpu = Cpu::<f32>::new(1).unwrap();
    for b in Batch::all() {
        for chosen in choices(b.n) {
            let what = format!("{}: copy_samples", b.what);
            assert_same_bits(&what, &copied(backend, &b, &chosen), &copied(&cpu, &b, &chosen));
        }
        let largest = |values: Vec<f64>| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let got = backend.distances(b.n, Distance::LInf, &b.up(backend, &b.x), &b.up(backend, &b.clean));
        let want = cpu.distances(b.n, Distance::LInf, &b.up(&cpu, &b.x), &b.up(&cpu, &b.clean));
        assert_eq!(largest(got), largest(want), "{}: distances", b.what);
    }
}
