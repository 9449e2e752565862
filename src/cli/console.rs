//! Standard output and standard error. `println!` panics when the reader of a pipe has gone (`engine run … | head`); these do not.

use std::io::{ErrorKind, Write};

use crate::base::error::{Error, Result};

/// Prints `text` and a newline on stdout. A reader that has gone is no error: the files are what matters.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("stdout", "write")(e)),
        _ => Ok(()),
    }
}

/// The command that started this process, as a shell takes it.
pub fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    let quoted = |arg: String| {
        if !arg.is_empty() && arg.chars().all(plain) { arg } else { format!("'{}'", arg.replace('\'', r"'\''")) }
    };
    let args = std::env::args_os().skip(1).map(|arg| quoted(arg.to_string_lossy().into_owned()));
    ["engine".to_string()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}

/// Prints a line on stderr, if anyone still listens.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
