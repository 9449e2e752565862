//! Standard output, standard error, and questions. `println!` panics when the reader of a pipe has gone (`engine run … | head`);
//! these do not.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use crate::base::error::{Error, Result};

/// Prints `text` and a newline on stdout. A reader that has gone is no error: the files are what matters.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("stdout", "write")(e)),
        _ => Ok(()),
    }
}

/// A length of time in the largest unit of which it has two or more: `84 seconds`, `2 minutes`, `30 hours`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (length, unit) = match seconds {
        ..119.5 => (1.0, "second"),
        ..7170.0 => (60.0, "minute"),
        ..172_000.0 => (3600.0, "hour"),
        _ => (86_400.0, "day"),
    };
    let n = (seconds / length).round();
    format!("{n} {unit}{}", if n == 1.0 { "" } else { "s" })
}

/// Prints a line on stderr, if anyone still listens.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether someone is there to be asked.
pub fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks a question on stderr until the answer is yes or no. An empty line is yes, the end of the input no.
pub fn confirmed(question: &str) -> Result<bool> {
    loop {
        let _ = write!(std::io::stderr(), "{question} [Y/n] ");
        let mut answer = String::new();
        if std::io::stdin().read_line(&mut answer).map_err(Error::io("stdin", "read"))? == 0 {
            note("");
            return Ok(false);
        }
        match answer.trim().to_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_a_unit_of_which_there_are_two() {
        let said = [0.4, 1.2, 84.0, 119.4, 119.6, 151.0, 7169.0, 7171.0, 100_000.0, 172_799.0, 1e6]
            .map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(
            said,
            [
                "0 seconds",
                "1 second",
                "84 seconds",
                "119 seconds",
                "2 minutes",
                "3 minutes",
                "119 minutes",
                "2 hours",
                "28 hours",
                "2 days",
                "12 days"
            ]
        );
    }
}
