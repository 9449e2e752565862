//! The binomial distribution: whether a count of right answers is more than chance.

/// The probability that of `n` independent trials, each of which succeeds with probability `p`, at least `k` succeed.
pub fn at_least(k: usize, n: usize, p: f64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if k > n || p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    // In logarithms: most of the terms are below the smallest f64.
    let odds = (p / (1.0 - p)).ln();
    let choose: f64 = (0..k).map(|i| ((n - i) as f64 / (i + 1) as f64).ln()).sum();
    let mut term = choose + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln();
    let mut sum = 0.0;
    for successes in k..=n {
        sum += term.exp();
        term += odds + ((n - successes) as f64 / (successes + 1) as f64).ln();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::at_least;

    /// By hand: one and two heads of two coins, and ten tries at one in ten.
    #[test]
    fn small_cases_are_those_of_the_definition() {
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        near(at_least(1, 2, 0.5), 0.75);
        near(at_least(2, 2, 0.5), 0.25);
        near(at_least(0, 7, 0.3), 1.0);
        near(at_least(8, 7, 0.3), 0.0);
        near(at_least(1, 10, 0.1), 1.0 - 0.9f64.powi(10));
        near(at_least(10, 10, 0.1), 1e-10);
        assert_eq!((at_least(3, 5, 0.0), at_least(3, 5, 1.0), at_least(0, 0, 0.5)), (0.0, 1.0, 1.0));
    }

    /// Half of the distribution lies above its middle, and five deviations above it nearly nothing.
    #[test]
    fn ten_thousand_trials_neither_underflow_nor_overflow() {
        let half = at_least(1135, 10_000, 0.1135);
        assert!((0.49..0.53).contains(&half), "{half}");
        // The normal distribution has 2.9e-7 above five deviations; the binomial is skewed.
        let tail = at_least(1135 + 5 * 32, 10_000, 0.1135);
        assert!((1e-7..2e-6).contains(&tail), "{tail}");
        assert!((at_least(1, 10_000, 0.1135) - 1.0).abs() < 1e-9);
    }
}
