//! Moves of the attacks beyond PGD, against plain loops in f64.

use engine::backend::cpu::Cpu;
use engine::backend::{ApgdMove, ApgdPoints, Backend, Distance, FabStep, Perturb, Window};

use crate::backends::{normal, on_every_backend, uniform};
use crate::compare::assert_close;

on_every_backend! {
    apgd_step, fab_step, fab_reaches_the_hyperplane, fab_without_a_gradient, windows, copy_samples, towards, distances,
    nan_is_a_distance, tanh_space,
}

/// CUDA alone.
mod bits {
    use super::agree_with_the_cpu;
    crate::backends::on_cuda! { agree_with_the_cpu }
}

const IMAGES: [usize; 4] = [1, 3, 17, 33];
/// Also sizes that are not a multiple of four, and ones for which a block of threads is too small.
const SHAPES: [[usize; 3]; 5] = [[1, 5, 5], [3, 7, 6], [1, 28, 28], [3, 20, 20], [1, 33, 33]];

/// Images, points near them, and gradients.
struct Batch {
    what: String,
    n: usize,
    shape: [usize; 3],
    features: usize,
    clean: Vec<f32>,
    x: Vec<f32>,
    dx: Vec<f32>,
}

impl Batch {
    fn new(n: usize, shape: [usize; 3]) -> Self {
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

    fn all() -> impl Iterator<Item = Batch> {
        SHAPES.into_iter().flat_map(|shape| IMAGES.map(|n| Batch::new(n, shape)))
    }

    fn up<B: Backend>(&self, backend: &B, values: &[f32]) -> B::Batch {
        backend.upload_batch(self.n, values)
    }

    /// The pixels of an image.
    fn of<'a, T>(&self, image: usize, values: &'a [T]) -> &'a [T] {
        &values[image * self.features..][..self.features]
    }

    /// What `f` makes of the pixels of each image.
    fn each(&self, f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        (0..self.n * self.features).map(|i| f(i / self.features, i)).collect()
    }
}

/// Points in [0, 1] not far from `clean`.
fn near(clean: &[f32], seed: u64) -> Vec<f32> {
    let moves = uniform(seed, clean.len());
    clean.iter().zip(moves).map(|(c, u)| (c + 0.2 * (2.0 * u - 1.0)).clamp(0.0, 1.0)).collect()
}

fn sign(x: f64) -> f64 {
    if x > 0.0 { 1.0 } else { -f64::from(x < 0.0) }
}

/// Every combination of the flags, and several steps, 0 among them.
fn moves(n: usize) -> Vec<ApgdMove> {
    let flag = |set: usize| if set == 1 { 7 } else { 0 };
    let one = |i: usize| ApgdMove { step: 0.05 * (i % 5) as f32, improved: flag(i & 1), restart: flag(i >> 1 & 1) };
    // So that few images have some, too.
    (0..n).map(|i| one(i + n)).collect()
}

/// The four batches after a step of APGD: x, previous, best and best_dx.
fn apgd<B: Backend>(backend: &B, b: &Batch, eps: f32, moves: &[ApgdMove]) -> [Vec<f32>; 4] {
    let up = |values: &[f32]| b.up(backend, values);
    let (mut x, mut previous) = (up(&b.x), up(&near(&b.clean, 3)));
    let (mut best, mut best_dx) = (up(&near(&b.clean, 4)), up(&normal(5, b.dx.len())));
    let points = ApgdPoints { x: &mut x, previous: &mut previous, best: &mut best, best_dx: &mut best_dx };
    backend.apgd_step(eps, 0.75, moves, &up(&b.clean), &up(&b.dx), points);
    [x, previous, best, best_dx].map(|buf| backend.download_batch(b.n, &buf))
}

pub fn apgd_step<B: Backend>(backend: &B) {
    for b in Batch::all() {
        let (moves, eps) = (moves(b.n), 0.125);
        let previous = near(&b.clean, 3);
        let (old_best, old_best_dx) = (near(&b.clean, 4), normal(5, b.dx.len()));
        let best = b.each(|image, i| f64::from(if moves[image].improved != 0 { b.x[i] } else { old_best[i] }));
        let best_dx = b.each(|image, i| f64::from(if moves[image].improved != 0 { b.dx[i] } else { old_best_dx[i] }));
        let from = b.each(|image, i| if moves[image].restart != 0 { best[i] } else { f64::from(b.x[i]) });
        let x = b.each(|image, i| {
            let gradient = if moves[image].restart != 0 { best_dx[i] } else { f64::from(b.dx[i]) };
            let clean = f64::from(b.clean[i]);
            let project = |x: f64| x.clamp(clean - f64::from(eps), clean + f64::from(eps)).clamp(0.0, 1.0);
            let z = project(from[i] + f64::from(moves[image].step) * sign(gradient));
            project(from[i] + 0.75 * (z - from[i]) + 0.25 * (from[i] - f64::from(previous[i])))
        });
        let got = apgd(backend, &b, eps, &moves);
        assert_close(&format!("{}: x", b.what), &got[0], &x, 0.0, 3e-7);
        for (name, got, want) in
            [("previous", &got[1], &from), ("best", &got[2], &best), ("best_dx", &got[3], &best_dx)]
        {
            assert_close(&format!("{}: {name}", b.what), got, want, 0.0, 0.0);
        }
    }
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

/// In every corner, none at all, as large as fits, within.
fn some_windows(n: usize, [_, h, w]: [usize; 3]) -> Vec<Window> {
    let (h, w) = (h as u32, w as u32);
    let kinds =
        [(0, 0, 2), (h - 3, w - 3, 3), (0, 0, 0), (0, w - 1, 1), (0, 0, h.min(w)), (h - 2, 0, 2), (1, 2, 3), (h, w, 0)];
    let one = |i: usize| {
        let (top, left, side) = kinds[(i + n) % kinds.len()];
        Window { top, left, side, up: i as u32 % 8 }
    };
    (0..n).map(one).collect()
}

fn windowed<B: Backend>(backend: &B, b: &Batch, eps: f32) -> Vec<f32> {
    let (clean, x) = (b.up(backend, &b.clean), b.up(backend, &b.x));
    let y = backend.windows(b.shape, eps, &some_windows(b.n, b.shape), &clean, &x);
    assert_eq!(backend.download_batch(b.n, &x), b.x, "{}: the input stays", b.what);
    backend.download_batch(b.n, &y)
}

pub fn windows<B: Backend>(backend: &B) {
    for b in Batch::all() {
        let ([_, h, w], eps) = (b.shape, 0.3);
        let windows = some_windows(b.n, b.shape);
        let want = b.each(|image, i| {
            let (i, window) = (i % b.features, windows[image]);
            let (channel, row, col) = (i / (h * w), (i / w % h) as u32, (i % w) as u32);
            let rows = window.top..window.top + window.side;
            let cols = window.left..window.left + window.side;
            let at = image * b.features + i;
            if !rows.contains(&row) || !cols.contains(&col) {
                return f64::from(b.x[at]);
            }
            let up = if window.up >> channel & 1 == 1 { 1.0 } else { -1.0 };
            (f64::from(b.clean[at]) + up * f64::from(eps)).clamp(0.0, 1.0)
        });
        let got = windowed(backend, &b, eps);
        assert_close(&b.what, &got, &want, 0.0, 1e-7);
        for image in (0..b.n).filter(|&image| windows[image].side == 0) {
            assert_eq!(b.of(image, &got), b.of(image, &b.x), "{}, image {image}: no window", b.what);
        }
    }
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

fn shares(n: usize) -> Vec<f32> {
    (0..n).map(|i| [1.0, 0.5, 0.0, 1.0 / 3.0, 1.25][(i + n) % 5]).collect()
}

fn moved_towards<B: Backend>(backend: &B, b: &Batch, t: &[f32]) -> Vec<f32> {
    let mut x = b.up(backend, &b.x);
    backend.towards(t, &b.up(backend, &b.clean), &mut x);
    backend.download_batch(b.n, &x)
}

pub fn towards<B: Backend>(backend: &B) {
    let mut rounded = 0;
    for b in Batch::all() {
        let t = shares(b.n);
        let got = moved_towards(backend, &b, &t);
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

pub fn tanh_space<B: Backend>(backend: &B) {
    let b = Batch::new(17, [3, 7, 6]);
    let (clean, x, dx) = (b.up(backend, &b.clean), b.up(backend, &b.x), b.up(backend, &b.dx));
    let w = backend.tanh_space(&x);
    let got = backend.download_batch(b.n, &w);
    // Towards 0 and 1 the variable grows without bounds, and with it what rounding the pixel does to it.
    let inner: Vec<usize> = (0..got.len()).filter(|&i| (0.01..0.99).contains(&b.x[i])).collect();
    let want: Vec<f64> = inner.iter().map(|&i| (0.999_999 * (2.0 * f64::from(b.x[i]) - 1.0)).atanh()).collect();
    assert_close("w", &inner.iter().map(|&i| got[i]).collect::<Vec<_>>(), &want, 2e-5, 0.0);
    let squashed: Vec<f64> = got.iter().map(|&w| f64::from(w).tanh()).collect();
    let want: Vec<f64> = b.x.iter().map(|&x| 0.999_999 * (2.0 * f64::from(x) - 1.0)).collect();
    assert_close("tanh(w)", &squashed, &want, 0.0, 5e-7);
    let back = backend.download_batch(b.n, &backend.tanh_image(&w));
    let want: Vec<f64> = got.iter().map(|&w| 0.5 * (f64::from(w).tanh() + 1.0)).collect();
    assert_close("x", &back, &want, 0.0, 2e-7);
    assert_close("there and back", &back, &b.x, 0.0, 1e-6);
    let got = backend.download_batch(b.n, &backend.tanh_image_bwd(&clean, &x, &dx));
    let want = b.each(|_, i| {
        let [clean, x, dx] = [b.clean[i], b.x[i], b.dx[i]].map(f64::from);
        2.0 * x * (1.0 - x) * (2.0 * (x - clean) + dx)
    });
    assert_close("dw", &got, &want, 1e-6, 0.0);
}

/// What is rounded as on the CPU ends in the CPU's bits.
pub fn agree_with_the_cpu<B: Backend>(backend: &B) {
    let cpu = Cpu::<f32>::new(1).unwrap();
    let same = |what: String, got: &[f32], want: &[f32]| {
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(got), bits(want), "{what}");
    };
    for b in Batch::all() {
        // An eps and a momentum that are rounded at every turn.
        let (moves, eps) = (moves(b.n), 8.0 / 255.0);
        let (got, want) = (apgd(backend, &b, eps, &moves), apgd(&cpu, &b, eps, &moves));
        same(format!("{}: apgd_step", b.what), &got.concat(), &want.concat());
        same(format!("{}: windows", b.what), &windowed(backend, &b, eps), &windowed(&cpu, &b, eps));
        for chosen in choices(b.n) {
            same(format!("{}: copy_samples", b.what), &copied(backend, &b, &chosen), &copied(&cpu, &b, &chosen));
        }
        let t = shares(b.n);
        same(format!("{}: towards", b.what), &moved_towards(backend, &b, &t), &moved_towards(&cpu, &b, &t));
        let largest = |values: Vec<f64>| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let got = backend.distances(b.n, Distance::LInf, &b.up(backend, &b.x), &b.up(backend, &b.clean));
        let want = cpu.distances(b.n, Distance::LInf, &b.up(&cpu, &b.x), &b.up(&cpu, &b.clean));
        assert_eq!(largest(got), largest(want), "{}: distances", b.what);
    }
}
