//! Launches on their way to the driver: at once, or recorded for a step and submitted as a graph.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{Call, Driver, DriverResult, Function, Graph, HandedOut};
use super::kernel::{Args, Grid, KernelSpec, Param, pointers};
use super::timing::{Timer, Timing, seconds_of};
use crate::backend::cuda::runtime::allocator::{Fault, Pool};
use crate::base::error::{Error, Result};

/// Graphs kept: of full and of shorter batches, in training and in evaluation.
const GRAPHS: usize = 8;

/// Bytes of the largest argument that an error shows: dims are smaller, tables of addresses larger.
const LARGEST_SHOWN: usize = 64;

/// A launch with its arguments.
#[derive(Clone, Debug)]
struct Launch {
    /// Index among the kernels.
    kernel: usize,
    grid: Grid,
    args: Args,
    /// Memory handed out between the launch before and this one, if it is recorded.
    handed_out: Vec<HandedOut>,
}

impl Launch {
    /// Whether the other one is the same but for its arguments.
    fn is_like(&self, other: &Launch) -> bool {
        (self.kernel, self.grid) == (other.kernel, other.grid)
    }
}

/// A graph and the launches it is made of.
struct Replay {
    launches: Vec<Launch>,
    graph: Box<dyn Graph>,
}

#[derive(Default)]
struct State {
    /// Launches of the step in flight; `None` outside of steps, and in a step that had to submit early.
    recording: Option<Vec<Launch>>,
    /// Most recently used last.
    replays: Vec<Replay>,
}

/// The way to one driver.
pub(in crate::backend::cuda) struct Queue {
    driver: Arc<dyn Driver>,
    pool: Arc<Pool>,
    kernels: Vec<(KernelSpec, Function)>,
    how: Submission,
    state: Mutex<State>,
    /// Whether the next launch that is submitted alone may overlap with the one before it.
    overlaps: AtomicBool,
    timer: Timer,
}

/// How launches reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission {
    /// Those of a step together, as a graph in which kernels begin as early as they may.
    Graphs,
    /// The same, but each kernel begins when the one before has ended.
    Serial,
    /// One by one, so that what a profiler shows of the host lies around the kernels.
    Single,
    /// One by one, each waited for: an error names its kernel.
    Waiting,
    /// One by one, each many times, to see how long it takes. What comes out means nothing.
    Timed,
}

impl Submission {
    /// The way that `ENGINE_CUDA` asks for, or that a profiler needs.
    ///
    /// # Errors
    /// [`Error::Usage`] for a value that it cannot have.
    pub fn chosen() -> Result<Self> {
        let how = match std::env::var("ENGINE_CUDA").as_deref() {
            // A profiler's view of the host is of use only if launches happen where they are called.
            Err(_) | Ok("graphs") if crate::base::nvtx::active() => Submission::Single,
            Err(_) | Ok("graphs") => Submission::Graphs,
            Ok("serial") => Submission::Serial,
            Ok("single") => Submission::Single,
            Ok("waiting") => Submission::Waiting,
            Ok(other) => {
                let known = ["graphs", "serial", "single", "waiting"];
                return Err(Error::unknown("value of ENGINE_CUDA", other, known));
            }
        };
        Ok(how)
    }
}

impl Queue {
    /// Looks up every kernel, and checks the parameters where the driver can tell.
    pub fn new(driver: Arc<dyn Driver>, pool: Arc<Pool>, specs: &[KernelSpec], how: Submission) -> Result<Self> {
        let failed = |name: &str, why: String| Error::Failed(format!("kernel {name}: {why}"));
        let mut kernels = Vec::new();
        for spec in specs {
            let function = driver.function(spec.name).map_err(|why| failed(spec.name, why))?;
            let declared: Vec<usize> = spec.params.iter().map(Param::size).collect();
            match driver.param_sizes(function).map_err(|why| failed(spec.name, why))? {
                Some(sizes) if sizes != declared => {
                    return Err(failed(
                        spec.name,
                        format!("takes parameters of {sizes:?} bytes, the host passes {declared:?}"),
                    ));
                }
                _ => kernels.push((*spec, function)),
            }
        }
        Ok(Queue {
            driver,
            pool,
            kernels,
            how,
            state: Mutex::default(),
            overlaps: AtomicBool::new(false),
            timer: Timer::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Launches the kernel of this index, or records it if a step is in flight. After a fault it does nothing.
    ///
    /// # Safety
    /// As [`Driver::launch`]; the buffers may be dropped at once.
    pub unsafe fn launch(&self, kernel: usize, grid: Grid, args: Args) {
        if self.pool.fault().is_some() {
            return;
        }
        let mut launch = Launch { kernel, grid, args, handed_out: Vec::new() };
        match &mut self.lock().recording {
            Some(launches) => {
                launch.handed_out = self.pool.take_held_back();
                launches.push(launch);
            }
            // SAFETY: the caller's promise.
            None => unsafe { self.submit(&launch) },
        }
    }

    /// Runs `f`; what it launches is submitted at its end, as a graph.
    pub fn capture<R>(&self, f: impl FnOnce() -> R) -> R {
        {
            let mut state = self.lock();
            if !matches!(self.how, Submission::Graphs | Submission::Serial) || state.recording.is_some() {
                drop(state);
                return f();
            }
            state.recording = Some(Vec::new());
            self.pool.hold_back();
        }
        let result = f();
        let mut state = self.lock();
        if let Some(launches) = state.recording.take()
            && !launches.is_empty()
            && self.pool.fault().is_none()
            && let Err(why) = self.replay(&mut state.replays, launches)
        {
            self.pool.fail(Fault::Failed(format!("graph of a step: {why}; ENGINE_CUDA=waiting shows which kernel")));
        }
        self.pool.tell();
        result
    }

    /// Submits the recorded launches, because a transfer is to come after it. The rest of the step goes out one by one.
    pub fn flush(&self) {
        let launches = self.lock().recording.take();
        for launch in launches.into_iter().flatten() {
            launch.handed_out.iter().for_each(|&what| self.driver.handed_out(what));
            // SAFETY: promised to `launch`, which recorded it.
            unsafe { self.submit(&launch) };
        }
        self.pool.tell();
    }

    /// Launches through the graph of the last step like this one, or a new one.
    fn replay(&self, replays: &mut Vec<Replay>, launches: Vec<Launch>) -> DriverResult<()> {
        let like = |replay: &Replay| {
            replay.launches.len() == launches.len()
                && replay.launches.iter().zip(&launches).all(|(old, new)| old.is_like(new))
        };
        let mut replay = match replays.iter().position(like) {
            Some(found) => {
                let mut replay = replays.remove(found);
                for (index, (old, new)) in replay.launches.iter_mut().zip(launches).enumerate() {
                    if old.args.words() != new.args.words() || old.handed_out != new.handed_out {
                        let mut args = pointers(new.args.words(), new.args.starts());
                        // SAFETY: promised to `launch`, which recorded it.
                        unsafe { replay.graph.set_args(index, &mut self.call(&new, &mut args, false)) }?;
                        *old = new;
                    }
                }
                replay
            }
            None => self.instantiate(launches)?,
        };
        self.overlaps.store(false, Ordering::Relaxed);
        // SAFETY: as above. Memory that was freed since is in no argument: all have just been set or compared.
        unsafe { replay.graph.launch() }?;
        replays.push(replay);
        if replays.len() > GRAPHS {
            // The oldest may still run.
            self.driver.synchronize()?;
            replays.remove(0);
        }
        Ok(())
    }

    fn instantiate(&self, launches: Vec<Launch>) -> DriverResult<Replay> {
        let mut args: Vec<_> = launches.iter().map(|l| pointers(l.args.words(), l.args.starts())).collect();
        let mut overlaps = false;
        let mut calls = Vec::with_capacity(launches.len());
        for (launch, args) in launches.iter().zip(&mut args) {
            calls.push(self.call(launch, args, overlaps));
            overlaps = self.may_overlap(launch);
        }
        // SAFETY: promised to `launch`, which recorded them.
        let graph = unsafe { self.driver.graph(&mut calls) }?;
        Ok(Replay { launches, graph })
    }

    /// Whether the launch after this one may overlap with it.
    fn may_overlap(&self, launch: &Launch) -> bool {
        self.how != Submission::Serial && !self.kernels[launch.kernel].0.exclusive
    }

    fn call<'a>(&self, launch: &'a Launch, args: &'a mut [*mut std::ffi::c_void], overlaps: bool) -> Call<'a> {
        let (spec, function) = &self.kernels[launch.kernel];
        let Grid { blocks, threads, shared } = launch.grid;
        let handed_out = &launch.handed_out;
        Call { function: *function, name: spec.name, blocks, threads, shared, args, overlaps, handed_out }
    }

    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn submit(&self, launch: &Launch) {
        if self.pool.fault().is_some() {
            return;
        }
        let queued = || {
            let mut args = pointers(launch.args.words(), launch.args.starts());
            let overlaps = self.overlaps.swap(self.may_overlap(launch), Ordering::Relaxed);
            // SAFETY: the caller's promise.
            unsafe { self.driver.launch(&mut self.call(launch, &mut args, overlaps)) }
        };
        let outcome = match self.how {
            Submission::Graphs | Submission::Serial | Submission::Single => queued(),
            Submission::Waiting => queued().and_then(|()| self.driver.synchronize()),
            // SAFETY: the caller's promise.
            Submission::Timed => unsafe { self.time(launch) },
        };
        if let Err(why) = outcome {
            self.pool.fail(Fault::Failed(format!("{}: {why}", self.describe(launch))));
        }
    }

    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn time(&self, launch: &Launch) -> DriverResult<()> {
        let repeated = |times: usize| {
            let (words, starts) = (launch.args.words(), launch.args.starts());
            let mut args: Vec<_> = (0..times).map(|_| pointers(words, starts)).collect();
            let mut calls: Vec<_> = args.iter_mut().map(|args| self.call(launch, args, false)).collect();
            // SAFETY: the caller's promise.
            unsafe { self.driver.graph(&mut calls) }
        };
        // SAFETY: the caller's promise.
        let seconds = unsafe { seconds_of(repeated, || self.driver.synchronize()) }?;
        let name = self.kernels[launch.kernel].0.name;
        let bytes = self.pool.bytes_of(launch.args.words());
        self.timer.add(name, self.sizes(launch), seconds, bytes, &launch.args);
        Ok(())
    }

    /// The times since this was last called.
    pub fn timings(&self) -> Vec<Timing> {
        self.timer.take()
    }

    /// `conv2d_fwd(d = [8, 3, 32, …], activation = [1]) on 64 x 1 x 1 blocks of 128 threads`: name and sizes, no addresses.
    fn describe(&self, launch: &Launch) -> String {
        let (spec, _) = &self.kernels[launch.kernel];
        let ([x, y, z], threads) = (launch.grid.blocks, launch.grid.threads);
        let sizes = self.sizes(launch);
        format!("kernel {}({sizes}) on {x} x {y} x {z} blocks of {threads} threads", spec.name)
    }

    /// `d = [8, 3, 32, …], activation = [1]`.
    fn sizes(&self, launch: &Launch) -> String {
        let (spec, _) = &self.kernels[launch.kernel];
        let sizes = |param: &Param| !param.pointer && param.size() <= LARGEST_SHOWN;
        let args = spec.params.iter().zip(launch.args.starts()).filter(|(param, _)| sizes(param));
        let shown = args.map(|(param, &start)| {
            let words = &launch.args.words()[start as usize..];
            let ints = words.iter().flat_map(|word| [*word as u32, (word >> 32) as u32]);
            let ints: Vec<String> = ints.take(param.size() / 4).map(|i| i.to_string()).collect();
            format!("{} = [{}]", param.name, ints.join(", "))
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}
