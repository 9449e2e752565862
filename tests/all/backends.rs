//! Stamps generic tests out, one copy per backend.

/// Makes a test of every function `fn name<B: Backend>(backend: &B)` of the surrounding module, for each backend. A new
/// backend is one more module in here.
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod cpu_f32 {
            $(#[test] fn $name() { super::$name(&engine::backend::cpu::Cpu::<f32>::new(2).unwrap()) })+
        }
        mod cpu_f32_portable {
            $(#[test] fn $name() { super::$name(&engine::backend::cpu::Cpu::<f32>::portable(1).unwrap()) })+
        }
        mod cpu_f64 {
            $(#[test] fn $name() { super::$name(&engine::backend::cpu::Cpu::<f64>::new(2).unwrap()) })+
        }
    };
}
pub(crate) use on_every_backend;

use engine::rng::{Rng, Stream};

/// `len` standard normal numbers, the same ones for the same `seed`.
pub fn normal(seed: u64, len: usize) -> Vec<f32> {
    let rng = Rng::new(seed, Stream::Init, 0);
    (0..len as u64).map(|e| rng.normal_at(e) as f32).collect()
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
