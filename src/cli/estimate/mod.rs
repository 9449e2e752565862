//! How long a run will take.
//!
//! Before it, a few steps of each [kind](kind::Kind) are measured on the device and the threads that the run will have. The promise
//! is the end of a simulated [`schedule`]: so many seconds for the image passes of each stage, parents before children, as many
//! side by side as there are slots, and faster where they are fewer. While it runs, the seconds that passes really take
//! [correct](rates) what was measured.
//!
//! Seconds of passes are those of a stage beside others in all slots. A second in which fewer run counts as more of them.

mod course;
mod kind;
mod probe;
mod rates;
mod schedule;

use std::time::{Duration, Instant};

use super::console;
use course::Course;
pub use kind::Kind;
use kind::Work;
pub use probe::{Measured, Probe};
use rates::Rates;
use schedule::{Entry, Sharing, State, seconds_left};

use crate::data::Dataset;
use crate::experiments::pipeline::{Plan, Prepared};

/// The stages of a plan, how far they are, and how long they take. Times are in seconds since the run began.
pub struct Estimate {
    stages: Vec<Stage>,
    rates: Rates,
    sharing: Sharing,
    /// [`Estimate::clock`] when a stage last began or ended, and when that was.
    at_change: f64,
    changed: f64,
    /// Seconds that the measurement took.
    measured_in: f64,
}

/// A stage on its way.
struct Stage {
    course: Course,
    /// Kinds of the passes that train and of those that measure, as places in the rates.
    kinds: [Option<usize>; 2],
    parents: Vec<usize>,
    state: State,
    /// Image passes done or not needed.
    done: u64,
    /// Those not needed.
    skipped: u64,
    /// Whether it may turn out to need fewer than planned.
    may_skip: bool,
    /// Whether this run has made passes of it.
    has_begun: bool,
    /// When it was last heard of, by [`Estimate::clock`].
    heard: f64,
}

impl Estimate {
    /// For what `prepared`, a preparation of `plan`, has left to do with `slots` stages side by side. `measure` gets the kinds,
    /// each with the image passes to be made of it, as [`Probe::measure`] does.
    pub fn new(
        plan: &Plan,
        prepared: &Prepared<'_>,
        data: &Dataset,
        slots: usize,
        measure: impl FnOnce(&[(Kind, u64)]) -> Measured,
    ) -> Self {
        let begin = Instant::now();
        let mut kinds: Vec<(Kind, u64)> = Vec::new();
        let mut stages: Vec<Stage> =
            plan.jobs().iter().map(|job| Stage::finished(Course::of(plan, job, data))).collect();
        for (job, epochs) in prepared.remaining() {
            let stage = &mut stages[job.id.index()];
            stage.state = State::Waiting;
            stage.done = stage.course.after(epochs as u64);
            stage.parents = job.parents.iter().map(|id| id.index()).collect();
            // A network that cannot be makes the estimate worse; that it fails the stage is for the worker to say.
            for (i, kind) in Kind::of(plan, job, data.classes).unwrap_or_default().into_iter().enumerate() {
                let Some(kind) = kind else { continue };
                let place = kinds.iter().position(|(known, _)| known.is_like(&kind)).unwrap_or_else(|| {
                    kinds.push((kind, 0));
                    kinds.len() - 1
                });
                kinds[place].1 += stage.left()[i];
                stage.kinds[i] = Some(place);
                // Images that an attack of a suite breaks are left out of the next.
                stage.may_skip |= matches!(kinds[place].0.work, Work::Suite(_));
            }
        }
        let Measured { seconds, exponent } = measure(&kinds);
        let rate =
            |(i, (kind, _)): (usize, &(Kind, u64))| kind.multiply_adds() * seconds_of_multiply_add(&kinds, &seconds, i);
        Estimate {
            rates: Rates::new(kinds.iter().enumerate().map(rate)),
            stages,
            sharing: Sharing { slots, exponent },
            at_change: 0.0,
            changed: 0.0,
            measured_in: begin.elapsed().as_secs_f64(),
        }
    }

    /// "about 2 minutes, measured in 1.0 s", or why there is nothing to tell.
    pub fn promise(&self) -> String {
        if self.stages.iter().all(|stage| stage.left() == [0, 0]) {
            return "nothing left to do".to_string();
        }
        let Some(left) = self.left(0.0) else { return "no step could be measured".to_string() };
        format!("{}, measured in {:.1} s", self.about(left.max(Duration::from_secs(1))), self.measured_in)
    }

    /// "about 2 minutes", the time `left`; "at most" where stages may need fewer image passes than planned.
    pub fn about(&self, left: Duration) -> String {
        let ends = |state| matches!(state, State::Finished | State::Failed);
        let may_skip = self.stages.iter().any(|stage| stage.may_skip && !ends(stage.state));
        format!("{}about {}", if may_skip { "at most " } else { "" }, console::duration(left))
    }

    /// Time until the end; `None` if no step could be measured.
    pub fn left(&self, now: f64) -> Option<Duration> {
        let mut known = true;
        let entries = self.stages.iter().map(|stage| {
            let mut seconds = if stage.state == State::Waiting { self.rates.around() } else { 0.0 };
            for (kind, passes) in stage.by_kind(stage.left()) {
                let of_pass = self.rates.seconds(kind);
                known &= of_pass > 0.0;
                let needed = if stage.state == State::Waiting { self.rates.needed(kind) } else { 1.0 };
                seconds += passes as f64 * needed * of_pass;
            }
            // The passes under way are partly done.
            let underway = if stage.state == State::Running { self.clock(now) - stage.heard } else { 0.0 };
            Entry { state: stage.state, seconds: (seconds - underway).max(0.0), parents: &stage.parents }
        });
        let entries: Vec<Entry> = entries.collect();
        let seconds = seconds_left(&entries, self.sharing).min(1e9);
        known.then(|| Duration::from_secs_f64(seconds))
    }

    /// Seconds at speed 1 that a stage could have had since the run began.
    fn clock(&self, now: f64) -> f64 {
        let running = self.stages.iter().filter(|stage| stage.state == State::Running).count();
        self.at_change + (now - self.changed) * self.sharing.speed(running)
    }

    /// The speed changes with the state of a stage.
    fn set_state(&mut self, stage: usize, state: State, now: f64) {
        (self.at_change, self.changed) = (self.clock(now), now);
        self.stages[stage].state = state;
    }

    /// Image passes that are done of a stage, and all of them.
    pub fn image_passes(&self, stage: usize) -> (u64, u64) {
        let stage = &self.stages[stage];
        (stage.done, stage.course.total())
    }

    /// Work on a stage begins; earlier runs trained `epochs` of its epochs.
    pub fn started(&mut self, stage: usize, epochs: usize, now: f64) {
        self.set_state(stage, State::Running, now);
        let stage = &mut self.stages[stage];
        (stage.done, stage.heard) = (stage.course.after(epochs as u64), self.at_change);
    }

    /// A stage has made more image passes.
    pub fn advanced(&mut self, stage: usize, passes: u64, now: f64) {
        let clock = self.clock(now);
        let stage = &mut self.stages[stage];
        let before = stage.course.split(stage.done);
        stage.done = (stage.done + passes).min(stage.course.total());
        let after = stage.course.split(stage.done);
        let made: Vec<(usize, u64)> = stage.by_kind([after[0] - before[0], after[1] - before[1]]).collect();
        let book = if stage.has_begun { Rates::add } else { Rates::begin };
        book(&mut self.rates, &made, clock - stage.heard);
        (stage.has_begun, stage.heard) = (true, clock);
    }

    /// A stage has ended an epoch. That makes its image passes exact after a resumption in the middle of one.
    pub fn epoch(&mut self, stage: usize, epoch: usize) {
        let stage = &mut self.stages[stage];
        stage.done = stage.course.after(epoch as u64).max(stage.done);
    }

    /// A stage will make at most `left` more image passes.
    pub fn expect(&mut self, stage: usize, left: u64) {
        let stage = &mut self.stages[stage];
        let skipped = (stage.course.total() - stage.done).saturating_sub(left);
        stage.done += skipped;
        stage.skipped += skipped;
    }

    /// Work on a stage has ended, `finished` or not.
    pub fn ended(&mut self, stage: usize, finished: bool, now: f64) {
        if finished {
            self.expect(stage, 0);
            let Stage { kinds: [_, kind], course, skipped, heard, .. } = self.stages[stage];
            if let Some(kind) = kind {
                self.rates.end(self.clock(now) - heard);
                self.rates.ended(kind, course.total(), skipped);
            }
        }
        self.set_state(stage, if finished { State::Finished } else { State::Failed }, now);
    }
}

impl Stage {
    fn finished(course: Course) -> Self {
        let (kinds, parents, done) = ([None; 2], Vec::new(), course.total());
        Stage {
            course,
            kinds,
            parents,
            state: State::Finished,
            done,
            skipped: 0,
            may_skip: false,
            has_begun: false,
            heard: 0.0,
        }
    }

    /// Image passes to come: those that train and those that measure.
    fn left(&self) -> [u64; 2] {
        let [all, done] = [self.course.total(), self.done].map(|passes| self.course.split(passes));
        [all[0] - done[0], all[1] - done[1]]
    }

    /// Numbers of passes that train and that measure, by their kinds; none of those that are zero.
    fn by_kind(&self, passes: [u64; 2]) -> impl Iterator<Item = (usize, u64)> {
        let kinds = self.kinds.into_iter().zip(passes);
        kinds.filter_map(|(kind, passes)| Some((kind?, passes)).filter(|_| passes > 0))
    }
}

/// Seconds of a multiply-add of kind `i`: as measured, or that of the measured kind whose network is closest in size. 0 if
/// nothing was measured.
fn seconds_of_multiply_add(kinds: &[(Kind, u64)], measured: &[Option<f64>], i: usize) -> f64 {
    let size = |i: usize| (kinds[i].0.architecture.multiply_adds as f64).ln();
    let known = (0..kinds.len()).filter_map(|k| Some((k, measured[k]?)));
    let distance = |k: usize| if k == i { -1.0 } else { (size(k) - size(i)).abs() };
    known.min_by(|a, b| distance(a.0).total_cmp(&distance(b.0))).map_or(0.0, |(_, seconds)| seconds)
}

#[cfg(test)]
mod tests;
