//! Transfer: PGD on another network, the surrogate; its adversarial images are tried on the network under attack.

use serde::{Deserialize, Serialize};

use super::preset::{AttackPreset, Preset};
use super::round::Round;
use super::target_model::TargetModel;
use super::{Attack, AttackLoss, PgdConfig};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::{Error, Result};

/// The attack on the surrogate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransferConfig(pub PgdConfig);

const NAME: &str = "transfer";

impl TransferConfig {
    /// The names under which users know it.
    pub(super) const PRESETS: &[AttackPreset<Self>] = &[Preset {
        name: NAME,
        about: "PGD on another network",
        lacks: &[],
        configure: |options| TransferConfig(PgdConfig::from_options(options, AttackLoss::CrossEntropy)),
    }];
}

impl Attack for TransferConfig {
    fn name(&self) -> &'static str {
        NAME
    }

    fn eps(&self) -> f32 {
        self.0.eps
    }

    fn pgd(&self) -> Option<&PgdConfig> {
        Some(&self.0)
    }

    fn is_white_box(&self) -> bool {
        false
    }

    fn needs_surrogate(&self) -> bool {
        true
    }

    fn at_least_one(&self) -> Vec<(&'static str, usize)> {
        self.0.at_least_one()
    }

    fn rounds(&self, classes: usize) -> usize {
        self.0.rounds(classes)
    }

    fn image_passes(&self) -> u64 {
        self.0.image_passes()
    }

    fn run<B: Backend>(&self, target_model: &TargetModel<'_, B>, round: &Round<'_, B>) -> Result<Tensor<B>> {
        let surrogate = round.surrogate.ok_or_else(|| Error::Usage("transfer: needs a surrogate".to_string()))?;
        self.0.attack(surrogate, target_model, round)
    }
}
