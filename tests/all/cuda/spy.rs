//! A driver that counts what it is asked, and can be told to fail; and training that keeps it busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::attack::pgd::{Batch, Start};
use engine::autograd::tensor::Tensor;
use engine::backend::Backend;
use engine::backend::cuda::runtime::driver::{AllocError, Call, Driver, DriverResult, Function, Graph, HandedOut};
use engine::backend::cuda::{Cuda, F32, Submission};
use engine::base::rng::{Rng, Stream};
use engine::nn::init::Init;
use engine::nn::models::{Architecture, Network};
use engine::nn::optim::OptimizerConfig;
use engine::train::Trainer;

use crate::backends::{labels, uniform};
use crate::cuda_host;
use crate::small_runs::attack;

/// Calls so far.
#[derive(Default)]
pub struct Calls {
    pub allocs: AtomicUsize,
    pub uploads: AtomicUsize,
    pub downloads: AtomicUsize,
    pub launches: AtomicUsize,
    pub graphs: AtomicUsize,
    pub set_args: AtomicUsize,
    pub graph_launches: AtomicUsize,
    pub waits: AtomicUsize,
    /// Launches in the last graph, and how many may begin before the one before them ends.
    pub nodes: AtomicUsize,
    pub overlaps: AtomicUsize,
}

impl Calls {
    pub fn all(&self) -> [usize; 8] {
        let Calls { allocs, uploads, downloads, launches, graphs, set_args, graph_launches, waits, .. } = self;
        [allocs, uploads, downloads, launches, graphs, set_args, graph_launches, waits]
            .map(|c| c.load(Ordering::Relaxed))
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Passes everything on to the host-compiled kernels.
struct Spy {
    inner: Arc<dyn Driver>,
    calls: Arc<Calls>,
    /// Bytes that may be allocated.
    room: AtomicUsize,
    /// The kernel whose launch fails.
    fails: Option<&'static str>,
}

impl Driver for Spy {
    fn function(&self, name: &str) -> DriverResult<Function> {
        self.inner.function(name)
    }

    fn shared_memory(&self) -> u32 {
        self.inner.shared_memory()
    }

    fn param_sizes(&self, function: Function) -> DriverResult<Option<Vec<usize>>> {
        self.inner.param_sizes(function)
    }

    unsafe fn launch(&self, call: &mut Call<'_>) -> DriverResult<()> {
        count(&self.calls.launches);
        if self.fails == Some(call.name) {
            return Err("planted failure".to_string());
        }
        // SAFETY: passed on.
        unsafe { self.inner.launch(call) }
    }

    unsafe fn graph(&self, calls: &mut [Call<'_>]) -> DriverResult<Box<dyn Graph>> {
        count(&self.calls.graphs);
        self.calls.nodes.store(calls.len(), Ordering::Relaxed);
        self.calls.overlaps.store(calls.iter().filter(|call| call.overlaps).count(), Ordering::Relaxed);
        // SAFETY: passed on.
        let inner = unsafe { self.inner.graph(calls) }?;
        Ok(Box::new(SpyGraph { inner, calls: self.calls.clone() }))
    }

    fn alloc(&self, bytes: usize) -> Result<u64, AllocError> {
        count(&self.calls.allocs);
        let enough = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes));
        if enough.is_err() { Err(AllocError::OutOfMemory) } else { self.inner.alloc(bytes) }
    }

    unsafe fn free(&self, address: u64) {
        // SAFETY: passed on.
        unsafe { self.inner.free(address) }
    }

    fn handed_out(&self, what: HandedOut) {
        self.inner.handed_out(what);
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        Ok((self.room.load(Ordering::Relaxed), 1 << 24))
    }

    unsafe fn upload(&self, to: u64, source: &[u8]) -> DriverResult<()> {
        count(&self.calls.uploads);
        // SAFETY: passed on.
        unsafe { self.inner.upload(to, source) }
    }

    unsafe fn download(&self, from: u64, target: &mut [u8]) -> DriverResult<()> {
        count(&self.calls.downloads);
        // SAFETY: passed on.
        unsafe { self.inner.download(from, target) }
    }

    fn synchronize(&self) -> DriverResult<()> {
        count(&self.calls.waits);
        self.inner.synchronize()
    }
}

struct SpyGraph {
    inner: Box<dyn Graph>,
    calls: Arc<Calls>,
}

impl Graph for SpyGraph {
    unsafe fn set_args(&mut self, index: usize, call: &mut Call<'_>) -> DriverResult<()> {
        count(&self.calls.set_args);
        // SAFETY: passed on.
        unsafe { self.inner.set_args(index, call) }
    }

    unsafe fn launch(&mut self) -> DriverResult<()> {
        count(&self.calls.graph_launches);
        // SAFETY: passed on.
        unsafe { self.inner.launch() }
    }
}

/// A backend on a spy with so many bytes, and the spy's book; `None` where kernels cannot be compiled for the host.
pub fn spied(how: Submission, room: usize, fails: Option<&'static str>) -> Option<(Cuda<F32>, Arc<Calls>)> {
    spied_in(Cuda::<F32>::with_driver, how, room, fails)
}

/// The same with a backend that is made by `new`.
pub fn spied_in<B>(
    new: impl FnOnce(Arc<dyn Driver>, Submission) -> engine::base::error::Result<B>,
    how: Submission,
    room: usize,
    fails: Option<&'static str>,
) -> Option<(B, Arc<Calls>)> {
    let (inner, calls) = (cuda_host::driver()?, Arc::new(Calls::default()));
    let spy = Spy { inner, calls: calls.clone(), room: AtomicUsize::new(room), fails };
    Some((new(Arc::new(spy), how).unwrap(), calls))
}

pub const PLENTY: usize = 1 << 30;

/// Adversarial training on random images.
pub struct Training<B: Backend> {
    pub trainer: Trainer<B>,
    pub bytes: Vec<u8>,
    pub labels: Vec<u8>,
}

impl<B: Backend> Training<B> {
    pub fn new(backend: &B, batch: usize) -> Self {
        Training::of(Network::LeNet, 1, backend, batch)
    }

    pub fn of(network: Network, width: usize, backend: &B, batch: usize) -> Self {
        let architecture = Architecture::new(network, width, 10).unwrap();
        let pixels: usize = network.input().iter().product();
        let adam = OptimizerConfig::Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let trainer = Trainer::new(backend, architecture, Init::XavierUniform, 1, &adam).unwrap();
        let bytes = uniform(1, batch * pixels).iter().map(|u| (256.0 * u) as u8).collect();
        Training { trainer, bytes, labels: labels(2, batch, 10) }
    }

    /// A step as the training loop does it.
    pub fn step(
        &mut self,
        backend: &B,
        images: &B::Resident<'_>,
        metrics: &mut B::MetricsBuf,
        step: u32,
    ) -> engine::base::error::Result<()> {
        self.step_of(2, backend, images, metrics, step)
    }

    /// The same with so many steps of the attack.
    pub fn step_of(
        &mut self,
        attack_steps: usize,
        backend: &B,
        images: &B::Resident<'_>,
        metrics: &mut B::MetricsBuf,
        step: u32,
    ) -> engine::base::error::Result<()> {
        let n = self.labels.len();
        let indices: Vec<u32> = (0..n as u32).map(|i| (i + step) % n as u32).collect();
        let clean = Tensor::new(backend.gather(images, &indices, None), self.trainer.model.input(n));
        let labels = backend.labels(&self.labels);
        let batch = Batch { images: clean, labels: &labels };
        let rng = Rng::new(1, Stream::TrainAttack, step);
        let start = Start { rng: &rng, first: 0 };
        self.trainer.step(backend, &batch, Some((&attack(attack_steps), start)), 1e-3 / (1 + step) as f32, metrics)
    }
}
