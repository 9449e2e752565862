//! Natural and adversarial accuracy of a model.

use serde::{Deserialize, Serialize};

/// Accuracies in percent, mean losses in nats, over `images` images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Images evaluated.
    pub images: usize,
    /// Percent of clean images classified correctly.
    pub natural: f64,
    /// Percent of attacked images classified correctly.
    pub adversarial: f64,
    /// Mean cross-entropy on the clean images.
    pub natural_loss: f64,
    /// Mean cross-entropy on the attacked images.
    pub adversarial_loss: f64,
    /// Fraction of pixels whose input gradient was exactly zero, over all attack steps.
    pub zero_gradient: f64,
    /// The class predicted for every clean image, if it is the same one.
    pub constant_prediction: Option<u8>,
}
