//! What each kernel of a step takes: how long, for how many operations and bytes.

use std::collections::HashMap;
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
    /// Its sizes: `d = [8, 3, 32, …], relu = [1]`.
    pub sizes: String,
    /// How many launches there were.
    pub launches: usize,
    /// Seconds of one, on average, one after the other in a graph; what it reads may still be in the cache.
    pub seconds: f64,
    /// Operations of one: two for each multiply-add of a convolution or a linear layer, 0 for everything else.
    pub flop: f64,
    /// Bytes of all buffers that it is given, each counted once.
    pub bytes: f64,
    args: Args,
}

impl Timing {
    /// An argument of the first launch.
    pub(super) fn arg<T: AnyBitPattern>(&self, index: usize) -> T {
        let words = &self.args.words()[self.args.starts()[index] as usize..];
        bytemuck::pod_read_unaligned(&bytemuck::cast_slice(words)[..size_of::<T>()])
    }
}

/// Adds up what is measured.
#[derive(Default)]
pub(super) struct Timer {
    /// By kernel and sizes.
    timings: Mutex<HashMap<(&'static str, String), Timing>>,
}

impl Timer {
    /// A launch of a kernel that took so many `seconds`.
    pub fn add(&self, kernel: &'static str, sizes: String, seconds: f64, bytes: usize, args: &Args) {
        let mut timings = self.timings.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = timings.entry((kernel, sizes.clone())).or_insert_with(|| Timing {
            kernel,
            sizes,
            launches: 0,
            seconds: 0.0,
            flop: args.flop(),
            bytes: bytes as f64,
            args: args.clone(),
        });
        entry.launches += 1;
        entry.seconds += (seconds - entry.seconds) / entry.launches as f64;
    }

    /// What was added since this was last called, the longest first.
    pub fn take(&self) -> Vec<Timing> {
        let mut timings = self.timings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Timing> = timings.drain().map(|(_, timing)| timing).collect();
        let key = |timing: &Timing| (-timing.seconds * timing.launches as f64, timing.kernel, timing.sizes.clone());
        all.sort_by(|a, b| key(a).partial_cmp(&key(b)).expect("seconds are numbers"));
        all
    }
}

/// Seconds of a launch. `graph` makes a graph of so many launches, one after the other.
///
/// # Errors
/// The driver's.
pub(super) fn seconds_of(
    graph: impl Fn(usize) -> DriverResult<Box<dyn Graph>>,
    synchronize: impl Fn() -> DriverResult<()>,
) -> DriverResult<f64> {
    let time = |repeats: usize| -> DriverResult<f64> {
        let mut graph = graph(repeats)?;
        let mut seconds = 0.0;
        // The first run warms up.
        for _ in 0..2 {
            let begin = Instant::now();
            // SAFETY: whoever made the graph has promised it.
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
