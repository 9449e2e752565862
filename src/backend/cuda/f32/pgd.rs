//! The steps of PGD.

use super::lenet;
use super::loss::{Labels, MetricsArg, MetricsBuf};
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
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
        metrics: &mut Device<MetricsArg>,
    );
}

impl<P: Precision> Pgd for Cuda<P> {
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &P::Batch) -> P::Batch {
        let clean = &*P::cast_f32(self, clean);
        assert_eq!(clean.len(), n * features);
        let mut x = self.alloc(clean.len());
        let (len, element) = (clean.len() as u32, first * features as u64);
        // One block of random numbers more than there are quads of pixels, if the batch begins within one.
        let grid = tuning::elements(clean.len() + 3, 4);
        // SAFETY: both have `len` elements.
        unsafe { launch::random_start(self, grid, len, element, eps, *rng, clean, &mut x) };
        x.into()
    }

    fn pgd_step(
        &self,
        n: usize,
        eps: f32,
        step: f32,
        clean: &P::Batch,
        dx: &P::Batch,
        x: &mut P::Batch,
        metrics: &mut MetricsBuf,
    ) {
        let (clean, dx, x) = (&*P::cast_f32(self, clean), &*P::cast_f32(self, dx), P::f32_mut(self, x));
        assert!(x.len().is_multiple_of(n) && clean.len() == x.len() && dx.len() == x.len());
        let (grid, len) = (tuning::elements(x.len(), 4), x.len() as u32);
        // SAFETY: all three have `len` elements; `metrics` has one.
        unsafe { launch::pgd_step(self, grid, len, eps, step, clean, dx, x, &mut metrics.0) };
    }

    fn fused_pgd(
        &self,
        network: &[SequentialLayer<'_, P::Buf>],
        params: &PgdParams<'_>,
        clean: &P::Batch,
        labels: &Labels,
        metrics: &mut MetricsBuf,
    ) -> Option<P::Batch> {
        lenet::attack(self, network, params, clean, labels, metrics)
    }
}
