//! The cross-entropy.

use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::Element;

/// Index of the largest value, the first one in a tie; a NaN counts as largest.
pub fn argmax(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] || values[i].is_nan() { i } else { best })
}

/// `-ln softmax(z)[y]` and its gradient, shifted by the maximum so that no exponential overflows.
pub fn cross_entropy(z: &[f64], y: usize) -> (f64, Vec<f64>) {
    let max = z[argmax(z)];
    let exps: Vec<f64> = z.iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    let gradient = exps.iter().enumerate().map(|(c, e)| e / sum - if c == y { 1.0 } else { 0.0 }).collect();
    (sum.ln() + max - z[y], gradient)
}

/// The loss of one block of images.
pub struct CrossEntropy<'a, T> {
    /// Factor of loss and gradient.
    pub weight: f64,
    /// `[classes]` logits.
    pub z: &'a [[T; LANES]],
    /// One per image.
    pub labels: &'a [u8],
    /// Gradient; zero in lanes without an image.
    pub dz: &'a mut [[T; LANES]],
}

impl<T: Element> CrossEntropy<'_, T> {
    /// The definition, image by image. Returns the weighted sum of the losses.
    pub fn plain(self) -> f64 {
        let mut total = 0.0;
        self.dz.fill([T::zero(); LANES]);
        for (l, &label) in self.labels.iter().enumerate() {
            let z: Vec<f64> = self.z.iter().map(|z| z[l].as_f64()).collect();
            let (loss, gradient) = cross_entropy(&z, label as usize);
            total += loss;
            self.dz.iter_mut().zip(gradient).for_each(|(dz, g)| dz[l] = T::of_f64(self.weight * g));
        }
        self.weight * total
    }
}
