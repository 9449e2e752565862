//! The steps of PGD.

use super::lenet;
use super::loss::{Labels, Tally, TallyCounts};
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Buf, Cuda, Device, tuning};
use crate::backend::{Pgd, PgdParams, SequentialLayer};
use crate::base::rng::Rng;

kernels! { "f32/pgd":
    random_start(n: u32, first: u64, eps: f32, rng: Rng, clean: &Device<f32>, x: &mut Device<f32>);
    pgd_step(
        n: u32,
        eps: f32,
        step: f32,
        clean: &Device<f32>,
        dx: &Device<f32>,
        x: &mut Device<f32>,
        tally: &mut Device<TallyCounts>,
    );
}

impl Pgd for Cuda {
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &Buf) -> Buf {
        assert_eq!(clean.len(), n * features);
        let mut x = self.alloc(clean.len());
        let (len, element) = (clean.len() as u32, first * features as u64);
        // One block of random numbers more than there are quads of pixels, if the batch begins within one.
        let grid = tuning::elements(clean.len() + 3, 4);
        // SAFETY: both have `len` elements.
        unsafe { launch::random_start(self, grid, len, element, eps, *rng, clean, &mut x) };
        x
    }

    fn pgd_step(&self, n: usize, eps: f32, step: f32, clean: &Buf, dx: &Buf, x: &mut Buf, tally: &mut Tally) {
        assert!(x.len().is_multiple_of(n) && clean.len() == x.len() && dx.len() == x.len());
        let (grid, len) = (tuning::elements(x.len(), 4), x.len() as u32);
        // SAFETY: all three have `len` elements; the tally is one.
        unsafe { launch::pgd_step(self, grid, len, eps, step, clean, dx, x, &mut tally.0) };
    }

    fn fused_pgd(
        &self,
        network: &[SequentialLayer<'_, Buf>],
        params: &PgdParams<'_>,
        clean: &Buf,
        labels: &Labels,
        tally: &mut Tally,
    ) -> Option<Buf> {
        lenet::attack(self, network, params, clean, labels, tally)
    }
}
