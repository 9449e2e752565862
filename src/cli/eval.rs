//! `engine eval`: accuracy of a trained network on clean and on attacked images.

use clap::Args;

use super::attack_args::AttackArgs;
use super::output;
use super::subject::SubjectArgs;
use crate::error::Result;
use crate::eval::EvalReport;
use crate::train::validate_attack;

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    attack: AttackArgs,
}

pub fn run(args: &EvalArgs) -> Result<()> {
    let attack = args.attack.resolve(args.subject.data_set());
    if let Some(attack) = &attack {
        validate_attack("attack", attack)?;
    }
    let subject = args.subject.load()?;
    if attack.is_some() {
        subject.check_trained()?;
    }
    let report = subject.measure(attack.as_ref())?;
    print_report(&report, &subject.data.origin, attack.is_some())
}

/// Prints what was measured on images from `origin`.
fn print_report(report: &EvalReport, origin: &str, attacked: bool) -> Result<()> {
    output::print(&format!("images        {} from {origin}", report.images))?;
    output::print(&format!("natural       {:.2}", report.natural))?;
    if attacked {
        output::print(&format!("adversarial   {:.2}", report.adversarial))?;
        output::print(&format!("zero gradient {:.2} % of the pixels", 100.0 * report.zero_gradient))?;
    }
    match report.constant_prediction {
        Some(class) => output::print(&format!("collapsed: class {class} for every image")),
        None => Ok(()),
    }
}
