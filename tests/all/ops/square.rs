//! The proposals of the Square attack, against plain loops in f64.

use engine::backend::cpu::Cpu;
use engine::backend::{Backend, SquareUpdate};

use super::samples::{Batch, assert_same_bits};
use crate::backends::on_every_backend;
use crate::compare::assert_close;

on_every_backend! { square_update }

/// CUDA alone.
mod bits {
    use super::agrees_with_the_cpu;
    crate::backends::on_cuda! { agrees_with_the_cpu }
}

/// In every corner, none at all, as large as fits, within.
fn some_updates(n: usize, [_, h, w]: [usize; 3]) -> Vec<SquareUpdate> {
    let (h, w) = (h as u32, w as u32);
    let kinds =
        [(0, 0, 2), (h - 3, w - 3, 3), (0, 0, 0), (0, w - 1, 1), (0, 0, h.min(w)), (h - 2, 0, 2), (1, 2, 3), (h, w, 0)];
    let one = |i: usize| {
        let (top, left, side) = kinds[(i + n) % kinds.len()];
        SquareUpdate { top, left, side, up: i as u32 % 8 }
    };
    (0..n).map(one).collect()
}

fn updated<B: Backend>(backend: &B, b: &Batch, eps: f32) -> Vec<f32> {
    let (clean, x) = (b.up(backend, &b.clean), b.up(backend, &b.x));
    let y = backend.square_update(b.shape, eps, &some_updates(b.n, b.shape), &clean, &x);
    assert_eq!(backend.download_batch(b.n, &x), b.x, "{}: the input stays", b.what);
    backend.download_batch(b.n, &y)
}

pub fn square_update<B: Backend>(backend: &B) {
    for b in Batch::all() {
        let ([_, h, w], eps) = (b.shape, 0.3);
        let updates = some_updates(b.n, b.shape);
        let want = b.each(|image, i| {
            let (i, update) = (i % b.features, updates[image]);
            let (channel, row, col) = (i / (h * w), (i / w % h) as u32, (i % w) as u32);
            let rows = update.top..update.top + update.side;
            let cols = update.left..update.left + update.side;
            let at = image * b.features + i;
            if !rows.contains(&row) || !cols.contains(&col) {
                return f64::from(b.x[at]);
            }
            let up = if update.up >> channel & 1 == 1 { 1.0 } else { -1.0 };
            (f64::from(b.clean[at]) + up * f64::from(eps)).clamp(0.0, 1.0)
        });
        let got = updated(backend, &b, eps);
        assert_close(&b.what, &got, &want, 0.0, 1e-7);
        for image in (0..b.n).filter(|&image| updates[image].side == 0) {
            assert_eq!(b.of(image, &got), b.of(image, &b.x), "{}, image {image}: no update", b.what);
        }
    }
}

pub fn agrees_with_the_cpu<B: Backend>(backend: &B) {
    let cpu = Cpu::<f32>::new(1).unwrap();
    for b in Batch::all() {
        let eps = 8.0 / 255.0;
        assert_same_bits(&b.what, &updated(backend, &b, eps), &updated(&cpu, &b, eps));
    }
}
