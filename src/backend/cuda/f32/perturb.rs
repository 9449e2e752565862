//! Moves of the attacks beyond PGD.

use super::optim::Segment;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{AdamStep, ApgdMove, ApgdPoints, Constraint, Distance, FabStep, Perturb, Window};

kernels! { "f32/perturb":
    apgd_step(
        features: u32,
        eps: f32,
        momentum: f32,
        moves: &Device<ApgdMove>,
        clean: &Device<f32>,
        dx: &Device<f32>,
        x: &mut Device<f32>,
        previous: &mut Device<f32>,
        best: &mut Device<f32>,
        best_dx: &mut Device<f32>,
    );
    fab_step(
        features: u32,
        step: FabStep,
        values: &Device<f32>,
        clean: &Device<f32>,
        dx: &Device<f32>,
        x: &mut Device<f32>,
    );
    windows(
        features: u32,
        h: u32,
        w: u32,
        eps: f32,
        windows: &Device<Window>,
        clean: &Device<f32>,
        x: &Device<f32>,
        y: &mut Device<f32>,
    );
    copy_samples(features: u32, chosen: &Device<u32>, from: &Device<f32>, to: &mut Device<f32>);
    towards(features: u32, t: &Device<f32>, clean: &Device<f32>, x: &mut Device<f32>);
    distances(features: u32, euclidean: u32, a: &Device<f32>, b: &Device<f32>, y: &mut Device<f64>);
    tanh_space(n: u32, x: &Device<f32>, w: &mut Device<f32>);
    tanh_image(n: u32, w: &Device<f32>, x: &mut Device<f32>);
    tanh_image_bwd(n: u32, clean: &Device<f32>, x: &Device<f32>, dx: &Device<f32>, dw: &mut Device<f32>);
}

/// Pixels of each of `n` images, in batches of equal size.
fn features<const BATCHES: usize>(n: usize, batches: [&Device<f32>; BATCHES]) -> usize {
    let len = batches[0].len();
    assert!(n > 0 && len.is_multiple_of(n) && batches.iter().all(|batch| batch.len() == len));
    len / n
}

impl<P: Precision> Perturb for Cuda<P> {
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        moves: &[ApgdMove],
        clean: &P::Batch,
        dx: &P::Batch,
        points: ApgdPoints<'_, P::Batch>,
    ) {
        let clean = &*P::cast_f32(self, clean);
        let dx = &*P::cast_f32(self, dx);
        let ApgdPoints { x, previous, best, best_dx } = points;
        let [x, previous, best, best_dx] = [x, previous, best, best_dx].map(|point| P::f32_mut(self, point));
        let features = features(moves.len(), [clean, dx, x, previous, best, best_dx]);
        let (grid, moves) = (tuning::pixels(moves.len(), features), self.upload_slice(moves));
        // SAFETY: there is a row of blocks for each move, and all batches have `features` elements for each.
        unsafe {
            launch::apgd_step(
                self,
                grid,
                features as u32,
                eps,
                momentum,
                &moves,
                clean,
                dx,
                x,
                previous,
                best,
                best_dx,
            );
        }
    }

    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &P::Batch, dx: &P::Batch, x: &mut P::Batch) {
        let clean = &*P::cast_f32(self, clean);
        let dx = &*P::cast_f32(self, dx);
        let x = P::f32_mut(self, x);
        let features = features(values.len(), [clean, dx, x]) as u32;
        let (grid, values) = (tuning::whole_images(values.len()), self.upload_slice(values));
        // SAFETY: there is a block for each value, and all batches have `features` elements for each.
        unsafe { launch::fab_step(self, grid, features, *step, &values, clean, dx, x) };
    }

    fn windows(&self, shape: [usize; 3], eps: f32, windows: &[Window], clean: &P::Batch, x: &P::Batch) -> P::Batch {
        let clean = &*P::cast_f32(self, clean);
        let x = &*P::cast_f32(self, x);
        let [c, h, w] = shape;
        let features = features(windows.len(), [clean, x]);
        assert_eq!(features, c * h * w);
        let mut y = self.alloc(x.len());
        let (grid, windows) = (tuning::pixels(windows.len(), features), self.upload_slice(windows));
        // SAFETY: there is a row of blocks for each window, and all batches have `features` elements for each.
        unsafe {
            launch::windows(self, grid, features as u32, h as u32, w as u32, eps, &windows, clean, x, &mut y);
        }
        y.into()
    }

    fn copy_samples(&self, chosen: &[bool], from: &P::Batch, to: &mut P::Batch) {
        let from = &*P::cast_f32(self, from);
        let to = P::f32_mut(self, to);
        let features = features(chosen.len(), [from, to]);
        if chosen.contains(&true) {
            let flags: Vec<u32> = chosen.iter().map(|&chosen| u32::from(chosen)).collect();
            let (grid, flags) = (tuning::pixels(chosen.len(), features), self.upload_slice(&flags));
            // SAFETY: there is a row of blocks for each flag, and both batches have `features` elements for each.
            unsafe { launch::copy_samples(self, grid, features as u32, &flags, from, to) };
        }
    }

    fn towards(&self, t: &[f32], clean: &P::Batch, x: &mut P::Batch) {
        let clean = &*P::cast_f32(self, clean);
        let x = P::f32_mut(self, x);
        let features = features(t.len(), [clean, x]);
        let (grid, t) = (tuning::pixels(t.len(), features), self.upload_slice(t));
        // SAFETY: there is a row of blocks for each share, and both batches have `features` elements for each.
        unsafe { launch::towards(self, grid, features as u32, &t, clean, x) };
    }

    fn distances(&self, n: usize, distance: Distance, a: &P::Batch, b: &P::Batch) -> Vec<f64> {
        let a = &*P::cast_f32(self, a);
        let b = &*P::cast_f32(self, b);
        let (features, euclidean) = (features(n, [a, b]) as u32, u32::from(distance == Distance::L2));
        let mut y = self.alloc(n);
        // SAFETY: there is a block for each of `n` images, and both batches have `features` elements for each.
        unsafe { launch::distances(self, tuning::whole_images(n), features, euclidean, a, b, &mut y) };
        self.download_slice(&y)
    }

    fn tanh_space(&self, x: &P::Batch) -> P::Batch {
        let x = &*P::cast_f32(self, x);
        let mut w = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_space(self, tuning::elements(x.len(), 4), x.len() as u32, x, &mut w) };
        w.into()
    }

    fn tanh_image(&self, w: &P::Batch) -> P::Batch {
        let w = &*P::cast_f32(self, w);
        let mut x = self.alloc(w.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_image(self, tuning::elements(w.len(), 4), w.len() as u32, w, &mut x) };
        x.into()
    }

    fn adam_step_batch(&self, s: &AdamStep, g: &P::Batch, m: &mut P::Batch, v: &mut P::Batch, w: &mut P::Batch) {
        let g = &*P::cast_f32(self, g);
        let [m, v, w] = [m, v, w].map(|batch| P::f32_mut(self, batch));
        self.adam(s, &[Segment::of::<P::Buf>(&Constraint::Free, g, w, [Some(m), Some(v)])]);
    }

    fn tanh_image_bwd(&self, clean: &P::Batch, x: &P::Batch, dx: &P::Batch) -> P::Batch {
        let clean = &*P::cast_f32(self, clean);
        let x = &*P::cast_f32(self, x);
        let dx = &*P::cast_f32(self, dx);
        let n = features(1, [clean, x, dx]);
        let mut dw = self.alloc(n);
        // SAFETY: all four have n elements.
        unsafe { launch::tanh_image_bwd(self, tuning::elements(n, 4), n as u32, clean, x, dx, &mut dw) };
        dw.into()
    }
}
