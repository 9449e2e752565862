//! Which form of a job a float type takes: f32 the one on vector registers where the processor has them, else the plain one.

use pulp::Arch;

use super::jobs::*;
use super::layout::LANES;
use super::layout::element::Element;
use super::simd::Permuting;

/// Every job that has both forms and that pulp's own dispatch can run, given to a macro that makes functions of them.
macro_rules! jobs {
    ($make:ident) => {
        $make! {
            correlate(Correlate);
            gemm(Gemm);
            conv2d_bwd_weight(Conv2dBwdWeight);
            conv2d_pool_fwd(Conv2dPoolFwd);
            max_pool2d_fwd(MaxPool2dFwd);
            max_pool2d_bwd(MaxPool2dBwd);
            cross_entropy(CrossEntropy) -> f64;
            random_start(RandomStart);
            pgd_step(PgdStep) -> [u32; LANES];
            batch_norm_fwd(BatchNormFwd);
            batch_norm_bwd(BatchNormBwd);
            sum(Sum) -> [Self; LANES];
            deviations(Deviations) -> [[Self; LANES]; 2];
            gradient_sums(GradientSums) -> [[Self; LANES]; 2];
        }
    };
}

macro_rules! plain {
    ($($name:ident($job:ident) $(-> $output:ty)?;)+) => {
        $(fn $name(_: Arch, job: $job<'_, Self>) $(-> $output)? {
            job.plain()
        })+
    };
}

macro_rules! simd {
    ($($name:ident($job:ident) $(-> $output:ty)?;)+) => {
        $(fn $name(arch: Arch, job: $job<'_, Self>) $(-> $output)? {
            match arch {
                Arch::Scalar => job.plain(),
                _ => arch.dispatch(job),
            }
        })+
    };
}

/// `f32` or `f64`: what the CPU backend computes in.
pub trait Real: Element {
    jobs! { plain }

    fn conv2d_pool_bwd_input(_: Arch, job: Conv2dPoolBwdInput<'_, Self>) {
        job.plain();
    }

    /// Winograd's convolution, where it is faster than the direct one.
    fn winograd(_: Arch) -> Option<Winograd<Self>> {
        None
    }
}

/// The jobs of Winograd's convolution.
pub struct Winograd<T> {
    pub filters: fn(Arch, WinogradFilters<'_, T>),
    pub strips: fn(Arch, WinogradStrips<'_, T>),
}

impl Real for f64 {}

impl Real for f32 {
    jobs! { simd }

    /// Needs an instruction that pulp's own dispatch does not know of.
    fn conv2d_pool_bwd_input(arch: Arch, job: Conv2dPoolBwdInput<'_, f32>) {
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) => simd.vectorize(Permuting(simd, job)),
            #[cfg(target_arch = "x86_64")]
            Arch::V3(simd) => simd.vectorize(Permuting(simd, job)),
            _ => job.plain(),
        }
    }

    fn winograd(arch: Arch) -> Option<Winograd<f32>> {
        let vector = !matches!(arch, Arch::Scalar);
        vector.then_some(Winograd { filters: |arch, job| arch.dispatch(job), strips: |arch, job| arch.dispatch(job) })
    }
}
