//! Marks for a profiler: NVTX ranges around stage, epoch, step, attack step and layer, and the steady steps that are to be
//! recorded. Without [`profile_steps`] all of it costs one look at a flag.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Training steps before the recorded ones: the first ones find caches cold and graphs not yet made.
const WARM_UP: u64 = 3;

static ACTIVE: AtomicBool = AtomicBool::new(false);
static STEPS: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

/// Asks for `steps` training steps, after a few, to be recorded, and for ranges throughout.
pub fn profile_steps(steps: u64) {
    STEPS.store(steps, Ordering::Relaxed);
    ACTIVE.store(true, Ordering::Relaxed);
}

/// Whether ranges are asked for.
pub fn active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// Whether the library that takes the ranges is there.
fn has_nvtx() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads and unloads the library; its initialisers are NVIDIA's own.
    *FOUND.get_or_init(|| unsafe { cudarc::nvtx::sys::is_culib_present() })
}

/// The message to the profiler before a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// Begin.
    Start,
    /// End.
    Stop,
    /// Nothing new.
    Unchanged,
}

/// Counts a training step that is about to begin.
pub fn before_step() -> Recording {
    if !active() {
        return Recording::Unchanged;
    }
    recording(DONE.fetch_add(1, Ordering::Relaxed), STEPS.load(Ordering::Relaxed))
}

fn recording(done: u64, steps: u64) -> Recording {
    match done.checked_sub(WARM_UP) {
        Some(0) if steps > 0 => Recording::Start,
        Some(recorded) if recorded == steps => Recording::Stop,
        _ => Recording::Unchanged,
    }
}

thread_local! {
    /// Names of the open ranges of this thread.
    static OPEN: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
}

/// An open range; it ends when dropped.
#[must_use]
pub struct Range {
    open: bool,
}

/// Opens a range on this thread, named by what `name` returns; without a profile it is not called.
pub fn range(name: impl FnOnce() -> String) -> Range {
    if active() { open(name().into()) } else { Range { open: false } }
}

/// Opens a range again that [`current`] returned: the backward pass of a layer.
pub fn again(name: Option<&Arc<str>>) -> Range {
    name.map_or(Range { open: false }, |name| open(format!("backward {name}").into()))
}

/// Name of the innermost open range of this thread.
pub fn current() -> Option<Arc<str>> {
    if active() { OPEN.with_borrow(|open| open.last().cloned()) } else { None }
}

fn open(name: Arc<str>) -> Range {
    if has_nvtx() {
        cudarc::nvtx::result::range_push(&*name);
    }
    OPEN.with_borrow_mut(|open| open.push(name));
    Range { open: true }
}

impl Drop for Range {
    fn drop(&mut self) {
        if self.open {
            OPEN.with_borrow_mut(Vec::pop);
            if has_nvtx() {
                cudarc::nvtx::result::range_pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Recording, recording};

    /// Two steps after three.
    #[test]
    fn steady_steps_are_bracketed() {
        use Recording::{Start, Stop, Unchanged};
        let all: Vec<Recording> = (0..8).map(|done| recording(done, 2)).collect();
        assert_eq!(all, [Unchanged, Unchanged, Unchanged, Start, Unchanged, Stop, Unchanged, Unchanged]);
        assert!((0..9).all(|done| recording(done, 0) != Recording::Start));
    }
}
