//! Flags that change the attack.

use clap::Args;

use crate::attack::{AttackLoss, PgdConfig};
use crate::base::named_enum::named_enum;
use crate::data::DatasetName;

named_enum! {
    /// Attacks by name.
    pub enum AttackName: "attack" {
        /// Projected gradient descent on the cross-entropy.
        Pgd = "pgd",
        /// The same on Carlini & Wagner's margin.
        Cw = "cw",
        /// No attack.
        None = "none",
    }
}

#[derive(Args)]
pub struct AttackArgs {
    /// The attack
    #[arg(long, value_name = "NAME", default_value_t = AttackName::Pgd)]
    attack: AttackName,
    /// Radius of the l-infinity ball, pixels from 0 to 1 [default: the paper's for the data set]
    #[arg(long, allow_negative_numbers = true)]
    eps: Option<f32>,
    /// Steps [default: the paper's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    attack_steps: Option<usize>,
    /// Length of a step [default: the paper's]
    #[arg(long, value_name = "LENGTH", allow_negative_numbers = true)]
    step_size: Option<f32>,
    /// Independent random starts of the attack that measures; an image must withstand all [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    restarts: Option<usize>,
}

impl AttackArgs {
    /// The attack on `data` that the flags describe; `None` for no attack.
    pub fn resolve(&self, data: DatasetName) -> Option<PgdConfig> {
        let paper = PgdConfig::paper(data);
        let loss = match self.attack {
            AttackName::Pgd => AttackLoss::CrossEntropy,
            AttackName::Cw => AttackLoss::Margin,
            AttackName::None => return None,
        };
        Some(PgdConfig {
            eps: self.eps.unwrap_or(paper.eps),
            steps: self.attack_steps.unwrap_or(paper.steps),
            step_size: self.step_size.unwrap_or(paper.step_size),
            restarts: self.restarts.unwrap_or(paper.restarts),
            loss,
            ..paper
        })
    }
}
