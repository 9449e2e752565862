//! The list of attacks. A new attack is a file with a struct that implements [`Attack`] and has `PRESETS`, and an entry here.

use std::ops::Deref;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::apgd::{ApgdConfig, ApgdLoss};
use super::cw_l2::CwL2Config;
use super::fab::FabConfig;
use super::preset::{AttackOption, NO_RESTARTS, NO_STEP_SIZE, Options, Preset};
use super::round::Round;
use super::square::SquareConfig;
use super::target_model::TargetModel;
use super::transfer::TransferConfig;
use super::{Attack, PgdConfig};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::{Error, Result};

/// The enum of all attacks, which can be used as the [`Attack`] that it holds, and the presets of all.
macro_rules! attacks {
    ($( $(#[doc = $doc:literal])+ $variant:ident($config:ty), )+) => {
        /// An attack with its settings.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "attack", rename_all = "kebab-case")]
        pub enum AttackConfig { $( $(#[doc = $doc])+ $variant($config), )+ }

        impl Deref for AttackConfig {
            type Target = dyn Attack;

            fn deref(&self) -> &(dyn Attack + 'static) {
                match self { $( AttackConfig::$variant(config) => config, )+ }
            }
        }

        impl AttackConfig {
            /// As [`Attack::run`].
            ///
            /// # Errors
            /// As [`Attack::run`].
            pub fn run<B: Backend>(
                &self,
                target_model: &TargetModel<'_, B>,
                round: &Round<'_, B>,
            ) -> Result<Tensor<B>> {
                match self { $( AttackConfig::$variant(config) => config.run(target_model, round), )+ }
            }
        }

        /// Those of the attacks, in the order of the list.
        fn single_presets() -> Vec<AnyPreset> {
            let mut all: Vec<AnyPreset> = Vec::new();
            $( all.extend(<$config>::PRESETS.iter().map(|&Preset { name, about, lacks, configure }| Preset {
                name,
                about,
                lacks,
                configure: Box::new(move |options: &Options| vec![AttackConfig::$variant(configure(options))]) as Configure,
            })); )+
            all
        }
    };
}

attacks! {
    /// Projected gradient descent; of one step from the clean image, FGSM.
    Pgd(PgdConfig),
    /// Auto-PGD.
    Apgd(ApgdConfig),
    /// Fast Adaptive Boundary attack.
    Fab(FabConfig),
    /// Square attack.
    Square(SquareConfig),
    /// Carlini & Wagner's l2 attack.
    CwL2(CwL2Config),
    /// PGD on another network, the surrogate; what comes of it is tried on the one under attack.
    Transfer(TransferConfig),
}

/// The attacks of a preset, in order.
pub type Configure = Box<dyn Fn(&Options) -> Vec<AttackConfig> + Send + Sync>;

/// A preset of any attack, or of an ensemble.
pub type AnyPreset = Preset<Configure>;

/// Name of the `standard` AutoAttack ensemble.
pub const AUTOATTACK: &str = "autoattack";

/// The `standard` AutoAttack ensemble in the l-infinity ball (Croce & Hein, 2020): APGD on the cross-entropy, targeted
/// APGD, targeted FAB, Square.
pub fn standard(eps: f32) -> Vec<AttackConfig> {
    vec![
        AttackConfig::Apgd(ApgdConfig::published(eps, ApgdLoss::CrossEntropy)),
        AttackConfig::Apgd(ApgdConfig::published(eps, ApgdLoss::TargetedDlr)),
        AttackConfig::Fab(FabConfig::published(eps)),
        AttackConfig::Square(SquareConfig::published(eps)),
    ]
}

/// Every preset, the ensemble last.
pub fn presets() -> &'static [AnyPreset] {
    static ALL: LazyLock<Vec<AnyPreset>> = LazyLock::new(|| {
        let mut all = single_presets();
        all.push(Preset {
            name: AUTOATTACK,
            about: "APGD-CE, APGD-T, FAB-T, Square, in this order",
            lacks: &[
                (AttackOption::Steps, "it is defined with its published settings; drop the flag"),
                NO_STEP_SIZE,
                NO_RESTARTS,
            ],
            configure: Box::new(|options| standard(options.eps())),
        });
        all
    });
    &ALL
}

/// The preset of this name.
///
/// # Errors
/// [`Error::Usage`] with the nearest known name.
pub fn preset(name: &str) -> Result<&'static AnyPreset> {
    let found = presets().iter().find(|preset| preset.name == name);
    found.ok_or_else(|| Error::unknown("attack", name, presets().iter().map(|preset| preset.name)))
}
