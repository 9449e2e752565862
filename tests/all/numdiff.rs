//! Gradients checked by central differences.

use super::compare::assert_close_at;

/// Panics unless `analytic` is the gradient of `f` at `x`.
///
/// Each derivative is compared with `(f(x + h e_i) - f(x - h e_i)) / 2h`, `h = step * max(1, |x_i|)`, as in
/// [`super::compare::assert_close`] with `tolerance` as `rtol`; `atol` is what cancellation in the difference may cost.
/// With `samples`, only that many coordinates are checked, the same ones each time.
///
/// `f` must be smooth within `h` of `x`: keep inputs away from the kinks of ReLU and max-pool, or `step` small.
#[track_caller]
pub fn check_gradient(
    what: &str,
    mut f: impl FnMut(&[f64]) -> f64,
    x: &[f64],
    analytic: &[f64],
    step: f64,
    tolerance: f64,
    samples: Option<usize>,
) {
    assert_eq!(x.len(), analytic.len(), "{what}: length of x and of its gradient");
    let indices = coordinates(x.len(), samples);
    let mut point = x.to_vec();
    let mut largest = 0.0_f64;
    let mut numeric = Vec::with_capacity(indices.len());
    for &i in &indices {
        let h = step * x[i].abs().max(1.0);
        let (above, below) = (x[i] + h, x[i] - h);
        point[i] = above;
        let f_above = f(&point);
        point[i] = below;
        let f_below = f(&point);
        point[i] = x[i];
        // The distance after rounding, not 2h.
        numeric.push((f_above - f_below) / (above - below));
        largest = largest.max(f_above.abs()).max(f_below.abs());
    }
    let chosen: Vec<f64> = indices.iter().map(|&i| analytic[i]).collect();
    assert_close_at(what, &indices, &chosen, &numeric, tolerance, cancellation(largest, step));
}

/// Error of a central difference of values up to `largest`, each with a thousand roundings behind it.
fn cancellation(largest: f64, step: f64) -> f64 {
    1e3 * f64::EPSILON * largest / step
}

/// All of `0..len`, or `samples` of them in an order that follows no stride of the tensor's layout.
fn coordinates(len: usize, samples: Option<usize>) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..len).collect();
    if let Some(samples) = samples {
        indices.sort_by_key(|&i| splitmix64(i as u64));
        indices.truncate(samples);
        indices.sort_unstable();
    }
    indices
}

/// Mixes the bits of a counter (Steele, Lea & Flood, 2014).
fn splitmix64(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::{check_gradient, coordinates};

    /// A function with a full Hessian: `sum_i sin(x_i) x_{i+1}`, cyclic.
    fn f(x: &[f64]) -> f64 {
        (0..x.len()).map(|i| x[i].sin() * x[(i + 1) % x.len()]).sum()
    }

    fn gradient(x: &[f64]) -> Vec<f64> {
        let n = x.len();
        (0..n).map(|i| x[i].cos() * x[(i + 1) % n] + x[(i + n - 1) % n].sin()).collect()
    }

    fn point() -> Vec<f64> {
        (0..40).map(|i| f64::from(i * 7 % 11) * 0.3 - 1.4).collect()
    }

    fn passes(analytic: &[f64], samples: Option<usize>) -> bool {
        catch_unwind(|| check_gradient("f", f, &point(), analytic, 1e-5, 1e-7, samples)).is_ok()
    }

    #[test]
    fn the_right_gradient_passes() {
        assert!(passes(&gradient(&point()), None));
        assert!(passes(&gradient(&point()), Some(9)));
    }

    #[test]
    fn one_wrong_element_is_caught() {
        for i in 0..point().len() {
            let mut wrong = gradient(&point());
            wrong[i] += 1e-5;
            assert!(!passes(&wrong, None), "element {i}");
        }
    }

    #[test]
    fn a_gradient_of_the_wrong_sign_or_scale_is_caught_by_a_sample() {
        let negated: Vec<f64> = gradient(&point()).iter().map(|g| -g).collect();
        let doubled: Vec<f64> = gradient(&point()).iter().map(|g| 2.0 * g).collect();
        assert!(!passes(&negated, Some(3)));
        assert!(!passes(&doubled, Some(3)));
    }

    #[test]
    fn nan_is_caught_in_the_gradient_and_in_the_function() {
        let mut wrong = gradient(&point());
        wrong[5] = f64::NAN;
        assert!(!passes(&wrong, None));
        let nan = |_: &[f64]| f64::NAN;
        assert!(catch_unwind(|| check_gradient("NaN", nan, &[1.0], &[0.0], 1e-5, 1e-7, None)).is_err());
    }

    #[test]
    fn lengths_must_agree() {
        assert!(!passes(&gradient(&point())[1..], None));
    }

    #[test]
    fn a_zero_gradient_is_not_failed_by_cancellation() {
        let constant = |x: &[f64]| 1e3 + (x[0] + 1.0).ln() - (x[0] + 1.0).ln();
        check_gradient("constant", constant, &[0.3], &[0.0], 1e-5, 1e-7, None);
    }

    #[test]
    fn samples_are_distinct_repeatable_and_no_more_than_there_are() {
        let mut evaluations = 0;
        let count = |x: &[f64]| {
            evaluations += 1;
            f(x)
        };
        check_gradient("f", count, &point(), &gradient(&point()), 1e-5, 1e-7, Some(6));
        assert_eq!(evaluations, 12);
        let chosen = coordinates(1000, Some(50));
        assert_eq!(chosen, coordinates(1000, Some(50)));
        assert_eq!(chosen.len(), 50);
        assert!(chosen.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(coordinates(3, Some(50)), [0, 1, 2]);
    }
}
