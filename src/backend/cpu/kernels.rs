//! Which inner loops a float type has: any type the plain ones, f32 the fast ones where the processor has the vector
//! instructions.

use pulp::Arch;

use super::attack::{RandomStart, SignStep};
use super::correlate::{Correlate, CorrelateWeight};
use super::correlate_pooled::CorrelatePooled;
use super::fast::{self, winograd::Conv3x3};
use super::loss::CrossEntropy;
use super::norm::{Normalise, NormaliseBack};
use super::pool::{MaxPool, MaxPoolBack};
use super::sums::{Deviations, GradientSums, Sum};
use super::{Buf, Cpu, LANES, Real};

/// Every job and its fast form, given to a macro that makes functions of them.
macro_rules! jobs {
    ($make:ident) => {
        $make! {
            correlate(Correlate) = fast::correlate::Fast;
            correlate_weight(CorrelateWeight) = fast::correlate_weight::Fast;
            max_pool(MaxPool) = fast::pool::Forward;
            max_pool_back(MaxPoolBack) = fast::pool::Backward;
            cross_entropy(CrossEntropy) -> f64 = fast::cross_entropy::Fast;
            random_start(RandomStart) = fast::random_start::Fast;
            sign_step(SignStep) -> [u32; LANES] = fast::sign_step::Fast;
            normalise(Normalise) = fast::norm::Forward;
            normalise_back(NormaliseBack) = fast::norm::Backward;
            sum(Sum) -> [Self; LANES] = fast::sums::FastSum;
            deviations(Deviations) -> [[Self; LANES]; 2] = fast::sums::FastDeviations;
            gradient_sums(GradientSums) -> [[Self; LANES]; 2] = fast::sums::FastGradientSums;
        }
    };
}

macro_rules! plain {
    ($($name:ident($job:ident) $(-> $output:ty)? = $fast:path;)+) => {
        $(fn $name(_: Arch, job: $job<'_, Self>) $(-> $output)?
        where
            Self: Real,
        {
            job.plain()
        })+
    };
}

macro_rules! fast {
    ($($name:ident($job:ident) $(-> $output:ty)? = $fast:path;)+) => {
        $(fn $name(arch: Arch, job: $job<'_, Self>) $(-> $output)? {
            match arch {
                Arch::Scalar => job.plain(),
                _ => arch.dispatch($fast(job)),
            }
        })+
    };
}

/// The inner loops.
pub trait Kernels: Sized {
    jobs! { plain }

    fn correlate_pooled(_: Arch, job: CorrelatePooled<'_, Self>)
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
}

impl Kernels for f64 {}

impl Kernels for f32 {
    jobs! { fast }

    /// Needs an instruction that pulp's own dispatch does not know of.
    fn correlate_pooled(arch: Arch, job: CorrelatePooled<'_, f32>) {
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) => simd.vectorize(fast::correlate_pooled::Fast(simd, job)),
            #[cfg(target_arch = "x86_64")]
            Arch::V3(simd) => simd.vectorize(fast::correlate_pooled::Fast(simd, job)),
            _ => job.plain(),
        }
    }

    fn conv3x3(cpu: &Cpu<f32>, conv: &Conv3x3<'_, f32>) -> Option<Buf<f32>> {
        fast::winograd::conv3x3(cpu, conv)
    }
}
