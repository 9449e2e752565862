//! How a run proceeds: bars on a terminal, a line every few seconds elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use super::output;
use crate::error::{Error, Result};
use crate::pipeline::{Job, Monitor, Plan, Prepared, Scores, StageConfig};
use crate::train::EpochRow;

/// Between two lines when the output is not a terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on stderr; results go to stdout.
pub struct Progress {
    state: Mutex<State>,
    display: Display,
}

enum Display {
    Quiet,
    Lines,
    Bars { all: MultiProgress, overall: ProgressBar },
}

struct State {
    tally: Tally,
    last_line: Instant,
    bars: HashMap<usize, ProgressBar>,
}

/// Image passes done and to do.
struct Tally {
    started: Instant,
    total: u64,
    /// Of stages that are not running.
    done: u64,
    /// Of running stages, by job.
    running: HashMap<usize, u64>,
    /// Done by this process: what the estimate builds on.
    measured: u64,
    stages: usize,
    stages_ended: usize,
}

impl Tally {
    fn all_done(&self) -> u64 {
        (self.done + self.running.values().sum::<u64>()).min(self.total)
    }

    fn percent(&self) -> f64 {
        if self.total == 0 { 100.0 } else { 100.0 * self.all_done() as f64 / self.total as f64 }
    }

    /// Time left at the speed so far; unknown in the first moments.
    fn left(&self) -> Option<Duration> {
        let elapsed = self.started.elapsed().as_secs_f64();
        let rate = self.measured as f64 / elapsed;
        let left = (self.total - self.all_done()) as f64 / rate;
        (elapsed > 1.0 && left.is_finite()).then(|| Duration::from_secs_f64(left.min(1e9)))
    }

    fn left_text(&self) -> String {
        self.left().map_or("estimating".to_string(), |left| format!("about {} left", HumanDuration(left)))
    }
}

impl Progress {
    /// For the work of `prepared`, a preparation of `plan`.
    pub fn new(plan: &Plan, prepared: &Prepared<'_>, quiet: bool) -> Self {
        let total = plan.jobs().iter().map(|job| job.passes).sum();
        // What earlier runs did of a stage is added when its work begins.
        let pending: u64 = prepared.remaining().map(|(job, _)| job.passes).sum();
        let stages = plan.jobs().len();
        let tally = Tally {
            started: Instant::now(),
            total,
            done: total - pending,
            running: HashMap::new(),
            measured: 0,
            stages,
            stages_ended: stages - prepared.pending(),
        };
        let display = match (quiet || prepared.pending() == 0, std::io::stderr().is_terminal()) {
            (true, _) => Display::Quiet,
            (false, false) => Display::Lines,
            (false, true) => bars(total),
        };
        Progress { state: Mutex::new(State { tally, last_line: Instant::now(), bars: HashMap::new() }), display }
    }

    /// Removes the bars.
    pub fn finish(&self) {
        if let Display::Bars { all, overall } = &self.display {
            overall.finish_and_clear();
            // A terminal that has gone needs no clearing.
            let _ = all.clear();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The counters are whole after every statement, so a panic elsewhere leaves nothing to distrust.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &mut State) {
        let tally = &state.tally;
        match &self.display {
            Display::Quiet => {}
            Display::Bars { overall, .. } => {
                overall.set_position(tally.all_done());
                overall.set_message(format!("{}/{} stages, {}", tally.stages_ended, tally.stages, tally.left_text()));
            }
            Display::Lines if state.last_line.elapsed() >= LINE_EVERY => {
                let elapsed = HumanDuration(tally.started.elapsed());
                output::note(&format!(
                    "{:5.1}%  {}/{} stages  {elapsed}, {}",
                    tally.percent(),
                    tally.stages_ended,
                    tally.stages,
                    tally.left_text()
                ));
                state.last_line = Instant::now();
            }
            Display::Lines => {}
        }
    }

    fn line(&self, line: &str) {
        match &self.display {
            Display::Quiet => {}
            Display::Lines => output::note(line),
            // Printing past the bars would leave scraps of them on the screen. If stderr has gone, nobody misses it.
            Display::Bars { all, .. } => drop(all.println(line)),
        }
    }
}

impl Monitor for Progress {
    fn started(&self, job: &Job, done: u64) {
        let mut state = self.state();
        state.tally.running.insert(job.id.index(), done);
        if let Display::Bars { all, overall } = &self.display {
            let bar = all.insert_before(overall, ProgressBar::new(job.passes));
            bar.set_style(style("  {percent:>3}%  {prefix}  {msg}"));
            bar.set_prefix(job.label.clone());
            state.bars.insert(job.id.index(), bar);
        }
        self.show(&mut state);
    }

    fn advanced(&self, job: &Job, passes: u64) {
        let mut state = self.state();
        state.tally.measured += passes;
        let done = state.tally.running.entry(job.id.index()).or_default();
        *done = (*done + passes).min(job.passes);
        let done = *done;
        if let Some(bar) = state.bars.get(&job.id.index()) {
            bar.set_position(done);
        }
        self.show(&mut state);
    }

    fn epoch(&self, job: &Job, row: &EpochRow, epochs: usize) {
        let mut state = self.state();
        // Exact again after a resumption in the middle of an epoch.
        let done = job.passes / epochs.max(1) as u64 * row.epoch as u64;
        state.tally.running.insert(job.id.index(), done);
        if let Some(bar) = state.bars.get(&job.id.index()) {
            let measured = row.test_natural.zip(row.test_adversarial);
            let measured = measured.map_or(String::new(), |(natural, robust)| format!("  {natural:.2}/{robust:.2}"));
            bar.set_message(format!("epoch {}/{epochs}{measured}", row.epoch));
        }
    }

    fn ended(&self, job: &Job, outcome: &Result<Value>) {
        let mut state = self.state();
        let partly = state.tally.running.remove(&job.id.index()).unwrap_or(0);
        state.tally.done += if outcome.is_ok() { job.passes } else { partly };
        state.tally.stages_ended += usize::from(!matches!(outcome, Err(Error::Interrupted)));
        if let Some(bar) = state.bars.remove(&job.id.index()) {
            bar.finish_and_clear();
        }
        self.line(&ending(job, outcome));
        self.show(&mut state);
    }
}

fn bars(total: u64) -> Display {
    let all = MultiProgress::new();
    let overall = all.add(ProgressBar::new(total));
    overall.set_style(style("{bar:30} {percent:>3}%  {elapsed}  {msg}"));
    Display::Bars { all, overall }
}

pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One line for a stage that ended.
fn ending(job: &Job, outcome: &Result<Value>) -> String {
    let label = &job.label;
    match outcome.as_ref().map(|result| Scores::of(&job.stage.config, result)) {
        Ok(_) if matches!(job.stage.config, StageConfig::Import(_)) => format!("done  {label}"),
        Ok(Ok(scores)) => {
            let collapsed = if scores.collapsed { ", collapsed" } else { "" };
            let (natural, adversarial) = (scores.natural, scores.adversarial);
            format!("done  {label}: {natural:.2}/{adversarial:.2}{collapsed}, {:.0} s", scores.seconds)
        }
        Err(Error::Interrupted) => format!("saved  {label}"),
        Ok(Err(error)) => format!("failed  {label}: {error}"),
        Err(error) => format!("failed  {label}: {error}"),
    }
}
