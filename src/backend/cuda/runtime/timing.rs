//! Time, operations and bytes of each kernel of a step.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytemuck::AnyBitPattern;

use super::driver::{DriverResult, Graph};
use super::kernel::Args;

/// How long a launch is repeated, and how often at most: so often that waiting for the device does not count.
const SECONDS: f64 = 1e-3;
const REPEATS: usize = 50;

/// Launches of one kernel on one shape.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The kernel.
    pub kernel: &'static str,
    /// Its sizes: `d = [8, 3, 32, …], activation = [1]`.
    pub sizes: String,
    /// How many launches there were.
    pub launches: usize,
    /// Seconds of one, on average, one after the other in a graph; what it reads may still be in the cache.
    pub seconds: f64,
    /// Operations of one: two for each multiply-add of convolutions and linear layers, 0 for everything else.
    pub flop: f64,
    /// Bytes of all buffers that it is given, each counted once.
    pub bytes: f64,
    args: Args,
}

impl Timing {
    /// Seconds of all launches.
    pub fn total_seconds(&self) -> f64 {
        self.seconds * self.launches as f64
    }

    /// An argument of the first launch.
    pub(in crate::backend::cuda) fn arg<T: AnyBitPattern>(&self, index: usize) -> T {
        let words = &self.args.words()[self.args.starts()[index] as usize..];
        bytemuck::pod_read_unaligned(&bytemuck::cast_slice(words)[..size_of::<T>()])
    }
}

/// Adds up what is measured.
#[derive(Default)]
pub(in crate::backend::cuda) struct Timer(Mutex<Vec<Timing>>);

impl Timer {
    /// A launch of a kernel that took so many `seconds`.
    pub fn add(&self, kernel: &'static str, sizes: String, seconds: f64, bytes: usize, args: &Args) {
        let mut timings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match timings.iter_mut().find(|known| known.kernel == kernel && known.sizes == sizes) {
            Some(known) => {
                known.launches += 1;
                known.seconds += (seconds - known.seconds) / known.launches as f64;
            }
            None => {
                let (flop, bytes, args) = (args.flop(), bytes as f64, args.clone());
                timings.push(Timing { kernel, sizes, launches: 1, seconds, flop, bytes, args });
            }
        }
    }

    /// The times added since this was last called, the longest first.
    pub fn take(&self) -> Vec<Timing> {
        let mut timings = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        timings.sort_by(|a, b| b.total_seconds().total_cmp(&a.total_seconds()));
        timings
    }
}

/// Seconds of a launch. `graph` makes a graph of so many launches, one after the other.
///
/// # Errors
/// The driver's.
///
/// # Safety
/// As [`Graph::launch`].
pub(super) unsafe fn seconds_of(
    graph: impl Fn(usize) -> DriverResult<Box<dyn Graph>>,
    synchronize: impl Fn() -> DriverResult<()>,
) -> DriverResult<f64> {
    let time = |repeats: usize| -> DriverResult<f64> {
        let mut graph = graph(repeats)?;
        let mut seconds = 0.0;
        // The first run warms up.
        for _ in 0..2 {
            let begin = Instant::now();
            // SAFETY: the caller's promise.
            unsafe { graph.launch() }?;
            synchronize()?;
            seconds = begin.elapsed().as_secs_f64();
        }
        Ok(seconds / repeats as f64)
    };
    let once = time(1)?;
    match (SECONDS / once) as usize {
        0 | 1 => Ok(once),
        repeats => time(repeats.min(REPEATS)),
    }
}
