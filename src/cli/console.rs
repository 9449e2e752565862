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

/// Prints a line on stderr, if anyone still listens.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
