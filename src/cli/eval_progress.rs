//! How a single evaluation proceeds: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::console;
use super::plan_progress::{LINE_EVERY, style};

/// Counts image passes and shows them on stderr; results go to stdout.
pub struct EvalProgress {
    bar: ProgressBar,
    /// When the last line was written; `None` where there are no lines.
    last_line: Option<Mutex<Instant>>,
}

impl EvalProgress {
    /// For an evaluation of `total` image passes.
    pub fn new(total: u64, quiet: bool) -> Self {
        let lines = !quiet && !std::io::stderr().is_terminal();
        let bar = if quiet || lines { ProgressBar::hidden() } else { ProgressBar::new(total) };
        bar.set_length(total);
        bar.set_style(style("{bar:30} {percent:>3}%  {elapsed}, about {eta} left"));
        EvalProgress { bar, last_line: lines.then(|| Mutex::new(Instant::now())) }
    }

    /// Adds image passes; from any thread.
    pub fn add(&self, image_passes: u64) {
        self.bar.inc(image_passes);
        let Some(last_line) = &self.last_line else { return };
        let mut last_line = last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last_line.elapsed() >= LINE_EVERY {
            console::note(&self.line());
            *last_line = Instant::now();
        }
    }

    /// From now on this many image passes are left, at most.
    pub fn expect(&self, left: u64) {
        self.bar.set_length(self.bar.position() + left);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// ` 42.0%  10 seconds, about 14 seconds left`.
    fn line(&self) -> String {
        let elapsed = self.bar.elapsed();
        let part = self.bar.position() as f64 / self.bar.length().unwrap_or(0).max(1) as f64;
        let left = Duration::from_secs_f64((elapsed.as_secs_f64() * (1.0 / part.max(1e-9) - 1.0)).clamp(0.0, 1e9));
        format!("{:5.1}%  {}, about {} left", 100.0 * part, console::duration(elapsed), console::duration(left))
    }
}
