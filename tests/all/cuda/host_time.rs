//! What the host does for a step, measured with a device on which nothing happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::backend::Backend;
use engine::backend::cuda::runtime::driver::{AllocError, Call, Driver, DriverResult, Function, Graph, HandedOut};
use engine::backend::cuda::{Bf16, Cuda, F32, Submission};
use engine::nn::models::Network;

use super::spy::Training;

/// A device on which nothing happens.
struct Idle(AtomicUsize);

struct IdleGraph;

impl Driver for Idle {
    fn function(&self, _name: &str) -> DriverResult<Function> {
        Ok(Function(0))
    }

    fn shared_memory(&self) -> u32 {
        227 << 10
    }

    fn param_sizes(&self, _function: Function) -> DriverResult<Option<Vec<usize>>> {
        Ok(None)
    }

    unsafe fn launch(&self, _call: &mut Call<'_>) -> DriverResult<()> {
        Ok(())
    }

    unsafe fn graph(&self, _calls: &mut [Call<'_>]) -> DriverResult<Box<dyn Graph>> {
        Ok(Box::new(IdleGraph))
    }

    fn alloc(&self, bytes: usize) -> Result<u64, AllocError> {
        Ok(self.0.fetch_add(bytes, Ordering::Relaxed) as u64)
    }

    unsafe fn free(&self, _address: u64) {}

    fn handed_out(&self, _what: HandedOut) {}

    fn memory(&self) -> DriverResult<(usize, usize)> {
        Ok((1 << 40, 1 << 40))
    }

    unsafe fn upload(&self, _to: u64, _source: &[u8]) -> DriverResult<()> {
        Ok(())
    }

    unsafe fn download(&self, _from: u64, target: &mut [u8]) -> DriverResult<()> {
        target.fill(0);
        Ok(())
    }

    fn synchronize(&self) -> DriverResult<()> {
        Ok(())
    }
}

impl Graph for IdleGraph {
    unsafe fn set_args(&mut self, _index: usize, _call: &mut Call<'_>) -> DriverResult<()> {
        Ok(())
    }

    unsafe fn launch(&mut self) -> DriverResult<()> {
        Ok(())
    }
}

/// What the host does for a training step of ResNet-18 with ten steps of an attack, in milliseconds; the device has to take
/// longer for it not to be waited for.
///
///     cargo test --release --test all -- --ignored --nocapture host_time_of_a_step
#[test]
#[ignore = "a measurement"]
fn host_time_of_a_step() {
    fn median<B: Backend>(backend: &B) -> f64 {
        let mut training = Training::of(Network::ResNet18, 1, backend, 128);
        let bytes = training.bytes.clone();
        let images = backend.resident([3, 32, 32], &bytes);
        let mut metrics = backend.metrics();
        let mut seconds: Vec<f64> = (0..21)
            .map(|step| {
                let begin = std::time::Instant::now();
                training.step_of(10, backend, &images, &mut metrics, step).unwrap();
                begin.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        1e3 * seconds[10]
    }
    let idle = || Arc::new(Idle(AtomicUsize::new(1 << 20)));
    println!("f32  {:.2} ms", median(&Cuda::<F32>::with_driver(idle(), Submission::Graphs).unwrap()));
    println!("bf16 {:.2} ms", median(&Cuda::<Bf16>::with_driver(idle(), Submission::Graphs).unwrap()));
}
