//! The objectives of attacks, functions of the logits `z` of one image of class `y`: a value, in f64, and its derivatives, added to `dz`.

/// Indices of the logits, the largest first; among equal ones the lowest class first.
pub fn descending(z: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..z.len()).collect();
    order.sort_by(|&a, &b| z[b].total_cmp(&z[a]));
    order
}

/// The largest logit of another class, the first one in a tie.
fn rival(z: &[f32], y: usize) -> usize {
    let others = (0..z.len()).filter(|&c| c != y);
    others.reduce(|best, c| if z[c] > z[best] || z[c].is_nan() { c } else { best }).unwrap_or(y)
}

/// Softmax cross-entropy `ln Σ exp(z_j) - z_y`.
pub fn cross_entropy(z: &[f32], y: usize, dz: &mut [f32]) -> f64 {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |z: f32| f64::from(z - max).exp();
    let sum: f64 = z.iter().map(|&z| exp(z)).sum();
    // For the right class minus the sum of the others: softmax minus one would cancel where the network is sure.
    let mut wrong = 0.0;
    for (c, dz) in dz.iter_mut().enumerate().filter(|(c, _)| *c != y) {
        let share = exp(z[c]) / sum;
        wrong += share;
        *dz += share as f32;
    }
    dz[y] -= wrong as f32;
    sum.ln() + f64::from(max) - f64::from(z[y])
}

/// `z_y - max_{j != y} z_j`: not above 0 where the image is misclassified.
pub fn margin(z: &[f32], y: usize) -> f64 {
    f64::from(z[y]) - f64::from(z[rival(z, y)])
}

/// C&W's function (2017) with confidence `kappa`, weighed by `weight`: `max(z_y - max_{j != y} z_j, -kappa)`.
pub fn carlini_wagner(z: &[f32], y: usize, kappa: f64, weight: f64, dz: &mut [f32]) -> f64 {
    let margin = margin(z, y);
    if margin > -kappa {
        dz[y] += weight as f32;
        dz[rival(z, y)] -= weight as f32;
    }
    weight * margin.max(-kappa)
}

/// `z_t - z_y`: positive where class `t` is ahead.
pub fn lead(z: &[f32], y: usize, t: usize, dz: &mut [f32]) -> f64 {
    dz[t] += 1.0;
    dz[y] -= 1.0;
    f64::from(z[t]) - f64::from(z[y])
}

/// Added to the denominators of the DLR losses.
const DLR_LEAST: f64 = 1e-12;

/// `numerator / denominator` of two linear functions of the logits.
fn ratio(z: &[f32], numerator: &[(usize, f64)], denominator: &[(usize, f64)], dz: &mut [f32]) -> f64 {
    let value = |terms: &[(usize, f64)]| terms.iter().map(|&(c, weight)| weight * f64::from(z[c])).sum::<f64>();
    let (above, below) = (value(numerator), value(denominator) + DLR_LEAST);
    numerator.iter().for_each(|&(c, weight)| dz[c] += (weight / below) as f32);
    denominator.iter().for_each(|&(c, weight)| dz[c] -= (weight * above / below / below) as f32);
    above / below
}

/// Difference of logits ratio (Croce & Hein, 2020): `-(z_y - max_{j != y} z_j) / (z_(1) - z_(3))`, with `z_(k)` the k-th
/// largest. Does not change when the logits are scaled or shifted. For 3 classes or more.
pub fn dlr(z: &[f32], y: usize, dz: &mut [f32]) -> f64 {
    let order = descending(z);
    let rival = if order[0] == y { order[1] } else { order[0] };
    ratio(z, &[(y, -1.0), (rival, 1.0)], &[(order[0], 1.0), (order[2], -1.0)], dz)
}

/// The targeted one: `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`. For 4 classes or more.
pub fn targeted_dlr(z: &[f32], y: usize, t: usize, dz: &mut [f32]) -> f64 {
    let order = descending(z);
    ratio(z, &[(y, -1.0), (t, 1.0)], &[(order[0], 1.0), (order[2], -0.5), (order[3], -0.5)], dz)
}
