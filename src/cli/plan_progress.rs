//! How a run proceeds: bars on a terminal, a line every few seconds elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use super::console;
use crate::base::error::{Error, Result};
use crate::experiments::pipeline::{Job, Monitor, Plan, Prepared, StageResult};
use crate::train::EpochRow;

/// Between two lines when the output is not a terminal.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on stderr; results go to stdout.
pub struct PlanProgress {
    state: Mutex<State>,
    display: Display,
}

enum Display {
    Quiet,
    Lines,
    Bars { all: MultiProgress, overall: ProgressBar },
}

struct State {
    totals: ImagePassTotals,
    last_line: Instant,
    bars: HashMap<usize, ProgressBar>,
}

/// Image passes done and to do.
struct ImagePassTotals {
    started: Instant,
    total: u64,
    /// Image passes of stages that are not running.
    done: u64,
    /// Image passes of running stages, by job.
    running: HashMap<usize, u64>,
    /// Done by this process: what the estimate builds on.
    measured: u64,
    stages: usize,
    stages_ended: usize,
}

impl ImagePassTotals {
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

impl PlanProgress {
    /// For the work of `prepared`, a preparation of `plan`.
    pub fn new(plan: &Plan, prepared: &Prepared<'_>, quiet: bool) -> Self {
        let total = plan.jobs().iter().map(|job| job.image_passes).sum();
        // The work of earlier runs on a stage is added when its work begins.
        let pending: u64 = prepared.remaining().map(|(job, _)| job.image_passes).sum();
        let stages = plan.jobs().len();
        let totals = ImagePassTotals {
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
        PlanProgress { state: Mutex::new(State { totals, last_line: Instant::now(), bars: HashMap::new() }), display }
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
        let totals = &state.totals;
        match &self.display {
            Display::Quiet => {}
            Display::Bars { overall, .. } => {
                overall.set_position(totals.all_done());
                overall.set_message(format!(
                    "{}/{} stages, {}",
                    totals.stages_ended,
                    totals.stages,
                    totals.left_text()
                ));
            }
            Display::Lines if state.last_line.elapsed() >= LINE_EVERY => {
                let elapsed = HumanDuration(totals.started.elapsed());
                console::note(&format!(
                    "{:5.1}%  {}/{} stages  {elapsed}, {}",
                    totals.percent(),
                    totals.stages_ended,
                    totals.stages,
                    totals.left_text()
                ));
                state.last_line = Instant::now();
            }
            Display::Lines => {}
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
    fn started(&self, job: &Job, done: u64) {
        let mut state = self.state();
        state.totals.running.insert(job.id.index(), done);
        if let Display::Bars { all, overall } = &self.display {
            let bar = all.insert_before(overall, ProgressBar::new(job.image_passes));
            bar.set_style(style("  {percent:>3}%  {prefix}  {msg}"));
            bar.set_prefix(job.label.clone());
            state.bars.insert(job.id.index(), bar);
        }
        self.show(&mut state);
    }

    fn advanced(&self, job: &Job, image_passes: u64) {
        let mut state = self.state();
        state.totals.measured += image_passes;
        let done = state.totals.running.entry(job.id.index()).or_default();
        *done = (*done + image_passes).min(job.image_passes);
        let done = *done;
        if let Some(bar) = state.bars.get(&job.id.index()) {
            bar.set_position(done);
        }
        self.show(&mut state);
    }

    fn epoch(&self, job: &Job, row: &EpochRow, epochs: usize) {
        let mut state = self.state();
        // Exact again after a resumption in the middle of an epoch.
        let done = job.image_passes / epochs.max(1) as u64 * row.epoch as u64;
        state.totals.running.insert(job.id.index(), done);
        if let Some(bar) = state.bars.get(&job.id.index()) {
            let measured = row.test_natural.zip(row.test_adversarial);
            let measured = measured.map_or(String::new(), |(natural, robust)| format!("  {natural:.2}/{robust:.2}"));
            bar.set_message(format!("epoch {}/{epochs}{measured}", row.epoch));
        }
    }

    fn ended(&self, job: &Job, outcome: &Result<StageResult>) {
        let mut state = self.state();
        let partly = state.totals.running.remove(&job.id.index()).unwrap_or(0);
        state.totals.done += if outcome.is_ok() { job.image_passes } else { partly };
        state.totals.stages_ended += usize::from(!matches!(outcome, Err(Error::Interrupted)));
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
    use crate::data::{DataId, DatasetName};
    use crate::experiments::pipeline::{
        BackendName, EvalConfig, EvalResult, ImportConfig, ImportResult, Precision, StageConfig, Store,
    };
    use crate::experiments::tables::defaults::paper_training;
    use crate::nn::models::Network;
    use crate::train::TrainConfig;

    /// A training of four epochs in 100 passes, and a measurement of it in 300.
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

    #[test]
    fn every_pass_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let (store, plan) = (Store::open(dir.path()).unwrap(), plan());
        let progress = PlanProgress::new(&plan, &plan.prepare(&store, false).unwrap(), true);
        let done = || progress.state().totals.all_done();
        let [first, second] = plan.jobs() else { panic!("two stages") };
        assert_eq!((done(), progress.state().totals.percent()), (0, 0.0));
        // An earlier run has left an epoch.
        progress.started(first, 25);
        progress.advanced(first, 10);
        assert_eq!((done(), progress.state().totals.percent()), (35, 8.75));
        progress.epoch(first, &row(2), 4);
        assert_eq!(done(), 50, "two of four epochs are half of it");
        progress.advanced(first, 1000);
        assert_eq!(done(), 100, "a stage is never more than done");
        progress.ended(first, &Ok(measured(false, 1.0)));
        assert_eq!((done(), progress.state().totals.stages_ended), (100, 1));
        progress.started(second, 0);
        progress.advanced(second, 30);
        progress.ended(second, &Err(Error::Interrupted));
        let state = progress.state();
        assert_eq!((state.totals.all_done(), state.totals.stages_ended), (130, 1));
        assert_eq!(state.totals.measured, 10 + 1000 + 30, "what this process has done");
    }

    #[test]
    fn finished_stages_count_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut plan) = (Store::open(dir.path()).unwrap(), plan());
        let import = ImportConfig { sha256: "00ff".into(), network: Network::LeNet, width: 1 };
        let import = plan.add("import", StageConfig::Import(import), &[], 100).unwrap();
        let Job { key, stage, .. } = &plan.jobs()[import.index()];
        store.lock(key).unwrap().finish(&stage.config, &imported()).unwrap();
        let progress = PlanProgress::new(&plan, &plan.prepare(&store, false).unwrap(), true);
        let totals = &progress.state().totals;
        assert_eq!((totals.total, totals.done, totals.stages, totals.stages_ended), (500, 100, 3, 1));
    }

    /// By the passes of this process and its time: what earlier runs did says nothing of this machine.
    #[test]
    fn the_time_left_is_that_of_the_passes_left_at_this_speed() {
        let totals = |elapsed, done, measured| ImagePassTotals {
            started: Instant::now() - Duration::from_secs(elapsed),
            total: 400,
            done,
            running: [(0, 40)].into(),
            measured,
            stages: 2,
            stages_ended: 1,
        };
        // 20 in 10 s: 260 more take 130 s.
        let left = totals(10, 100, 20).left().unwrap().as_secs_f64();
        assert!((left - 130.0).abs() < 2.0, "{left}");
        assert_eq!(totals(10, 100, 20).left_text(), "about 2 minutes left");
        assert_eq!(totals(10, 360, 20).left().unwrap(), Duration::ZERO);
        assert_eq!((totals(0, 100, 20).left(), totals(10, 100, 0).left()), (None, None));
        assert_eq!(totals(10, 100, 0).left_text(), "estimating");
        let nothing = ImagePassTotals { total: 0, running: HashMap::new(), ..totals(10, 0, 0) };
        assert_eq!((nothing.all_done(), nothing.percent()), (0, 100.0));
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
