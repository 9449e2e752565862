//! Switches of planted faults. `tests/mutation` adds this module to its copy of the engine, never to the engine itself.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// More than there are switches.
const MOST: usize = 4096;

struct State {
    /// The fault that is there; 0 for none.
    number: usize,
    /// Where to note which switches are reached.
    reached: Option<std::ffi::OsString>,
}

static STATE: OnceLock<State> = OnceLock::new();
static NOTED: [AtomicBool; MOST] = [const { AtomicBool::new(false) }; MOST];

/// Whether fault `number` is there.
#[inline]
pub fn planted(number: usize) -> bool {
    let state = STATE.get_or_init(read);
    if let Some(path) = &state.reached {
        note(path, number);
    }
    state.number == number
}

#[cold]
fn read() -> State {
    let number = env::var("MUTATION_PLANTED").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    State { number, reached: env::var_os("MUTATION_REACHED") }
}

/// Appends the number, once a process. A line is one write, so processes may share the file.
#[cold]
fn note(path: &std::ffi::OsStr, number: usize) {
    if NOTED[number].swap(true, Ordering::Relaxed) {
        return;
    }
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = file.write_all(format!("{number}\n").as_bytes());
    }
}
