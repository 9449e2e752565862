//! `result.json` of `engine attack`: the result, what it is the result of, and what produced it.

use serde::Serialize;
use serde_json::Value;

use super::run_record::Machine;
use crate::attack::config::AttackConfig;
use crate::attack::suite::checks::Check;
use crate::attack::suite::{Assessment, Cost};
use crate::data::DataId;
use crate::experiments::pipeline::{BackendName, Precision};

/// Everything that decides the verdicts of a suite of attacks on a model file.
#[derive(Serialize)]
pub struct SuiteKey<'a> {
    /// SHA-256 of the model's file.
    pub model: String,
    /// Of the surrogate's, if there is one.
    pub surrogate: Option<String>,
    /// The images.
    pub data: &'a DataId,
    /// How many test images, the first ones.
    pub n: usize,
    /// Key of all random numbers.
    pub seed: u64,
    /// What computes.
    pub backend: BackendName,
    /// Number format of activations.
    pub precision: Precision,
    /// The attacks, in order.
    pub attacks: &'a [AttackConfig],
}

/// Everything about an attack but the images.
#[derive(Serialize)]
pub struct AttackRecord<'a> {
    /// The command line, program name first.
    pub command: Vec<String>,
    /// Version of the engine: `CARGO_PKG_VERSION`.
    pub version: &'a str,
    /// The commit it was built from, where the build knew it.
    pub commit: Option<&'a str>,
    /// The model's file, as the user named it.
    pub model: String,
    /// The surrogate's, if there is one.
    pub surrogate: Option<String>,
    /// [`crate::data::Dataset::origin`].
    pub origin: &'a str,
    /// The [`SuiteKey`].
    pub suite: &'a Value,
    /// What came of it.
    pub result: SuiteAccuracy,
    /// Signs of masked gradients; empty if they were not looked for.
    pub checks: &'a [Check],
    /// Names of the other files of this attack in the same directory.
    pub files: Vec<String>,
    /// Where it ran.
    pub machine: Machine,
    /// Seconds from start to finish of this run; what an interrupted one had done cost nothing.
    pub wall_seconds: f64,
}

/// What is left of the accuracy, in percent of the images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuiteAccuracy {
    /// Images attacked.
    pub images: usize,
    /// On clean images.
    pub natural: f64,
    /// After each attack, in order.
    pub attacks: Vec<AttackAccuracy>,
    /// After all of them.
    pub adversarial: f64,
    /// The largest distance of an adversarial image from the clean one, in the norm of the first attack; 0 without any.
    pub largest_distance: f64,
}

/// What one attack of a suite has done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttackAccuracy {
    /// Its name.
    pub name: String,
    /// Percent of the images classified correctly after it and those before.
    pub accuracy: f64,
    /// Images that it broke.
    pub broken: usize,
    /// Its cost.
    #[serde(flatten)]
    pub cost: Cost,
}

impl SuiteAccuracy {
    /// From the verdicts of a suite of `attacks` that is complete.
    pub fn new(attacks: &[AttackConfig], assessment: &Assessment) -> Self {
        let after = |(i, (attack, &cost)): (usize, (&AttackConfig, &Cost))| AttackAccuracy {
            name: attack.name().to_string(),
            accuracy: assessment.accuracy(i + 1),
            broken: assessment.broken_by(i),
            cost,
        };
        let found = assessment.verdicts.iter().filter_map(|verdict| verdict.broken.as_ref());
        SuiteAccuracy {
            images: assessment.verdicts.len(),
            natural: assessment.accuracy(0),
            attacks: attacks.iter().zip(&assessment.costs).enumerate().map(after).collect(),
            adversarial: assessment.accuracy(attacks.len()),
            largest_distance: found.map(|broken| broken.distance).fold(0.0, f64::max),
        }
    }
}
