//! Moves of the attacks beyond PGD.

use super::kernel::{Arg, Args, by_value, kernels};
use super::{Buf, Cuda, Device, tuning};
use crate::backend::{ApgdMove, ApgdPoints, Distance, FabStep, Perturb, Window};

kernels! { "perturb":
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
        c: u32,
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
    distances(features: u32, euclidean: u32, a: &Device<f32>, b: &Device<f32>, distances: &mut Device<f64>);
    tanh_space(n: u32, x: &Device<f32>, w: &mut Device<f32>);
    tanh_image(n: u32, w: &Device<f32>, x: &mut Device<f32>);
    tanh_image_bwd(n: u32, clean: &Device<f32>, x: &Device<f32>, dx: &Device<f32>, dw: &mut Device<f32>);
}

by_value!(FabStep);

/// Elements of an image of a batch of `n`.
fn features(n: usize, batch: &Buf, others: &[&Buf]) -> u32 {
    assert!(batch.len().is_multiple_of(n) && others.iter().all(|other| other.len() == batch.len()));
    (batch.len() / n) as u32
}

impl Perturb for Cuda {
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        moves: &[ApgdMove],
        clean: &Buf,
        dx: &Buf,
        points: ApgdPoints<'_, Buf>,
    ) {
        let ApgdPoints { x, previous, best, best_dx } = points;
        let (grid, features) =
            (tuning::samples(moves.len()), features(moves.len(), clean, &[dx, x, previous, best, best_dx]));
        let moves = self.upload_slice(moves);
        // SAFETY: there is a block and a move for each image, and all batches have `features` elements for each.
        unsafe {
            launch::apgd_step(self, grid, features, eps, momentum, &moves, clean, dx, x, previous, best, best_dx)
        };
    }

    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &Buf, dx: &Buf, x: &mut Buf) {
        let (grid, features) = (tuning::samples(values.len()), features(values.len(), clean, &[dx, x]));
        let values = self.upload_slice(values);
        // SAFETY: there is a block and a value for each image, and all batches have `features` elements for each.
        unsafe { launch::fab_step(self, grid, features, *step, &values, clean, dx, x) };
    }

    fn windows(&self, [c, h, w]: [usize; 3], eps: f32, windows: &[Window], clean: &Buf, x: &Buf) -> Buf {
        let grid = tuning::samples(windows.len());
        assert_eq!(features(windows.len(), clean, &[x]) as usize, c * h * w);
        let ([c, h, w], mut y) = ([c, h, w].map(|size| size as u32), self.alloc(x.len()));
        let windows = self.upload_slice(windows);
        // SAFETY: there is a block and a window for each image, and all batches have c × h × w elements for each.
        unsafe { launch::windows(self, grid, c, h, w, eps, &windows, clean, x, &mut y) };
        y
    }

    fn copy_samples(&self, chosen: &[bool], from: &Buf, to: &mut Buf) {
        let (grid, features) = (tuning::samples(chosen.len()), features(chosen.len(), from, &[to]));
        let chosen = self.upload_slice(&chosen.iter().map(|&chosen| u32::from(chosen)).collect::<Vec<_>>());
        // SAFETY: there is a block and a flag for each image, and both batches have `features` elements for each.
        unsafe { launch::copy_samples(self, grid, features, &chosen, from, to) };
    }

    fn towards(&self, t: &[f32], clean: &Buf, x: &mut Buf) {
        let (grid, features) = (tuning::samples(t.len()), features(t.len(), clean, &[x]));
        let t = self.upload_slice(t);
        // SAFETY: there is a block and a number for each image, and both batches have `features` elements for each.
        unsafe { launch::towards(self, grid, features, &t, clean, x) };
    }

    fn distances(&self, n: usize, distance: Distance, a: &Buf, b: &Buf) -> Vec<f64> {
        let (grid, features, mut distances) = (tuning::samples(n), features(n, a, &[b]), self.alloc(n));
        let euclidean = u32::from(distance == Distance::L2);
        // SAFETY: there is a block and a distance for each image, and both batches have `features` elements for each.
        unsafe { launch::distances(self, grid, features, euclidean, a, b, &mut distances) };
        self.download_slice(&distances)
    }

    fn tanh_space(&self, x: &Buf) -> Buf {
        let mut w = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_space(self, tuning::elements(x.len(), 1), x.len() as u32, x, &mut w) };
        w
    }

    fn tanh_image(&self, w: &Buf) -> Buf {
        let mut x = self.alloc(w.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_image(self, tuning::elements(w.len(), 1), w.len() as u32, w, &mut x) };
        x
    }

    fn tanh_image_bwd(&self, clean: &Buf, x: &Buf, dx: &Buf) -> Buf {
        assert!(clean.len() == x.len() && dx.len() == x.len());
        let mut dw = self.alloc(x.len());
        // SAFETY: all four have as many elements.
        unsafe {
            launch::tanh_image_bwd(self, tuning::elements(x.len(), 1), x.len() as u32, clean, x, dx, &mut dw);
        }
        dw
    }
}
