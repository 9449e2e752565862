//! The comparator of floating-point arrays that every numeric test uses.

/// Failing elements shown in a message.
const SHOWN: usize = 5;

/// The same numbers in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Bits, so that NaN and the sign of zero count.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Panics unless `got` and `want` have the same length and every element satisfies
/// `|got - want| <= atol + rtol * max(|want|, scale)`, where `scale` is the root mean square of the finite elements of
/// `want`.
///
/// The scale is there because rounding errors of a sum are relative to its terms, not to a result in which they
/// happened to cancel; the root mean square, rather than the maximum, keeps one outlier from hiding errors in the rest.
/// NaN fails on either side, an infinity must meet the same infinity, and comparing nothing fails.
#[track_caller]
pub fn assert_close<G, W>(what: &str, got: &[G], want: &[W], rtol: f64, atol: f64)
where
    G: Copy + Into<f64>,
    W: Copy + Into<f64>,
{
    let all: Vec<usize> = (0..want.len()).collect();
    assert_close_at(what, &all, got, want, rtol, atol);
}

/// [`assert_close`] on a selection: `indices[i]` is the name of element `i` in the message.
#[track_caller]
pub fn assert_close_at<G, W>(what: &str, indices: &[usize], got: &[G], want: &[W], rtol: f64, atol: f64)
where
    G: Copy + Into<f64>,
    W: Copy + Into<f64>,
{
    let failures = failures(what, indices, got, want, rtol, atol);
    assert!(failures.is_empty(), "{}", message(what, failures, want.len()));
}

/// How many elements [`assert_close`] would not let pass: for what rounding may decide, but not often.
#[track_caller]
pub fn count_apart<G, W>(what: &str, got: &[G], want: &[W], rtol: f64, atol: f64) -> usize
where
    G: Copy + Into<f64>,
    W: Copy + Into<f64>,
{
    let all: Vec<usize> = (0..want.len()).collect();
    failures(what, &all, got, want, rtol, atol).len()
}

/// Elements out of tolerance.
#[track_caller]
fn failures<G, W>(what: &str, indices: &[usize], got: &[G], want: &[W], rtol: f64, atol: f64) -> Vec<Failure>
where
    G: Copy + Into<f64>,
    W: Copy + Into<f64>,
{
    assert!(rtol >= 0.0 && rtol.is_finite(), "{what}: rtol {rtol}");
    assert!(atol >= 0.0 && atol.is_finite(), "{what}: atol {atol}");
    assert_eq!(got.len(), want.len(), "{what}: number of elements, got and wanted");
    assert!(!want.is_empty(), "{what}: nothing to compare");
    let want: Vec<f64> = want.iter().map(|&w| w.into()).collect();
    let scale = root_mean_square(&want);
    let mut failures: Vec<Failure> = Vec::new();
    for ((&index, &got), &want) in indices.iter().zip(got).zip(&want) {
        let (got, allowed) = (got.into(), atol + rtol * want.abs().max(scale));
        let error = if got == want { 0.0 } else { (got - want).abs() };
        // Written so that a NaN is not within the tolerance; neither is an infinity within an infinite one.
        let within = error <= allowed && error.is_finite();
        if !within {
            failures.push(Failure { index, got, want, error, allowed });
        }
    }
    failures
}

/// An element out of tolerance.
struct Failure {
    index: usize,
    got: f64,
    want: f64,
    error: f64,
    allowed: f64,
}

/// Root mean square of the finite elements, 0 if there is none.
fn root_mean_square(values: &[f64]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for v in values.iter().filter(|v| v.is_finite()) {
        sum += v * v;
        count += 1;
    }
    if count == 0 { 0.0 } else { (sum / f64::from(count)).sqrt() }
}

/// The worst failures, NaN and infinite errors first.
fn message(what: &str, mut failures: Vec<Failure>, elements: usize) -> String {
    let badness = |f: &Failure| if f.error.is_finite() { f.error / f.allowed } else { f64::INFINITY };
    failures.sort_by(|a, b| badness(b).total_cmp(&badness(a)));
    let mut text = format!("{what}: {} of {elements} elements differ; the worst:", failures.len());
    for Failure { index, got, want, error, allowed } in failures.iter().take(SHOWN) {
        text += &format!("\n  [{index}] got {got:e} want {want:e} error {error:.3e} allowed {allowed:.3e}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::{assert_close, count_apart};

    /// The panic's message, or `None` if the arrays are close at rtol 1e-5, atol 0.
    fn failure(got: &[f32], want: &[f32]) -> Option<String> {
        let panic = catch_unwind(|| assert_close("y", got, want, 1e-5, 0.0)).err()?;
        Some(*panic.downcast::<String>().expect("panic with a formatted message"))
    }

    #[test]
    fn equal_and_nearly_equal_arrays_pass() {
        assert_eq!(failure(&[1.0, -2.0, 0.0], &[1.0, -2.0, 0.0]), None);
        assert_eq!(failure(&[1.000_005], &[1.0]), None);
        assert_eq!(failure(&[0.0, 0.0], &[0.0, 0.0]), None);
        assert_close("f64", &[1.0_f64 + 1e-12], &[1.0_f64], 1e-11, 0.0);
        assert_close("f32 and f64", &[0.5_f32], &[0.5_f64], 0.0, 0.0);
    }

    #[test]
    fn an_element_out_of_tolerance_fails() {
        assert!(failure(&[1.000_02], &[1.0]).is_some());
        assert!(failure(&[1e-30], &[0.0]).is_some());
    }

    #[test]
    fn nan_fails_on_either_side() {
        assert!(failure(&[f32::NAN, 1.0], &[1.0, 1.0]).is_some());
        assert!(failure(&[1.0, 1.0], &[1.0, f32::NAN]).is_some());
        assert!(failure(&[f32::NAN], &[f32::NAN]).is_some());
    }

    #[test]
    fn infinities_must_agree() {
        assert_eq!(failure(&[f32::INFINITY, 1.0], &[f32::INFINITY, 1.0]), None);
        assert!(failure(&[f32::INFINITY], &[f32::NEG_INFINITY]).is_some());
        assert!(failure(&[1.0], &[f32::INFINITY]).is_some());
        assert!(failure(&[f32::INFINITY], &[1.0]).is_some());
        // An infinite element must not loosen the tolerance of the others.
        assert!(failure(&[f32::INFINITY, 2.0], &[f32::INFINITY, 1.0]).is_some());
    }

    #[test]
    fn lengths_must_agree_and_not_be_zero() {
        assert!(failure(&[1.0], &[1.0, 1.0]).is_some());
        assert!(failure(&[1.0, 1.0], &[1.0]).is_some());
        assert!(failure(&[], &[]).is_some());
    }

    #[test]
    fn small_elements_are_judged_by_the_scale_of_the_array() {
        assert_eq!(failure(&[1.0, 5e-6], &[1.0, 0.0]), None);
        assert!(failure(&[1.0, 5e-5], &[1.0, 0.0]).is_some());
    }

    #[test]
    fn atol_allows_what_rtol_does_not() {
        assert_close("y", &[1e-7_f32], &[0.0_f32], 0.0, 1e-6);
        assert!(catch_unwind(|| assert_close("y", &[1e-5_f32], &[0.0_f32], 0.0, 1e-6)).is_err());
    }

    #[test]
    fn elements_out_of_tolerance_are_counted() {
        let want = [1.0_f32, 2.0, 3.0, 4.0, 0.0];
        assert_eq!(count_apart("y", &want, &want, 0.0, 0.0), 0);
        assert_eq!(count_apart("y", &[1.0, f32::NAN, 3.0, 5.0, f32::INFINITY], &want, 1e-5, 0.0), 3);
        assert!(catch_unwind(|| count_apart("y", &[1.0_f32], &want, 1e-5, 0.0)).is_err());
    }

    #[test]
    fn the_message_shows_the_five_worst_and_nan_before_all() {
        let mut got = [1.0; 9];
        for (i, g) in got.iter_mut().enumerate().skip(1) {
            *g += i as f32;
        }
        got[3] = f32::NAN;
        let message = failure(&got, &[1.0; 9]).expect("differs");
        assert!(message.starts_with("y: 8 of 9 elements differ"), "{message}");
        let shown: Vec<&str> = message.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(shown, ["[3]", "[8]", "[7]", "[6]", "[5]"], "{message}");
    }
}
