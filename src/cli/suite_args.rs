//! Flags that choose the attacks of `engine attack`.

use std::path::PathBuf;

use clap::Args;

use crate::attack::apgd::{ApgdConfig, ApgdLoss};
use crate::attack::config::{AttackConfig, standard};
use crate::attack::cw_l2::CwL2Config;
use crate::attack::fab::FabConfig;
use crate::attack::square::SquareConfig;
use crate::attack::{AttackLoss, PgdConfig};
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::data::DatasetName;
use crate::experiments::tables::defaults::paper_attack;
use crate::train::validate_attack;

named_enum! {
    /// Attacks by name.
    pub enum SuiteName: "attack" {
        /// Projected gradient descent on the cross-entropy.
        Pgd = "pgd",
        /// The same on Carlini & Wagner's margin.
        Cw = "cw",
        /// One step of the ball's radius from the clean image.
        Fgsm = "fgsm",
        /// Auto-PGD on the cross-entropy.
        ApgdCe = "apgd-ce",
        /// Auto-PGD on the difference of logits ratio.
        ApgdDlr = "apgd-dlr",
        /// The same towards each of the nine likeliest other classes.
        ApgdT = "apgd-t",
        /// Fast Adaptive Boundary attack towards each of the nine likeliest other classes.
        Fab = "fab",
        /// Square attack.
        Square = "square",
        /// Carlini & Wagner's l2 attack.
        CwL2 = "cw-l2",
        /// PGD on another network.
        Transfer = "transfer",
        /// APGD-CE, APGD-T, FAB-T, Square, in this order.
        AutoAttack = "autoattack",
    }
}

#[derive(Args)]
pub struct SuiteArgs {
    /// pgd, cw (PGD on the margin loss), fgsm, apgd-ce, apgd-dlr, apgd-t, fab, square, cw-l2, transfer, or
    /// autoattack: the standard ensemble apgd-ce, apgd-t, fab, square
    #[arg(long, value_name = "NAME", default_value_t = SuiteName::Pgd)]
    attack: SuiteName,
    /// Radius of the l-infinity ball, pixels from 0 to 1 [default: the paper's for the data set]; for cw-l2 the
    /// Euclidean one [default: 2 for MNIST, 0.5 for CIFAR-10]
    #[arg(long, allow_negative_numbers = true)]
    eps: Option<f32>,
    /// Steps, for square queries [default: the published number]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    attack_steps: Option<usize>,
    /// Length of a step of pgd, cw and transfer [default: the paper's]
    #[arg(long, value_name = "LENGTH", allow_negative_numbers = true)]
    step_size: Option<f32>,
    /// Independent random starts of pgd, cw, transfer and apgd; an image must withstand all [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    restarts: Option<usize>,
    /// The network that transfer attacks instead: its model.safetensors
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

/// Most steps, restarts and queries: far beyond sense.
const MOST: usize = 1_000_000;

impl SuiteArgs {
    /// Whether it is the ensemble.
    pub fn is_autoattack(&self) -> bool {
        self.attack == SuiteName::AutoAttack
    }

    /// The attacks on a network for `data` that the flags describe.
    ///
    /// # Errors
    /// [`Error::Usage`] for a flag that the attack does not have, or out of range.
    pub fn resolve(&self, data: DatasetName) -> Result<Vec<AttackConfig>> {
        self.check_flags()?;
        let paper = paper_attack(data);
        let eps = self.eps.unwrap_or(match (self.attack, data) {
            (SuiteName::CwL2, DatasetName::Cifar10) => 0.5,
            (SuiteName::CwL2, DatasetName::Mnist | DatasetName::FashionMnist) => 2.0,
            _ => paper.eps,
        });
        let steps = |published: usize| self.attack_steps.unwrap_or(published);
        let restarts = self.restarts.unwrap_or(1);
        let pgd = |loss: AttackLoss| PgdConfig {
            eps,
            steps: steps(paper.steps),
            step_size: self.step_size.unwrap_or(paper.step_size),
            restarts,
            loss,
            ..paper.clone()
        };
        let apgd = |loss: ApgdLoss| {
            let published = ApgdConfig::published(eps, loss);
            AttackConfig::Apgd(ApgdConfig { steps: steps(published.steps), restarts, ..published })
        };
        let one = match self.attack {
            SuiteName::AutoAttack => return Ok(standard(eps)),
            SuiteName::Pgd => AttackConfig::Pgd(pgd(AttackLoss::CrossEntropy)),
            SuiteName::Cw => AttackConfig::Pgd(pgd(AttackLoss::Margin)),
            SuiteName::Fgsm => AttackConfig::Pgd(PgdConfig {
                steps: 1,
                step_size: eps,
                random_start: false,
                ..pgd(AttackLoss::CrossEntropy)
            }),
            SuiteName::ApgdCe => apgd(ApgdLoss::CrossEntropy),
            SuiteName::ApgdDlr => apgd(ApgdLoss::Dlr),
            SuiteName::ApgdT => apgd(ApgdLoss::TargetedDlr),
            SuiteName::Fab => {
                let published = FabConfig::published(eps);
                AttackConfig::Fab(FabConfig { steps: steps(published.steps), ..published })
            }
            SuiteName::Square => {
                let published = SquareConfig::published(eps);
                AttackConfig::Square(SquareConfig { queries: steps(published.queries), ..published })
            }
            SuiteName::CwL2 => {
                let published = CwL2Config::published(eps);
                AttackConfig::CwL2(CwL2Config { steps: steps(published.steps), ..published })
            }
            SuiteName::Transfer => AttackConfig::Transfer(pgd(AttackLoss::CrossEntropy)),
        };
        if let AttackConfig::Pgd(config) | AttackConfig::Transfer(config) = &one {
            validate_attack("attack", config)?;
        }
        Ok(vec![one])
    }

    /// Every flag must mean something.
    fn check_flags(&self) -> Result<()> {
        use SuiteName::{ApgdCe, ApgdDlr, ApgdT, AutoAttack, Cw, Fgsm, Pgd, Transfer};
        let has = |names: &[SuiteName]| names.contains(&self.attack);
        let refuse =
            |flag: &str, hint: &str| Err(Error::Usage(format!("{flag}: --attack {} has none; {hint}", self.attack)));
        let published = "it is defined with its published settings; drop the flag";
        match self {
            _ if self.attack == Transfer && self.from.is_none() => {
                Err(Error::Usage("--attack transfer: needs another network to attack; add --from FILE".to_string()))
            }
            SuiteArgs { attack_steps: Some(_), .. } if has(&[AutoAttack]) => refuse("--attack-steps", published),
            SuiteArgs { attack_steps: Some(_), .. } if has(&[Fgsm]) => refuse("--attack-steps", "it takes one step"),
            SuiteArgs { step_size: Some(_), .. } if !has(&[Pgd, Cw, Transfer]) => {
                refuse("--step-size", "its steps are its own; drop the flag")
            }
            SuiteArgs { restarts: Some(_), .. } if !has(&[Pgd, Cw, Transfer, ApgdCe, ApgdDlr, ApgdT]) => {
                refuse("--restarts", "drop the flag")
            }
            SuiteArgs { attack_steps: Some(n), .. } if *n > MOST => {
                Err(Error::Usage(format!("--attack-steps: must be at most {MOST}, got {n}")))
            }
            SuiteArgs { restarts: Some(n), .. } if *n > 1000 => {
                Err(Error::Usage(format!("--restarts: must be 1 to 1000, got {n}")))
            }
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
        for attack in ["pgd", "cw", "fgsm", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "square", "transfer", "autoattack"]
        {
            assert_eq!(of(attack), [0.3, 0.1, 8.0 / 255.0], "{attack}");
        }
        assert_eq!(of("cw-l2"), [2.0, 2.0, 0.5]);
    }
}
