//! Stamps generic tests out, one copy per backend.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use engine::backend::cpu::{Cpu, VectorPath};
use engine::backend::cuda;
use engine::backend::cuda::{Bf16, Cuda, F32};
use engine::backend::{Activated, Activation, Memory};

use crate::skip::{Missing, or_skip, skip};

/// Makes a test of every function `fn name<B: Backend>(backend: &B)` of the surrounding module, for each backend. A new
/// backend is one more module in here.
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod cpu_f32 {
            $(#[test] fn $name() { super::$name(&engine::backend::cpu::Cpu::<f32>::new(2).unwrap()) })+
        }
        mod cpu_f32_avx2 {
            $(#[test] fn $name() { $crate::backends::on_path(VectorPath::Avx2, super::$name) })+
            use engine::backend::cpu::VectorPath;
        }
        mod cpu_f32_portable {
            $(#[test] fn $name() { $crate::backends::on_path(VectorPath::Portable, super::$name) })+
            use engine::backend::cpu::VectorPath;
        }
        mod cpu_f64 {
            $(#[test] fn $name() { super::$name(&engine::backend::cpu::Cpu::<f64>::new(2).unwrap()) })+
        }
        $crate::backends::on_cuda! { $($name),+ }
    };
}
pub(crate) use on_every_backend;

/// The same for the CUDA kernels alone: compiled for the host, and on a GPU.
macro_rules! on_cuda {
    ($($name:ident),+ $(,)?) => {
        mod cuda_host {
            $(#[test] fn $name() { $crate::cuda::tested::on_host($crate::cuda_host::backend(), super::$name) })+
        }
        mod cuda {
            $(#[test] fn $name() { $crate::backends::on($crate::backends::gpu(), super::$name) })+
        }
    };
}
pub(crate) use on_cuda;

/// The same for the CUDA kernels in bf16.
macro_rules! on_bf16 {
    ($($name:ident),+ $(,)?) => {
        mod cuda_host {
            $(#[test] fn $name() { $crate::cuda::tested::on_host($crate::cuda_host::bf16(), super::$name) })+
        }
        mod cuda {
            $(#[test] fn $name() { $crate::backends::on($crate::backends::gpu_in_bf16(), super::$name) })+
        }
    };
}
pub(crate) use on_bf16;

/// Runs a test on the CPU with these vector instructions, if the processor has them. (`cpu_f32` uses the widest.)
pub fn on_path(path: VectorPath, test: impl FnOnce(&Cpu<f32>)) {
    if VectorPath::available().contains(&path) {
        test(&Cpu::with_path(1, path).unwrap());
    } else {
        skip(Missing::Processor, &format!("this processor has no {path}"));
    }
}

/// Runs a test on a device, if there is one. What went wrong on the device explains a failure best, so it comes first.
pub fn on<B: Memory>(device: Option<B>, test: impl FnOnce(&B)) {
    let Some(device) = device else { return };
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&device)));
    device.synchronize();
    if let Err(error) = device.status() {
        panic!("{error}");
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}

/// The GPU, or `None` where there is none.
pub fn gpu() -> Option<Cuda<F32>> {
    gpu_is_there().then(|| Cuda::<F32>::new().unwrap())
}

/// The same in bf16.
pub fn gpu_in_bf16() -> Option<Cuda<Bf16>> {
    gpu_is_there().then(|| Cuda::<Bf16>::new().unwrap())
}

fn gpu_is_there() -> bool {
    or_skip(Missing::Gpu, cuda::gpu()).is_some()
}

use engine::base::rng::{Rng, Stream};

/// `len` standard normal numbers, the same ones for the same `seed`.
pub fn normal(seed: u64, len: usize) -> Vec<f32> {
    let rng = Rng::new(seed, Stream::Init, 0);
    (0..len as u64).map(|e| rng.normal_at(e) as f32).collect()
}

/// Normal numbers of a batch whose scale drifts along every axis and whose mean goes from below zero to above it along images, rows
/// and columns: a sum or a variance that leaves out a part of them is off by far more than rounding.
pub fn drifting(seed: u64, [n, c, h, w]: [usize; 4]) -> Vec<f32> {
    // From -1 to 1; 0 of a single one.
    let along = |at: usize, len: usize| (2 * at + 1) as f32 / len as f32 - 1.0;
    let value = |(i, x): (usize, f32)| {
        let [image, row, col] = [along(i / (c * h * w), n), along(i / w % h, h), along(i % w, w)];
        (1.0 + 0.5 * along(i / (h * w) % c, c) + 0.25 * (image + row)) * x + image + 0.5 * row - 0.25 * col
    };
    normal(seed, n * c * h * w).into_iter().enumerate().map(value).collect()
}

/// `len` uniform numbers in [0, 1), the same ones for the same `seed`.
pub fn uniform(seed: u64, len: usize) -> Vec<f32> {
    let rng = Rng::new(seed, Stream::Init, 0);
    (0..len as u64).map(|e| rng.uniform_at(e)).collect()
}

/// `n` labels below `classes`, the same ones for the same `seed`.
pub fn labels(seed: u64, n: usize, classes: u32) -> Vec<u8> {
    let rng = Rng::new(seed, Stream::Init, 1);
    (0..n as u64).map(|e| rng.below_at(e, classes) as u8).collect()
}

/// ReLU or nothing.
pub fn relu_if(relu: bool) -> Activation {
    if relu { Activation::Relu } else { Activation::Identity }
}

/// `y` as the output of a ReLU.
pub fn relu_output<Y>(y: &Y) -> Activated<'_, Y> {
    Activated { activation: Activation::Relu, y }
}
