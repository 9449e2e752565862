//! Values and derivatives of what the attacks make of logits.

use engine::attack::objective::{carlini_wagner, cross_entropy, descending, dlr, lead, margin, targeted_dlr};

use crate::backends::normal;

type Objective = fn(&[f32], &mut [f32]) -> f64;

/// All on class 2, the targeted ones towards class 5.
const OBJECTIVES: [(&str, Objective); 6] = [
    ("cross-entropy", |z, dz| cross_entropy(z, 2, dz)),
    ("dlr", |z, dz| dlr(z, 2, dz)),
    ("targeted dlr", |z, dz| targeted_dlr(z, 2, 5, dz)),
    ("lead", |z, dz| lead(z, 2, 5, dz)),
    ("c&w", |z, dz| carlini_wagner(z, 2, 0.5, 3.0, dz)),
    ("c&w, far", |z, dz| carlini_wagner(z, 2, 100.0, 3.0, dz)),
];

#[test]
fn derivatives_are_central_differences() {
    for (name, objective) in OBJECTIVES {
        for seed in 0..20 {
            let z: Vec<f32> = normal(seed, 10).iter().map(|v| 4.0 * v).collect();
            let mut dz = vec![0.0; 10];
            objective(&z, &mut dz);
            for c in 0..10 {
                let at = |step: f32| {
                    let mut moved = z.clone();
                    moved[c] += step;
                    // What the step became by rounding.
                    (objective(&moved, &mut [0.0; 10]), f64::from(moved[c]))
                };
                let ((above, high), (below, low)) = (at(1e-3), at(-1e-3));
                let numeric = (above - below) / (high - low);
                let error = (numeric - f64::from(dz[c])).abs();
                assert!(error <= 1e-4 * (1.0 + numeric.abs()), "{name}, seed {seed}, class {c}: {numeric} {}", dz[c]);
            }
        }
    }
}

/// By hand: `z = (1, 4, 2, 0)`.
#[test]
fn values_by_hand() {
    let z = [1.0, 4.0, 2.0, 0.0];
    let mut dz = [0.0; 4];
    let sum: f64 = z.iter().map(|&v| f64::from(v).exp()).sum();
    assert!((cross_entropy(&z, 2, &mut dz) - (sum.ln() - 2.0)).abs() < 1e-12);
    // The right class is second: -(2 - 4) / (4 - 1).
    assert!((dlr(&z, 2, &mut dz) - 2.0 / 3.0).abs() < 1e-9);
    // The right class is first: -(4 - 2) / (4 - 1).
    assert!((dlr(&z, 1, &mut dz) + 2.0 / 3.0).abs() < 1e-9);
    // -(4 - 0) / (4 - (1 + 0) / 2).
    assert!((targeted_dlr(&z, 1, 3, &mut dz) + 4.0 / 3.5).abs() < 1e-9);
    assert_eq!((margin(&z, 1), margin(&z, 2), lead(&z, 1, 2, &mut dz)), (2.0, -2.0, -2.0));
    assert_eq!(carlini_wagner(&z, 2, 1.5, 2.0, &mut [0.0; 4]), -3.0);
    // A tie is no margin, whichever class comes first.
    assert_eq!((margin(&[1.0, 1.0], 0), margin(&[1.0, 1.0], 1)), (0.0, 0.0));
}

/// The lowest of equal classes comes first, as in PyTorch's `argmax`.
#[test]
fn the_lowest_of_equal_classes_is_the_rival() {
    assert_eq!(descending(&[1.0, 3.0, 3.0, 2.0, 3.0]), [1, 2, 4, 3, 0]);
    let mut dz = [0.0; 4];
    carlini_wagner(&[3.0, 5.0, 5.0, 4.0], 0, 9.0, 2.0, &mut dz);
    assert_eq!(dz, [2.0, -2.0, 0.0, 0.0]);
    let mut dz = [0.0; 4];
    // -(z_3 - z_0) / (z_0 - z_2), the denominator of which is next to zero.
    assert_eq!(dlr(&[1.0; 4], 3, &mut dz), 0.0);
    assert_eq!(dz, [1e12, 0.0, 0.0, -1e12]);
}

/// What is far enough across is pulled no further, and its value stays.
#[test]
fn confidence_is_where_the_pull_ends() {
    let pull = |margin: f32| {
        let mut dz = [0.0; 2];
        (carlini_wagner(&[margin, 0.0], 0, 1.5, 2.0, &mut dz), dz)
    };
    assert_eq!(pull(-1.25), (-2.5, [2.0, -2.0]));
    assert_eq!(pull(-1.5), (-3.0, [0.0, 0.0]));
    assert_eq!(pull(-2.0), (-3.0, [0.0, 0.0]));
}

/// Multiplied and shifted logits are the same network's to the DLR losses, but not to the cross-entropy.
#[test]
fn dlr_sees_no_scale() {
    let z: Vec<f32> = normal(1, 10).iter().map(|v| (v * 64.0).round()).collect();
    let moved: Vec<f32> = z.iter().map(|v| 1024.0 * v + 512.0).collect();
    for objective in [OBJECTIVES[1].1, OBJECTIVES[2].1] {
        let (a, b) = (objective(&z, &mut [0.0; 10]), objective(&moved, &mut [0.0; 10]));
        assert!((a - b).abs() < 1e-9 * a.abs(), "{a} {b}");
    }
}

/// Where softmax in single precision has no gradient left, there still is one; where f32 has none, it is zero, not NaN.
#[test]
fn a_sure_network_has_a_gradient() {
    let mut dz = [0.0; 3];
    assert!(cross_entropy(&[60.0, 0.0, -1.0], 0, &mut dz) >= 0.0);
    assert!(dz[0] < 0.0 && dz[1] > 0.0 && dz[2] > 0.0, "{dz:?}");
    let mut dz = [0.0; 3];
    assert_eq!(cross_entropy(&[1e4, 0.0, -1.0], 0, &mut dz), 0.0);
    assert_eq!(dz, [0.0; 3]);
    assert!(cross_entropy(&[f32::NAN, 0.0, 1.0], 0, &mut dz).is_nan());
    assert!(margin(&[f32::NAN, 0.0, 1.0], 0).is_nan() && margin(&[0.0, f32::NAN, 1.0], 0).is_nan());
}
