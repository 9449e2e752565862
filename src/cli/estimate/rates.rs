//! Seconds of an image pass of each kind: as measured before the run, and corrected by it.

/// Seconds of a run that weigh as much as the measurement before it: of one kind, and of all where they speak for a kind that
/// has not run yet.
const PROBE_WEIGHT: f64 = 0.5;

/// What is known of the kinds.
pub struct Rates {
    kinds: Vec<Rate>,
}

/// What is known of a kind.
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
        Rates { kinds: kinds.into_iter().map(rate).collect() }
    }

    /// Books `seconds` for passes of these kinds, shared as they should take.
    pub fn add(&mut self, passes: &[(usize, u64)], seconds: f64) {
        let expected = |&(kind, passes): &(usize, u64)| passes as f64 * self.kinds[kind].measured_before;
        let expected: Vec<f64> = passes.iter().map(expected).collect();
        let all: f64 = expected.iter().sum();
        for (&(kind, made), expected) in passes.iter().zip(&expected) {
            let share = if all > 0.0 { expected / all } else { 1.0 / passes.len() as f64 };
            self.kinds[kind].passes += made as f64;
            self.kinds[kind].seconds += share * seconds;
        }
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
        // The end of a stage takes time too.
        rates.add(&[(1, 0)], 1.0);
        assert!(near(rates.kinds[1].seconds, 7.0));
    }
}
