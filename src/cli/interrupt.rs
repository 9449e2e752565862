//! Ctrl-C.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::console;
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
    console::note(&format!("interrupted; the state is saved, resume with: {}", resume_command()));
}

/// The command that resumes this one: the same again, without `--fresh`, which would throw away what was saved.
fn resume_command() -> String {
    let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    args.filter(|arg| arg != "--fresh").map(|arg| quoted(&arg)).collect::<Vec<_>>().join(" ")
}

/// `arg` as a POSIX shell reads it back.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:,=+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_string();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes_only_what_a_shell_would_change() {
        assert_eq!(quoted("attack.eps=0.2"), "attack.eps=0.2");
        assert_eq!(quoted("*:adam"), "'*:adam'");
        assert_eq!(quoted("my data"), "'my data'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
