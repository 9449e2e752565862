//! How a run proceeds: bars on a terminal, a line every few seconds elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::console;
use super::estimate::Estimate;
use crate::base::error::{Error, Result};
use crate::experiments::pipeline::{Job, Monitor, Plan, Prepared, StageResult};
use crate::train::EpochRow;

/// Between two lines when the output is not a terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(5);

/// Between two updates of the bars.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// Steps of the bar of the whole run.
const BAR_LENGTH: u64 = 1000;

/// Shows progress on stderr; results go to stdout.
pub struct PlanProgress {
    state: Mutex<State>,
    display: Display,
    /// When the run began.
    begin: Instant,
}

enum Display {
    Quiet,
    Lines,
    Bars { all: MultiProgress, overall: ProgressBar },
}

struct State {
    estimate: Estimate,
    /// Highest share of the time that was shown: a later estimate may be longer, but what is done stays done.
    percent: f64,
    stages: usize,
    stages_ended: usize,
    shown: Instant,
    bars: HashMap<usize, ProgressBar>,
}

impl State {
    /// What to show after so many seconds: percent, and "2/3 stages" with the time left.
    fn status(&mut self, seconds: f64) -> (f64, String) {
        let left = self.estimate.left(seconds);
        let percent = left.map(|left| 100.0 * seconds / (seconds + left.as_secs_f64()).max(1e-9));
        self.percent = percent.unwrap_or(0.0).max(self.percent);
        let left = left.map_or("estimating".to_string(), |left| format!("{} left", self.estimate.about(left)));
        (self.percent, format!("{}/{} stages, {left}", self.stages_ended, self.stages))
    }
}

impl PlanProgress {
    /// For the work of `prepared`, a preparation of `plan`, which should take as long as `estimate` says.
    pub fn new(plan: &Plan, prepared: &Prepared<'_>, estimate: Estimate, quiet: bool) -> Self {
        let (stages, pending, now) = (plan.jobs().len(), prepared.pending(), Instant::now());
        let display = match (quiet || pending == 0, std::io::stderr().is_terminal()) {
            (true, _) => Display::Quiet,
            (false, false) => Display::Lines,
            (false, true) => bars(),
        };
        let stages_ended = stages - pending;
        let state = State { estimate, percent: 0.0, stages, stages_ended, shown: now, bars: HashMap::new() };
        PlanProgress { state: Mutex::new(state), display, begin: now }
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

    /// Seconds since the beginning.
    fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Shows how the run proceeds, if it is time to.
    fn show(&self, state: &mut State) {
        let every = match &self.display {
            Display::Quiet => return,
            Display::Lines => LINE_EVERY,
            Display::Bars { .. } => BAR_EVERY,
        };
        if state.shown.elapsed() < every {
            return;
        }
        state.shown = Instant::now();
        let (percent, text) = state.status(self.now());
        if let Display::Bars { overall, .. } = &self.display {
            overall.set_position((percent * BAR_LENGTH as f64 / 100.0) as u64);
            overall.set_message(text);
        } else {
            console::note(&format!("{percent:5.1}%  {}, {text}", console::duration(self.begin.elapsed())));
        }
    }

    fn line(&self, line: &str) {
        match &self.display {
            Display::Quiet => {}
            Display::Lines => console::note(line),
            // Printing past the bars would leave scraps of them on the screen. If stderr has gone, nobody misses it.
            Display::Bars { all, .. } => drop(all.println(line)),
        }
    }
}

impl Monitor for PlanProgress {
    fn started(&self, job: &Job, epochs: usize) {
        let mut state = self.state();
        state.estimate.started(job.id.index(), epochs, self.now());
        if let Display::Bars { all, overall } = &self.display {
            let (done, total) = state.estimate.image_passes(job.id.index());
            let bar = all.insert_before(overall, ProgressBar::new(total));
            bar.set_style(style("  {percent:>3}%  {prefix}  {msg}"));
            bar.set_prefix(job.label.clone());
            bar.set_position(done);
            state.bars.insert(job.id.index(), bar);
        }
        self.show(&mut state);
    }

    fn advanced(&self, job: &Job, image_passes: u64) {
        let mut state = self.state();
        state.estimate.advanced(job.id.index(), image_passes, self.now());
        if let Some(bar) = state.bars.get(&job.id.index()) {
            bar.set_position(state.estimate.image_passes(job.id.index()).0);
        }
        self.show(&mut state);
    }

    fn expect(&self, job: &Job, left: u64) {
        self.state().estimate.expect(job.id.index(), left);
    }

    fn epoch(&self, job: &Job, row: &EpochRow, epochs: usize) {
        let mut state = self.state();
        state.estimate.epoch(job.id.index(), row.epoch);
        if let Some(bar) = state.bars.get(&job.id.index()) {
            let measured = row.test_natural.zip(row.test_adversarial);
            let measured = measured.map_or(String::new(), |(natural, robust)| format!("  {natural:.2}/{robust:.2}"));
            bar.set_message(format!("epoch {}/{epochs}{measured}", row.epoch));
        }
    }

    fn ended(&self, job: &Job, outcome: &Result<StageResult>) {
        let mut state = self.state();
        state.estimate.ended(job.id.index(), outcome.is_ok(), self.now());
        state.stages_ended += usize::from(!matches!(outcome, Err(Error::Interrupted)));
        if let Some(bar) = state.bars.remove(&job.id.index()) {
            bar.finish_and_clear();
        }
        self.line(&ending(job, outcome));
        self.show(&mut state);
    }
}

fn bars() -> Display {
    let all = MultiProgress::new();
    let overall = all.add(ProgressBar::new(BAR_LENGTH));
    overall.set_style(style("{bar:30} {percent:>3}%  {elapsed}  {msg}"));
    Display::Bars { all, overall }
}

pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One line for a stage that ended.
fn ending(job: &Job, outcome: &Result<StageResult>) -> String {
    let label = &job.label;
    match outcome.as_ref().map(StageResult::scores) {
        Ok(None) => format!("done  {label}"),
        Ok(Some(scores)) => {
            let collapsed = if scores.collapsed { ", collapsed" } else { "" };
            let (natural, adversarial) = (scores.natural, scores.adversarial);
            format!("done  {label}: {natural:.2}/{adversarial:.2}{collapsed}, {:.0} s", scores.seconds)
        }
        Err(Error::Interrupted) => format!("saved  {label}"),
        Err(error) => format!("failed  {label}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::evaluation::EvalReport;
    use crate::cli::estimate::{Kind, Measured};
    use crate::data::{DataId, Dataset, DatasetName};
    use crate::experiments::pipeline::{
        BackendName, EvalConfig, EvalResult, ImportConfig, ImportResult, Precision, StageConfig, Store,
    };
    use crate::experiments::tables::defaults::paper_training;
    use crate::nn::models::Network;
    use crate::train::TrainConfig;

    /// A training of four epochs, and a measurement of it.
    fn plan() -> Plan {
        let data = DataId { name: DatasetName::Mnist, subset: "full".into(), fingerprint: "0".into() };
        let config = TrainConfig { epochs: 4, ..paper_training(&data, 60_000) };
        let TrainConfig { data, network, width, seed, eval_attack, .. } = config.clone();
        let eval = EvalConfig { data, network, width, seed, sparsity: None, eval_attack };
        let mut plan = Plan::new(BackendName::Cpu, Precision::F32);
        let first = plan.add("first", StageConfig::Train(config), &[], 100).unwrap();
        plan.add("second", StageConfig::Eval(eval), &[first], 300).unwrap();
        plan
    }

    fn row(epoch: usize) -> EpochRow {
        EpochRow {
            epoch,
            lr: 0.1,
            eps: 0.3,
            train_loss: 2.3,
            train_accuracy: 11.35,
            zero_gradient: 0.0,
            test_natural: None,
            test_adversarial: None,
            test_natural_loss: None,
            test_adversarial_loss: None,
            held_out_natural: None,
            held_out_adversarial: None,
            seconds: 1.0,
        }
    }

    fn measured(collapsed: bool, seconds: f64) -> StageResult {
        let test = EvalReport {
            images: 1000,
            natural: 85.125,
            adversarial: 45.5,
            natural_loss: 0.1,
            adversarial_loss: 0.2,
            zero_gradient: 0.0,
            constant_prediction: None,
        };
        StageResult::Eval(EvalResult { test, collapsed, seconds })
    }

    fn imported() -> StageResult {
        StageResult::Import(ImportResult {})
    }

    /// The progress of a run that takes a second for each pass.
    fn progress(plan: &Plan, store: &Store) -> PlanProgress {
        let prepared = plan.prepare(store, false).unwrap();
        let data = Dataset::sample(DatasetName::Mnist).unwrap();
        let second_a_pass = |kinds: &[(Kind, u64)]| {
            let seconds = kinds.iter().map(|(kind, _)| Some(1.0 / kind.multiply_adds())).collect();
            Measured { seconds, exponent: 1.0 }
        };
        let estimate = Estimate::new(plan, &prepared, &data, 1, second_a_pass);
        PlanProgress::new(plan, &prepared, estimate, true)
    }

    #[test]
    fn percent_is_the_share_of_the_time_and_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let (store, plan) = (Store::open(dir.path()).unwrap(), plan());
        let progress = progress(&plan, &store);
        let mut state = progress.state();
        let whole = state.estimate.left(0.0).unwrap().as_secs_f64();
        assert_eq!(state.status(0.0).0, 0.0);
        // As much again as is left of it.
        let (half, text) = state.status(whole);
        assert!((half - 50.0).abs() < 1e-6, "{half}");
        assert_eq!(text, format!("0/2 stages, about {} left", console::duration(Duration::from_secs_f64(whole))));
        assert_eq!(state.status(1.0).0, half);
    }

    #[test]
    fn stages_count_when_they_end_and_those_of_earlier_runs_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut plan) = (Store::open(dir.path()).unwrap(), plan());
        let import = ImportConfig { sha256: "00ff".into(), network: Network::LeNet, width: 1 };
        let import = plan.add("import", StageConfig::Import(import), &[], 100).unwrap();
        let Job { key, stage, .. } = &plan.jobs()[import.index()];
        store.lock(key).unwrap().finish(&stage.config, &imported()).unwrap();
        let progress = progress(&plan, &store);
        let ended = || {
            let state = progress.state();
            (state.stages_ended, state.stages)
        };
        assert_eq!(ended(), (1, 3));
        let [first, second, _] = plan.jobs() else { panic!("three stages") };
        progress.started(first, 0);
        progress.advanced(first, 10);
        progress.epoch(first, &row(4), 4);
        progress.ended(first, &Ok(measured(false, 1.0)));
        assert_eq!(ended(), (2, 3));
        progress.started(second, 0);
        progress.ended(second, &Err(Error::Interrupted));
        assert_eq!(ended(), (2, 3));
    }

    #[test]
    fn a_stage_that_ended_says_how() {
        let plan = plan();
        let job = &plan.jobs()[1];
        let done = |result| ending(job, &Ok(result));
        assert_eq!(done(measured(true, 5.4)), "done  second: 85.12/45.50, collapsed, 5 s");
        assert_eq!(done(measured(false, 0.6)), "done  second: 85.12/45.50, 1 s");
        assert_eq!(done(imported()), "done  second");
        assert_eq!(ending(job, &Err(Error::Interrupted)), "saved  second");
        assert_eq!(ending(job, &Err(Error::Failed("a bug".into()))), "failed  second: a bug");
    }
}
