//! Which inner loops a float type has: any type the plain ones, f32 the fast ones where the processor has the vector
//! instructions.

use pulp::Arch;

use super::attack::{RandomStart, SignStep};
use super::correlate::{Correlate, CorrelateWeight};
use super::correlate_pooled::CorrelatePooled;
use super::fast::winograd::{Conv3x3, conv3x3};
use super::loss::CrossEntropy;
use super::norm::{Normalise, NormaliseBack};
use super::pool::{MaxPool, MaxPoolBack};
use super::sums::{Deviations, GradientSums, Sum};
use super::{Buf, Cpu, LANES, Real, fast};

/// The inner loops.
pub trait Kernels: Sized {
    fn correlate(_: Arch, job: Correlate<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    fn correlate_pooled(_: Arch, job: CorrelatePooled<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    fn correlate_weight(_: Arch, job: CorrelateWeight<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    /// A shorter way than [`Kernels::correlate`] for the same result, where there is one.
    fn conv3x3(_: &Cpu<Self>, _: &Conv3x3<'_, Self>) -> Option<Buf<Self>>
    where
        Self: Real,
    {
        None
    }

    fn max_pool(_: Arch, job: MaxPool<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    fn max_pool_back(_: Arch, job: MaxPoolBack<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    fn cross_entropy(_: Arch, job: CrossEntropy<'_, Self>) -> f64
    where
        Self: Real,
    {
        job.plain()
    }

    fn random_start(_: Arch, job: RandomStart<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    fn sign_step(_: Arch, job: SignStep<'_, Self>) -> [u32; LANES]
    where
        Self: Real,
    {
        job.plain()
    }

    fn normalise(_: Arch, job: Normalise<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    fn normalise_back(_: Arch, job: NormaliseBack<'_, Self>)
    where
        Self: Real,
    {
        job.plain();
    }

    fn sum(_: Arch, job: Sum<'_, Self>) -> [Self; LANES]
    where
        Self: Real,
    {
        job.plain()
    }

    fn deviations(_: Arch, job: Deviations<'_, Self>) -> [[Self; LANES]; 2]
    where
        Self: Real,
    {
        job.plain()
    }

    fn gradient_sums(_: Arch, job: GradientSums<'_, Self>) -> [[Self; LANES]; 2]
    where
        Self: Real,
    {
        job.plain()
    }
}

impl Kernels for f64 {}

impl Kernels for f32 {
    fn correlate(arch: Arch, job: Correlate<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::correlate::Fast(job)),
        }
    }

    fn correlate_pooled(arch: Arch, job: CorrelatePooled<'_, f32>) {
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) => simd.vectorize(fast::correlate_pooled::Fast(simd, job)),
            #[cfg(target_arch = "x86_64")]
            Arch::V3(simd) => simd.vectorize(fast::correlate_pooled::Fast(simd, job)),
            _ => job.plain(),
        }
    }

    fn correlate_weight(arch: Arch, job: CorrelateWeight<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::correlate_weight::Fast(job)),
        }
    }

    fn conv3x3(cpu: &Cpu<f32>, conv: &Conv3x3<'_, f32>) -> Option<Buf<f32>> {
        conv3x3(cpu, conv)
    }

    fn max_pool(arch: Arch, job: MaxPool<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::pool::Forward(job)),
        }
    }

    fn max_pool_back(arch: Arch, job: MaxPoolBack<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::pool::Backward(job)),
        }
    }

    fn cross_entropy(arch: Arch, job: CrossEntropy<'_, f32>) -> f64 {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::cross_entropy::Fast(job)),
        }
    }

    fn random_start(arch: Arch, job: RandomStart<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ if !job.x.len().is_multiple_of(4) => job.plain(),
            _ => arch.dispatch(fast::random_start::Fast(job)),
        }
    }

    fn sign_step(arch: Arch, job: SignStep<'_, f32>) -> [u32; LANES] {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::sign_step::Fast(job)),
        }
    }

    fn normalise(arch: Arch, job: Normalise<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::norm::Forward(job)),
        }
    }

    fn normalise_back(arch: Arch, job: NormaliseBack<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::norm::Backward(job)),
        }
    }

    fn sum(arch: Arch, job: Sum<'_, f32>) -> [f32; LANES] {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::sums::FastSum(job)),
        }
    }

    fn deviations(arch: Arch, job: Deviations<'_, f32>) -> [[f32; LANES]; 2] {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::sums::FastDeviations(job)),
        }
    }

    fn gradient_sums(arch: Arch, job: GradientSums<'_, f32>) -> [[f32; LANES]; 2] {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::sums::FastGradientSums(job)),
        }
    }
}
