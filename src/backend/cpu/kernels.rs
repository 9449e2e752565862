//! Which inner loops a float type has: any type the plain ones, f32 the fast ones where the processor has the vector
//! instructions.

use pulp::Arch;

use super::attack::SignStep;
use super::correlate::{Correlate, CorrelateWeight};
use super::norm::{Normalise, NormaliseBack};
use super::pool::{MaxPool, MaxPoolBack};
use super::sums::{Deviations, GradientSums, Sum};
use super::{LANES, Real, fast};

/// The inner loops.
pub trait Kernels: Sized {
    fn correlate(_: Arch, job: Correlate<'_, Self>)
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

    fn correlate_weight(arch: Arch, job: CorrelateWeight<'_, f32>) {
        match arch {
            Arch::Scalar => job.plain(),
            _ => arch.dispatch(fast::correlate_weight::Fast(job)),
        }
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
