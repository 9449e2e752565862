//! The cores of a run, shared by its backends.
//!
//! A backend *runs* while it works on a stage ([`Participant::enter`]). Those that run divide the cores evenly among themselves,
//! and each asks for its share whenever it begins a *parallel region*, such as a training step: a stage that runs alone has all
//! cores, and hands back what is not its own any more within a step. As in OpenMP, a region is worked on by a *team* of threads,
//! and the one that executes the region's own code is the *primary thread*. A region within a region has the same team.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::base::error::{Error, Result};

/// Threads that may wait in pools that nobody uses, as a multiple of the cores: of sizes that may be asked for again.
const IDLE_THREADS: usize = 2;

thread_local! {
    /// Whether this thread is the primary thread of a region.
    static IS_PRIMARY: Cell<bool> = const { Cell::new(false) };
}

/// A number of cores, for any number of backends.
pub struct Cores {
    total: usize,
    /// How many backends there have been.
    backends: AtomicUsize,
    /// The backends that run, in the order in which they began, each with how often it has [entered](Participant::enter).
    running: Mutex<Vec<(usize, usize)>>,
    /// Pools that nobody uses, the last one used at the end.
    idle: Mutex<Vec<ThreadPool>>,
}

impl Cores {
    /// `total` cores, but at least one.
    pub fn new(total: usize) -> Arc<Self> {
        let (backends, running, idle) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Arc::new(Cores { total: total.max(1), backends, running, idle })
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Cores of the backend with this number: an even part of all for each that runs, what is left over for the first of them, and
    /// at least one. One that does not run gets what it would as the last of them.
    fn share(&self, backend: usize) -> usize {
        let running = lock(&self.running);
        let place = running.iter().position(|(other, _)| *other == backend);
        let (rank, all) = place.map_or((running.len(), running.len() + 1), |rank| (rank, running.len()));
        (self.total / all + usize::from(rank < self.total % all)).max(1)
    }

    /// A pool of `threads` threads that nobody uses, or a new one.
    fn take_pool(&self, threads: usize) -> Result<ThreadPool> {
        let mut idle = lock(&self.idle);
        if let Some(place) = idle.iter().rposition(|pool| pool.current_num_threads() == threads) {
            return Ok(idle.remove(place));
        }
        drop(idle);
        let builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("engine-{i}"));
        builder.build().map_err(|e| Error::Failed(format!("cannot start {threads} threads: {e}")))
    }

    /// Keeps a pool for the next who asks; the pools that have waited longest end if there are too many.
    fn give_back(&self, pool: ThreadPool) {
        let mut idle = lock(&self.idle);
        idle.push(pool);
        while idle.iter().map(ThreadPool::current_num_threads).sum::<usize>() > IDLE_THREADS * self.total {
            idle.remove(0);
        }
    }
}

/// Lists are whole after every statement, so a panic elsewhere leaves nothing to distrust.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a backend in its [`Cores`].
pub struct Participant {
    cores: Arc<Cores>,
    number: usize,
}

impl Participant {
    /// One more of `cores`.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system cannot start as many threads.
    pub fn new(cores: &Arc<Cores>) -> Result<Self> {
        if cores.total > 1 {
            cores.give_back(cores.take_pool(cores.total)?);
        }
        Ok(Participant { cores: cores.clone(), number: cores.backends.fetch_add(1, Ordering::Relaxed) })
    }

    /// Begins to run, until what is returned is dropped.
    pub fn enter(&self) -> Running {
        let mut running = lock(&self.cores.running);
        match running.iter_mut().find(|(backend, _)| *backend == self.number) {
            Some((_, times)) => *times += 1,
            None => running.push((self.number, 1)),
        }
        Running { cores: self.cores.clone(), number: self.number }
    }

    /// Threads of the region that this thread is in, else of the one that it would begin.
    pub fn threads(&self) -> usize {
        team().unwrap_or_else(|| self.cores.share(self.number))
    }

    /// Runs `f` with the number of threads, in a pool of so many if they are several. In a region that is the team around.
    pub fn region<R: Send>(&self, f: impl FnOnce(usize) -> R + Send) -> R {
        if let Some(threads) = team() {
            return f(threads);
        }
        let threads = self.cores.share(self.number);
        // One thread gets the same result, so it takes over where the system has no more of them.
        let pool = if threads > 1 { self.cores.take_pool(threads).ok() } else { None };
        let Some(pool) = pool else { return as_primary(|| f(1)) };
        let result = pool.install(|| as_primary(|| f(threads)));
        self.cores.give_back(pool);
        result
    }
}

/// A backend that runs, for as long as this lives.
pub struct Running {
    cores: Arc<Cores>,
    number: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.cores.running).retain_mut(|(backend, times)| {
            *times -= usize::from(*backend == self.number);
            *times > 0
        });
    }
}

/// Threads of the region or of the pool that this thread is in, if it is in one.
fn team() -> Option<usize> {
    // Outside of all pools the number of threads is that of rayon's own, which would start.
    let in_pool = rayon::current_thread_index().map(|_| rayon::current_num_threads());
    in_pool.or_else(|| IS_PRIMARY.get().then_some(1))
}

/// Place in its pool of a thread that helps the primary thread of a region. `None` for that one, which is now this and now that thread
/// of the pool, and for all other threads.
pub fn helper_index() -> Option<usize> {
    rayon::current_thread_index().filter(|_| !IS_PRIMARY.get())
}

fn as_primary<R>(f: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_PRIMARY.set(false);
        }
    }
    IS_PRIMARY.set(true);
    let _reset = Reset;
    f()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn participants(cores: &Arc<Cores>, n: usize) -> Vec<Participant> {
        (0..n).map(|_| Participant::new(cores).unwrap()).collect()
    }

    /// Every set of eight, one joining or leaving at a time, and all numbers up to 20.
    #[test]
    fn the_shares_of_those_that_run_are_all_cores_and_as_even_as_can_be() {
        for total in 1..=16 {
            let cores = Cores::new(total);
            let all = participants(&cores, 20);
            let mut running: Vec<Option<Running>> = all.iter().map(|_| None).collect();
            let check = |running: &[Option<Running>]| {
                let who = || all.iter().zip(running).filter(|(_, running)| running.is_some());
                let shares: Vec<usize> = who().map(|(participant, _)| participant.threads()).collect();
                assert_eq!(shares.iter().sum::<usize>(), if shares.is_empty() { 0 } else { total.max(shares.len()) });
                let (most, least) = (shares.iter().max(), shares.iter().min());
                assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1 && *least >= 1), "{shares:?}");
            };
            for step in 1_usize..1 << 8 {
                // A Gray code: from each set to the next, one number changes.
                let changed = step.trailing_zeros() as usize;
                running[changed] = if running[changed].is_some() { None } else { Some(all[changed].enter()) };
                check(&running);
            }
            for i in 0..20 {
                running[i] = Some(all[i].enter());
                check(&running);
            }
        }
    }

    #[test]
    fn on_sixteen_cores_a_chain_has_all_and_four_stages_have_four_each() {
        let cores = Cores::new(16);
        let all = participants(&cores, 32);
        let threads = |n: usize| {
            let _running: Vec<Running> = all[..n].iter().map(Participant::enter).collect();
            all[..n].iter().map(|one| one.region(|threads| threads)).collect::<Vec<_>>()
        };
        assert_eq!(threads(1), [16]);
        assert_eq!(threads(4), [4; 4]);
        assert_eq!(threads(3), [6, 5, 5]);
        assert_eq!(threads(16), [1; 16]);
        assert_eq!(threads(32), [1; 32]);
        assert_eq!(threads(1), [16]);
    }

    #[test]
    fn a_backend_that_enters_twice_counts_once_and_runs_until_the_last_end() {
        let cores = Cores::new(4);
        let all = participants(&cores, 2);
        let (first, other, again) = (all[0].enter(), all[1].enter(), all[0].enter());
        assert_eq!((all[0].threads(), all[1].threads()), (2, 2));
        drop(first);
        assert_eq!((all[0].threads(), all[1].threads()), (2, 2));
        drop(again);
        assert_eq!(all[1].threads(), 4);
        // What does not run is counted as one more.
        assert_eq!(all[0].threads(), 2);
        drop(other);
        assert_eq!(all[0].threads(), 4);
    }

    #[test]
    fn a_region_in_a_region_has_the_same_team() {
        for total in [1, 3] {
            let cores = Cores::new(total);
            let all = participants(&cores, 2);
            let seen = all[0].region(|outer| {
                // The share becomes another, the team does not.
                let _running: Vec<Running> = all.iter().map(Participant::enter).collect();
                (outer, all[0].region(|inner| (inner, all[0].threads())))
            });
            assert_eq!(seen, (total, (total, total)));
            assert_eq!(lock(&cores.idle).len(), usize::from(total > 1), "no pool but the one of all cores");
        }
    }

    #[test]
    fn a_share_of_one_stays_on_the_thread_that_asks() {
        let cores = Cores::new(2);
        let all = participants(&cores, 2);
        let _running: Vec<Running> = all.iter().map(Participant::enter).collect();
        let here = std::thread::current().id();
        assert_eq!(all[0].region(|_| (std::thread::current().id(), rayon::current_thread_index())), (here, None));
        drop(_running);
        assert_ne!(all[0].region(|_| std::thread::current().id()), here);
    }

    #[test]
    fn a_panic_ends_the_region_and_the_run() {
        for total in [1, 2] {
            let cores = Cores::new(total);
            let all = participants(&cores, 2);
            let panics = catch_unwind(AssertUnwindSafe(|| {
                let _running = all[0].enter();
                all[0].region(|_| -> () { panic!("a fault") })
            }));
            assert!(panics.is_err() && !IS_PRIMARY.get() && lock(&cores.running).is_empty());
            assert_eq!(all[1].region(|threads| threads), total);
        }
    }

    /// 1 to 16 backends ask for pools of 11 sizes.
    #[test]
    fn few_threads_wait_in_pools_that_nobody_uses() {
        let cores = Cores::new(16);
        let all = participants(&cores, 16);
        let mut running = Vec::new();
        for participant in &all {
            running.push(participant.enter());
            all.iter().take(running.len()).for_each(|one| one.region(|_| ()));
            let idle: usize = lock(&cores.idle).iter().map(ThreadPool::current_num_threads).sum();
            assert!(idle <= 32, "{idle} threads");
        }
    }

    #[test]
    fn the_primary_thread_is_no_helper_and_its_team_are() {
        let cores = Cores::new(3);
        let one = Participant::new(&cores).unwrap();
        assert_eq!(helper_index(), None);
        let helpers = one.region(|_| {
            assert_eq!(helper_index(), None);
            rayon::broadcast(|_| helper_index()).into_iter().flatten().count()
        });
        assert_eq!(helpers, 2);
    }
}
