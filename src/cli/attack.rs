//! `engine attack`: adversarial examples as pictures, and what they do to a trained network.

use std::path::{Path, PathBuf};

use clap::Args;

use super::eval::print_report;
use super::output;
use super::subject::{Subject, SubjectArgs};
use crate::error::{Error, Result};
use crate::eval::Example;
use crate::report::grid::{Grid, PER_PAGE, Tile};

#[derive(Args)]
pub struct AttackVerbArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Attack this many test images, the first ones
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true)]
    n: usize,
    /// Directory for the pictures; created if need be
    #[arg(long, value_name = "DIR", default_value = "runs/attack")]
    out: PathBuf,
}

pub fn run(args: &AttackVerbArgs) -> Result<()> {
    let subject = args.subject.load()?;
    let Some(attack) = &subject.attack else {
        return Err(Error::Usage("--attack none attacks nothing; use pgd or cw, or measure with `engine eval`".into()));
    };
    let most = subject.data.test.len();
    if !(1..=most).contains(&args.n) {
        return Err(Error::Usage(format!("--n: must be 1 to {most}, the number of test images, got {}", args.n)));
    }
    // Before the work, not after it.
    std::fs::create_dir_all(&args.out).map_err(Error::io(&args.out, "create directory"))?;
    let (report, examples) = subject.measure(args.n, true)?;
    let delta = largest_change(&examples);
    // The sum of a pixel and eps is rounded, by less than this for sums up to 1.
    if delta > f64::from(attack.eps) + f64::from(f32::EPSILON) || delta.is_nan() {
        return Err(Error::Failed(format!("the attack changed a pixel by {delta}, more than eps {}", attack.eps)));
    }
    print_report(&report, &subject.data.origin, true)?;
    let changed = examples.iter().filter(|example| example.natural != example.adversarial).count();
    output::print(&format!("changed class {changed} of {}", examples.len()))?;
    output::print(&format!("max |delta|   {delta:.6}, eps {}", attack.eps))?;
    let pages = write_grids(&args.out, &subject, attack.eps, &examples)?;
    output::print(&format!("pictures      {pages} in {}", args.out.display()))
}

/// The largest |attacked - clean| of any pixel; NaN if there is one.
fn largest_change(examples: &[Example]) -> f64 {
    let pixels = examples.iter().flat_map(|example| example.clean.iter().zip(&example.attacked));
    let changes = pixels.map(|(clean, attacked)| (f64::from(*attacked) - f64::from(*clean)).abs());
    // In this order a NaN is the largest.
    changes.max_by(f64::total_cmp).unwrap_or(0.0)
}

/// Writes `grid-000.png`, …; returns how many.
fn write_grids(out: &Path, subject: &Subject, eps: f32, examples: &[Example]) -> Result<usize> {
    let names = subject.data.id.name.official().class_names;
    let name = |class: u8| names.get(usize::from(class)).copied().unwrap_or("?");
    let tiles: Vec<Tile> = examples
        .iter()
        .map(|example| Tile {
            clean: &example.clean,
            attacked: &example.attacked,
            label: name(example.label),
            natural: name(example.natural),
            adversarial: name(example.adversarial),
        })
        .collect();
    let pages = tiles.chunks(PER_PAGE);
    let count = pages.len();
    for (i, tiles) in pages.enumerate() {
        let png = Grid { shape: subject.data.shape, eps, tiles }.png()?;
        output::write_file(&out.join(format!("grid-{i:03}.png")), png)?;
    }
    Ok(count)
}
