//! Ctrl-C.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{command_line, console};
use crate::base::error::{Error, Result};

static STOP: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();

/// From now on Ctrl-C (and SIGTERM) sets the returned flag; a second one ends the process at once.
pub fn flag() -> Result<&'static AtomicBool> {
    let install = || {
        ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(Error::Interrupted.exit_code().into());
            }
            console::note("stopping: finishing the step and saving; press Ctrl-C again to stop at once");
        })
        .map_err(|e| e.to_string())
    };
    match INSTALLED.get_or_init(install) {
        Ok(()) => Ok(&STOP),
        Err(why) => Err(Error::Failed(format!("cannot watch for Ctrl-C: {why}"))),
    }
}

/// Tells how to resume what was interrupted.
pub fn note_resume() {
    console::note(&format!("interrupted; the state is saved, resume with: {}", command_line::again()));
}
