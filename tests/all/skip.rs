//! Tests that cannot be run here. Each says so in a line with SKIP, and the last lines that the program prints count them by what
//! is missing, because a test that did nothing is `ok` too.
//!
//! `ENGINE_SKIPS` names what may be missing, separated by spaces; anything else then fails its test. Without it everything may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, Once, PoisonError};
use std::{env, fmt, thread};

const ENV_SKIPS: &str = "ENGINE_SKIPS";

/// Missing things that tests are skipped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A data set's full files, or its JPEG copy.
    Data,
    /// A C++ compiler, for kernels on the host and for the stand-in for NVIDIA's driver.
    Compiler,
    /// A GPU with its driver.
    Gpu,
    /// NVRTC, while the tests were built or when they are run.
    Nvrtc,
    /// The disassembler.
    Nvdisasm,
    /// Vector instructions of the processor.
    Processor,
    /// The right to mount a file system, `/dev/full`, or `script`.
    System,
    /// Chromium, or a browser of its kind.
    Browser,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Data => "data",
            Missing::Compiler => "compiler",
            Missing::Gpu => "gpu",
            Missing::Nvrtc => "nvrtc",
            Missing::Nvdisasm => "nvdisasm",
            Missing::Processor => "processor",
            Missing::System => "system",
            Missing::Browser => "browser",
        })
    }
}

/// Whether `allowed`, the value of `ENGINE_SKIPS`, lets a test be skipped for this.
fn may_be_missing(missing: Missing, allowed: Option<&str>) -> bool {
    allowed.is_none_or(|names| names.split_whitespace().any(|name| name == missing.to_string()))
}

/// The tests that were skipped, by what was missing and why.
type Skipped = BTreeMap<(Missing, String), BTreeSet<String>>;

static SKIPPED: Mutex<Skipped> = Mutex::new(Skipped::new());

/// Notes that this test cannot do its work, or a part of it.
///
/// # Panics
/// If that must not be missing.
pub fn skip(missing: Missing, why: &str) {
    let allowed = env::var(ENV_SKIPS).ok();
    assert!(may_be_missing(missing, allowed.as_deref()), "{ENV_SKIPS} does not name `{missing}`, but {why}");
    println!("SKIP: {why}");
    let test = thread::current().name().unwrap_or("?").to_string();
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).entry((missing, why.to_string())).or_default().insert(test);
    summarise_at_exit();
}

/// What `found` is; or `None`, and the test is skipped.
pub fn or_skip<T>(missing: Missing, found: Result<T, impl fmt::Display>) -> Option<T> {
    found.map_err(|why| skip(missing, &why.to_string())).ok()
}

/// A line for each reason, and before them how many tests they are; nothing where none was skipped.
fn summary(skipped: &Skipped) -> String {
    let tests: BTreeSet<&String> = skipped.values().flatten().collect();
    if tests.is_empty() {
        return String::new();
    }
    let mut text = format!("NOT RUN: {} tests that passed did nothing, or only a part of their work\n", tests.len());
    for ((missing, why), tests) in skipped {
        text += &format!("  {:>4}  {missing}: {why}\n", tests.len());
    }
    text + "\n"
}

/// Prints the summary behind the last line of the test harness, which knows of no skips.
fn summarise_at_exit() {
    unsafe extern "C" {
        fn atexit(function: extern "C" fn()) -> std::ffi::c_int;
    }
    extern "C" fn print_summary() {
        print!("{}", summary(&SKIPPED.lock().unwrap_or_else(PoisonError::into_inner)));
    }
    static REGISTERED: Once = Once::new();
    // SAFETY: the function lives as long as the program, and does not unwind: it cannot panic but where the standard output is
    // gone, which ends the program as well.
    REGISTERED.call_once(|| assert_eq!(unsafe { atexit(print_summary) }, 0, "there is room to register a function"));
}

#[test]
fn only_what_is_named_may_be_missing() {
    assert!(may_be_missing(Missing::Gpu, None));
    assert!(may_be_missing(Missing::Gpu, Some("data gpu")));
    for named in ["", "data", "gpus", "data,gpu"] {
        assert!(!may_be_missing(Missing::Gpu, Some(named)), "{named:?}");
    }
}

#[test]
fn the_summary_counts_each_test_once_and_each_reason() {
    let tests = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(summary(&Skipped::new()), "");
    let skipped = Skipped::from([
        ((Missing::Gpu, "no driver".to_string()), tests(&["a", "b"])),
        ((Missing::Data, "no mnist".to_string()), tests(&["b"])),
    ]);
    assert_eq!(
        summary(&skipped),
        "NOT RUN: 2 tests that passed did nothing, or only a part of their work\n     1  data: no mnist\n     2  gpu: no driver\n\n"
    );
}
