//! Seconds of an image pass of each kind: as measured before the run, and corrected by it.

/// Seconds of a run that weigh as much as the measurement before it: of one kind, and of all where they speak for a kind that
/// has not run yet.
const PROBE_WEIGHT: f64 = 0.5;

/// The seconds of each kind, and those of stages beside their image passes.
pub struct Rates {
    kinds: Vec<Rate>,
    /// Stages of the run that have begun, and the seconds they took to set up and to end.
    begun: u64,
    around: f64,
}

/// The seconds of a kind.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Seconds of a pass before the run.
    measured_before: f64,
    /// Image passes of the run, and the seconds they took.
    passes: f64,
    seconds: f64,
    /// Image passes that were planned for the stages that have ended, and those that they needed.
    planned: u64,
    needed: u64,
}

impl Rates {
    /// Of kinds given with the seconds of a pass before the run.
    pub fn new(kinds: impl IntoIterator<Item = f64>) -> Self {
        let rate = |measured_before| Rate { measured_before, passes: 0.0, seconds: 0.0, planned: 0, needed: 0 };
        Rates { kinds: kinds.into_iter().map(rate).collect(), begun: 0, around: 0.0 }
    }

    /// Books `seconds` for passes of these kinds, shared as they should take.
    pub fn add(&mut self, passes: &[(usize, u64)], seconds: f64) {
        let all = self.expected(passes);
        for &(kind, made) in passes {
            let share = self.expected(&[(kind, made)]) / all;
            self.kinds[kind].passes += made as f64;
            self.kinds[kind].seconds += if share.is_finite() { share * seconds } else { 0.0 };
        }
    }

    /// Books `seconds` for the first passes of a stage and for setting it up: what is more than the passes should take.
    pub fn begin(&mut self, passes: &[(usize, u64)], seconds: f64) {
        let of_passes = self.expected(passes).min(seconds);
        self.begun += 1;
        self.around += seconds - of_passes;
        self.add(passes, of_passes);
    }

    /// Books `seconds` for ending a stage.
    pub fn end(&mut self, seconds: f64) {
        self.around += seconds;
    }

    /// Seconds that a stage takes beside its image passes, going by those of the run.
    pub fn around(&self) -> f64 {
        self.around / self.begun.max(1) as f64
    }

    /// Seconds that passes should take by the measurement before the run.
    fn expected(&self, passes: &[(usize, u64)]) -> f64 {
        passes.iter().map(|&(kind, passes)| passes as f64 * self.kinds[kind].measured_before).sum()
    }

    /// Books that a stage has ended for which `planned` passes of this kind were planned, and `skipped` of them not needed.
    pub fn ended(&mut self, kind: usize, planned: u64, skipped: u64) {
        self.kinds[kind].planned += planned;
        self.kinds[kind].needed += planned - skipped;
    }

    /// Share of the planned passes that a stage of this kind will need, going by those that have ended.
    pub fn needed(&self, kind: usize) -> f64 {
        let Rate { planned, needed, .. } = self.kinds[kind];
        if planned == 0 { 1.0 } else { needed as f64 / planned as f64 }
    }

    /// Seconds of a pass of this kind, as far as is known by now.
    pub fn seconds(&self, kind: usize) -> f64 {
        let Rate { measured_before, passes, seconds, .. } = self.kinds[kind];
        let expected = passes * measured_before;
        let prior = PROBE_WEIGHT * self.slowdown();
        measured_before * (prior + seconds) / (PROBE_WEIGHT + expected)
    }

    /// By what factor the run takes longer than was measured before it.
    fn slowdown(&self) -> f64 {
        let sum = |f: fn(&Rate) -> f64| self.kinds.iter().map(f).sum::<f64>();
        (PROBE_WEIGHT + sum(|kind| kind.seconds)) / (PROBE_WEIGHT + sum(|kind| kind.passes * kind.measured_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn without_a_run_a_pass_takes_what_was_measured_before() {
        let rates = Rates::new([0.1, 0.2]);
        assert_eq!([0, 1].map(|kind| rates.seconds(kind)), [0.1, 0.2]);
    }

    #[test]
    fn the_run_overrules_what_was_measured_before() {
        let mut rates = Rates::new([0.1, 0.2]);
        // Three times as slow.
        rates.add(&[(0, 1000)], 300.0);
        assert!((rates.seconds(0) / 0.3 - 1.0).abs() < 0.01, "{}", rates.seconds(0));
        // What has not run yet will be as slow, for all we know.
        assert!((rates.seconds(1) / 0.6 - 1.0).abs() < 0.01, "{}", rates.seconds(1));
        // Until it runs, and is not.
        rates.add(&[(1, 1000)], 200.0);
        assert!((rates.seconds(1) / 0.2 - 1.0).abs() < 0.01, "{}", rates.seconds(1));
        assert!((rates.seconds(0) / 0.3 - 1.0).abs() < 0.01, "{}", rates.seconds(0));
    }

    /// Half a second of a run that is twice as slow: 1 s for what should take 0.5 s.
    #[test]
    fn a_short_run_is_believed_as_much_as_the_measurement_before() {
        let mut rates = Rates::new([0.1, 0.2]);
        rates.add(&[(0, 5)], 1.0);
        // All kinds: (0.5 + 1) / (0.5 + 0.5). This kind: (0.5 · 1.5 + 1) / (0.5 + 0.5).
        assert!(near(rates.seconds(0), 0.1 * 1.75), "{}", rates.seconds(0));
        assert!(near(rates.seconds(1), 0.2 * 1.5), "{}", rates.seconds(1));
    }

    /// As a suite of attacks that breaks most images.
    #[test]
    fn stages_of_a_kind_will_need_the_share_that_others_needed() {
        let mut rates = Rates::new([0.1, 0.2]);
        assert!(near(rates.needed(0), 1.0));
        rates.ended(0, 100, 80);
        rates.ended(0, 100, 40);
        assert!(near(rates.needed(0), 0.4) && near(rates.needed(1), 1.0));
    }

    #[test]
    fn seconds_are_shared_as_the_passes_should_take() {
        let mut rates = Rates::new([0.1, 0.3]);
        rates.add(&[(0, 10), (1, 10)], 8.0);
        let seconds: Vec<f64> = rates.kinds.iter().map(|kind| kind.seconds).collect();
        assert!(near(seconds[0], 2.0) && near(seconds[1], 6.0), "{seconds:?}");
    }
    /// To load a large network takes seconds, which its first passes do not.
    #[test]
    fn what_it_takes_to_set_a_stage_up_makes_no_pass_slower() {
        let mut rates = Rates::new([0.1]);
        assert!(near(rates.around(), 0.0));
        rates.begin(&[(0, 10)], 4.0);
        assert!(near(rates.seconds(0), 0.1) && near(rates.around(), 3.0), "{} {}", rates.seconds(0), rates.around());
        rates.end(0.5);
        rates.begin(&[(0, 10)], 1.5);
        assert!(near(rates.around(), 2.0), "{}", rates.around());
        // A faster device than measured sets up in no time.
        rates.begin(&[(0, 10)], 0.5);
        assert!(near(rates.around(), 4.0 / 3.0) && rates.seconds(0) < 0.1);
    }
}
