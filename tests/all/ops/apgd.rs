//! The step of APGD, against plain loops in f64.

use engine::backend::cpu::Cpu;
use engine::backend::{ApgdPoints, ApgdStep, Backend};

use super::samples::{Batch, assert_same_bits, near, sign};
use crate::backends::{normal, on_every_backend};
use crate::compare::assert_close;

on_every_backend! { apgd_step }

/// CUDA alone.
mod bits {
    use super::agrees_with_the_cpu;
    crate::backends::on_cuda! { agrees_with_the_cpu }
}

/// Every combination of the flags, and several steps, 0 among them.
fn steps(n: usize) -> Vec<ApgdStep> {
    let flag = |set: usize| if set == 1 { 7 } else { 0 };
    let one =
        |i: usize| ApgdStep { step_size: 0.05 * (i % 5) as f32, improved: flag(i & 1), restart: flag(i >> 1 & 1) };
    // So that few images have some, too.
    (0..n).map(|i| one(i + n)).collect()
}

/// The four batches after a step of APGD: x, previous, best and best_dx.
fn apgd<B: Backend>(backend: &B, b: &Batch, eps: f32, steps: &[ApgdStep]) -> [Vec<f32>; 4] {
    let up = |values: &[f32]| b.up(backend, values);
    let (mut x, mut previous) = (up(&b.x), up(&near(&b.clean, 3)));
    let (mut best, mut best_dx) = (up(&near(&b.clean, 4)), up(&normal(5, b.dx.len())));
    let points = ApgdPoints { x: &mut x, previous: &mut previous, best: &mut best, best_dx: &mut best_dx };
    backend.apgd_step(eps, 0.75, steps, &up(&b.clean), &up(&b.dx), points);
    [x, previous, best, best_dx].map(|buf| backend.download_batch(b.n, &buf))
}

pub fn apgd_step<B: Backend>(backend: &B) {
    for b in Batch::all() {
        let (steps, eps) = (steps(b.n), 0.125);
        let previous = near(&b.clean, 3);
        let (old_best, old_best_dx) = (near(&b.clean, 4), normal(5, b.dx.len()));
        let best = b.each(|image, i| f64::from(if steps[image].improved != 0 { b.x[i] } else { old_best[i] }));
        let best_dx = b.each(|image, i| f64::from(if steps[image].improved != 0 { b.dx[i] } else { old_best_dx[i] }));
        let from = b.each(|image, i| if steps[image].restart != 0 { best[i] } else { f64::from(b.x[i]) });
        let x = b.each(|image, i| {
            let gradient = if steps[image].restart != 0 { best_dx[i] } else { f64::from(b.dx[i]) };
            let clean = f64::from(b.clean[i]);
            let project = |x: f64| x.clamp(clean - f64::from(eps), clean + f64::from(eps)).clamp(0.0, 1.0);
            let z = project(from[i] + f64::from(steps[image].step_size) * sign(gradient));
            project(from[i] + 0.75 * (z - from[i]) + 0.25 * (from[i] - f64::from(previous[i])))
        });
        let got = apgd(backend, &b, eps, &steps);
        assert_close(&format!("{}: x", b.what), &got[0], &x, 0.0, 3e-7);
        for (name, got, want) in
            [("previous", &got[1], &from), ("best", &got[2], &best), ("best_dx", &got[3], &best_dx)]
        {
            assert_close(&format!("{}: {name}", b.what), got, want, 0.0, 0.0);
        }
    }
}

pub fn agrees_with_the_cpu<B: Backend>(backend: &B) {
    let cpu = Cpu::<f32>::new(1).unwrap();
    for b in Batch::all() {
        // An eps that is rounded at every turn.
        let (steps, eps) = (steps(b.n), 8.0 / 255.0);
        let (got, want) = (apgd(backend, &b, eps, &steps), apgd(&cpu, &b, eps, &steps));
        assert_same_bits(&b.what, &got.concat(), &want.concat());
    }
}
