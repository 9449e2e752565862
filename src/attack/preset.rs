//! Attacks as a user names them.

use crate::data::DatasetName;

/// An attack under the name that the command line gives it. `F` makes its settings from [`Options`].
pub struct Preset<F> {
    /// The name.
    pub name: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The options that it does not have, each with a hint for who gives it all the same.
    pub lacks: &'static [(AttackOption, &'static str)],
    /// Its settings.
    pub configure: F,
}

/// A preset of an attack whose settings are a `C`.
pub type AttackPreset<C> = Preset<fn(&Options) -> C>;

/// An option that some attacks have and others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttackOption {
    /// [`Options::steps`].
    Steps,
    /// [`Options::step_size`].
    StepSize,
    /// [`Options::restarts`].
    Restarts,
}

/// For attacks that find their own step size.
pub const NO_STEP_SIZE: (AttackOption, &str) = (AttackOption::StepSize, "its steps are its own; drop the flag");

/// For attacks without random starts.
pub const NO_RESTARTS: (AttackOption, &str) = (AttackOption::Restarts, "drop the flag");

/// The settings that a user asks for; `None` for the published ones.
pub struct Options {
    /// The data set that is attacked.
    pub data: DatasetName,
    /// Radius within which an adversarial image counts.
    pub eps: Option<f32>,
    /// Number of steps; of queries for an attack that has no steps.
    pub steps: Option<usize>,
    /// Length of a step.
    pub step_size: Option<f32>,
    /// Independent random starts.
    pub restarts: Option<usize>,
}

impl Options {
    /// Radius of the l-infinity ball.
    pub fn eps(&self) -> f32 {
        self.eps.unwrap_or(self.data.info().attack.eps)
    }

    /// Independent random starts: one, unless the user says otherwise.
    pub fn restarts(&self) -> usize {
        self.restarts.unwrap_or(1)
    }
}
