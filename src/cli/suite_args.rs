//! Flags that choose the attacks of `engine attack`.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Args, Command};

use crate::attack::config::{AUTOATTACK, AnyPreset, AttackConfig, preset, presets};
use crate::attack::preset::{AttackOption, Options};
use crate::base::error::{Error, Result};
use crate::data::DatasetName;
use crate::train::validate_attack;

#[derive(Args)]
pub struct SuiteArgs {
    /// The attack, or the standard ensemble autoattack
    #[arg(long, value_name = "NAME", default_value = presets()[0].name, value_parser = PresetParser)]
    attack: &'static AnyPreset,
    /// Radius of the l-infinity ball, for cw-l2 of the Euclidean one; pixels from 0 to 1 [default: the usual one for the
    /// data set]
    #[arg(long, allow_negative_numbers = true)]
    eps: Option<f32>,
    /// Steps, for square queries [default: the published number]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    attack_steps: Option<usize>,
    /// Length of a step, for attacks that have one [default: the paper's]
    #[arg(long, value_name = "LENGTH", allow_negative_numbers = true)]
    step_size: Option<f32>,
    /// Independent random starts, for attacks that have them; an image must withstand all [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    restarts: Option<usize>,
    /// The network that transfer attacks instead: its model.safetensors
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

/// Finds a preset by its name.
#[derive(Clone)]
struct PresetParser;

impl TypedValueParser for PresetParser {
    type Value = &'static AnyPreset;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Self::Value, clap::Error> {
        preset.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(presets().iter().map(|preset| PossibleValue::new(preset.name).help(preset.about))))
    }
}

/// Most steps, restarts and queries: far beyond sense.
const MOST: usize = 1_000_000;

impl SuiteArgs {
    /// Name of the attack or ensemble.
    pub fn name(&self) -> &'static str {
        self.attack.name
    }

    /// Whether it is the ensemble.
    pub fn is_autoattack(&self) -> bool {
        self.attack.name == AUTOATTACK
    }

    /// The attacks on a network for `data` that the flags describe.
    ///
    /// # Errors
    /// [`Error::Usage`] for a flag that the attack does not have, or out of range.
    pub fn resolve(&self, data: DatasetName) -> Result<Vec<AttackConfig>> {
        let SuiteArgs { eps, attack_steps: steps, step_size, restarts, .. } = *self;
        let attacks = (self.attack.configure)(&Options { data, eps, steps, step_size, restarts });
        if attacks.iter().any(|attack| attack.needs_surrogate()) && self.from.is_none() {
            let name = self.attack.name;
            return Err(Error::Usage(format!("--attack {name}: needs another network to attack; add --from FILE")));
        }
        self.check_flags()?;
        for attack in &attacks {
            if let Some(config) = attack.pgd() {
                validate_attack("attack", config)?;
            }
        }
        Ok(attacks)
    }

    /// Every flag must mean something.
    fn check_flags(&self) -> Result<()> {
        for (flag, option, is_set) in [
            ("--attack-steps", AttackOption::Steps, self.attack_steps.is_some()),
            ("--step-size", AttackOption::StepSize, self.step_size.is_some()),
            ("--restarts", AttackOption::Restarts, self.restarts.is_some()),
        ] {
            if let Some((_, hint)) = self.attack.lacks.iter().find(|(lacking, _)| is_set && *lacking == option) {
                return Err(Error::Usage(format!("{flag}: --attack {} has none; {hint}", self.attack.name)));
            }
        }
        match (self.attack_steps, self.restarts) {
            (Some(n), _) if n > MOST => Err(Error::Usage(format!("--attack-steps: must be at most {MOST}, got {n}"))),
            (_, Some(n)) if n > 1000 => Err(Error::Usage(format!("--restarts: must be 1 to 1000, got {n}"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SuiteArgs,
    }

    fn radius(attack: &str, data: DatasetName) -> f32 {
        let Cli { args } = Cli::parse_from(["attack", "--attack", attack, "--from", "other"]);
        args.resolve(data).unwrap()[0].eps()
    }

    /// The l-infinity radii of the paper; the Euclidean ones are as usual for the data.
    #[test]
    fn radii_that_are_not_given() {
        let of =
            |attack| [DatasetName::Mnist, DatasetName::FashionMnist, DatasetName::Cifar10].map(|d| radius(attack, d));
        for attack in presets().iter().map(|preset| preset.name) {
            let l_2 = attack == "cw-l2";
            assert_eq!(of(attack), if l_2 { [2.0, 2.0, 0.5] } else { [0.3, 0.1, 8.0 / 255.0] }, "{attack}");
        }
    }

    /// The names of scripts and of documents.
    #[test]
    fn names_of_attacks() {
        let names: Vec<&str> = presets().iter().map(|preset| preset.name).collect();
        let documented =
            ["pgd", "cw", "fgsm", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "square", "cw-l2", "transfer", "autoattack"];
        assert_eq!(names, documented);
    }
}
