//! `engine attack`: what is left of a trained network's accuracy under attack, and the adversarial examples.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::eval_progress::EvalProgress;
use super::eval_target::{EvalTarget, EvalTargetArgs, check_model};
use super::suite_args::SuiteArgs;
use super::{console, interrupt};
use crate::attack::config::AttackConfig;
use crate::attack::evaluation::Subset;
use crate::attack::suite::checks::Check;
use crate::attack::suite::state::SuiteState;
use crate::attack::suite::{Assessment, Suite};
use crate::backend::{Backend, Distance};
use crate::base::error::{Error, Result};
use crate::base::files::sha256;
use crate::checkpoint::{load_model, write_atomic};
use crate::data::DataId;
use crate::experiments::pipeline::{BackendName, on_backend};
use crate::experiments::report::grid::{Example, Grid, PER_PAGE};
use crate::experiments::report::verdicts;
use crate::nn::models::Model;

#[derive(Args)]
pub struct AttackVerbArgs {
    #[command(flatten)]
    target: EvalTargetArgs,
    #[command(flatten)]
    suite: SuiteArgs,
    /// Attack this many test images, the first ones
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true)]
    n: usize,
    /// Directory for what comes of it; created if need be. An interrupted attack found there is resumed
    #[arg(long, value_name = "DIR", default_value = "runs/attack")]
    out: PathBuf,
    /// Also write adversarial.safetensors and verdicts.csv
    #[arg(long)]
    save: bool,
    /// Look for signs of masked gradients, on up to 200 of the images; autoattack always does
    #[arg(long)]
    checks: bool,
    /// Discard what an interrupted attack has left
    #[arg(long)]
    fresh: bool,
}

/// The images that the checks use: the first 200 of those that are attacked.
fn checked(indices: &[u32]) -> &[u32] {
    &indices[..indices.len().min(200)]
}

/// Everything that decides the verdicts.
#[derive(Serialize)]
struct SuiteKey<'a> {
    /// SHA-256 of the model's file.
    model: String,
    /// Of the surrogate's, if there is one.
    surrogate: Option<String>,
    data: &'a DataId,
    n: usize,
    seed: u64,
    backend: BackendName,
    attacks: &'a [AttackConfig],
}

pub fn run(args: &AttackVerbArgs) -> Result<()> {
    let attacks = args.suite.resolve(args.target.data_set())?;
    let target = args.target.load()?;
    target.check_trained()?;
    attacks.iter().try_for_each(|attack| attack.validate(target.data.classes))?;
    let most = target.data.test.len();
    if !(1..=most).contains(&args.n) {
        return Err(Error::Usage(format!("--n: must be 1 to {most}, the number of test images, got {}", args.n)));
    }
    if let Some(surrogate) = &args.suite.from {
        check_model(surrogate, &target.data)?;
    }
    let key = SuiteKey {
        model: sha256(&target.model)?,
        surrogate: args.suite.from.as_deref().map(sha256).transpose()?,
        data: &target.data.id,
        n: args.n,
        seed: target.seed,
        backend: target.device.backend,
        attacks: &attacks,
    };
    let mut state = SuiteState::new(&args.out, &key, target.data.shape)?;
    // Before the work, not after it.
    std::fs::create_dir_all(&args.out).map_err(Error::io(&args.out, "create directory"))?;
    if args.fresh {
        state.discard()?;
    }
    let assessment = state.load()?;
    let task = SuiteTask { args, target: &target, attacks: &attacks, state: &mut state, assessment };
    let (assessment, checks) = on_backend!(&target.device.start()?, |backend| task.run(backend))?;
    print_accuracies(&target, &attacks, &assessment)?;
    print_checks(&checks)?;
    let pages = write_grids(&args.out, &target, attacks[0].eps(), &assessment)?;
    console::print(&format!("pictures      {pages} in {}", args.out.display()))?;
    if args.save {
        let names: Vec<&str> = attacks.iter().map(|attack| attack.name()).collect();
        write_atomic(&args.out.join("verdicts.csv"), &verdicts::csv(&assessment, &names)?)?;
        write_atomic(
            &args.out.join("adversarial.safetensors"),
            &verdicts::safetensors(&assessment, target.data.shape, &names)?,
        )?;
        console::print(&format!("saved         adversarial.safetensors, verdicts.csv in {}", args.out.display()))?;
    }
    state.discard()
}

/// The suite and the checks, on whatever backend.
struct SuiteTask<'a> {
    args: &'a AttackVerbArgs,
    target: &'a EvalTarget,
    attacks: &'a [AttackConfig],
    state: &'a mut SuiteState,
    assessment: Assessment,
}

impl SuiteTask<'_> {
    fn run<B: Backend>(self, backend: &B) -> Result<(Assessment, Vec<Check>)> {
        let SuiteTask { args, target, attacks, state, mut assessment } = self;
        let data = &target.data;
        let (model, _) = load_model(backend, &target.model)?;
        let surrogate: Option<Model<B>> = match &args.suite.from {
            None => None,
            Some(path) => Some(load_model(backend, path)?.0),
        };
        let indices: Vec<u32> = (0..args.n as u32).collect();
        let images = backend.resident(data.shape, &data.test.images);
        let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
        let checked = Subset { indices: checked(&indices), ..subset };
        let stop = interrupt::flag()?;
        let progress = EvalProgress::new(0, target.quiet);
        let on_image_passes = |passes| {
            progress.add(passes);
            if stop.load(std::sync::atomic::Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
        };
        let suite = Suite {
            backend,
            model: &model,
            surrogate: surrogate.as_ref(),
            subset: &subset,
            attacks,
            seed: target.seed,
            on_image_passes: &on_image_passes,
        };
        let checks = Suite { subset: &checked, ..suite };
        let checking = args.checks || args.suite.is_autoattack();
        let to_check = if checking { checks.check_image_passes() } else { 0 };
        let mut report = |assessment: &Assessment, left: u64| {
            progress.expect(left + to_check);
            state.save_at_times(assessment)
        };
        let outcome = backend.scope(|| {
            suite.run(&mut assessment, &mut report)?;
            if checking { checks.checks(attacks[0].eps()) } else { Ok(Vec::new()) }
        });
        progress.finish();
        if matches!(outcome, Err(Error::Interrupted)) {
            state.save(&assessment)?;
            interrupt::note_resume();
        }
        Ok((assessment, outcome?))
    }
}

/// Accuracy after each attack, and what it took.
fn print_accuracies(target: &EvalTarget, attacks: &[AttackConfig], assessment: &Assessment) -> Result<()> {
    console::print(&format!("images        {} from {}", assessment.verdicts.len(), target.data.origin))?;
    console::print(&format!("natural       {:.2}", assessment.accuracy(0)))?;
    for (i, (attack, cost)) in attacks.iter().zip(&assessment.costs).enumerate() {
        console::print(&format!(
            "{:<13} {:.2}  broke {} in {:.2} s, {} queries, {} gradients",
            attack.name(),
            assessment.accuracy(i + 1),
            assessment.broken_by(i),
            cost.seconds,
            cost.passes.queries,
            cost.passes.gradients
        ))?;
    }
    console::print(&format!("adversarial   {:.2}", assessment.accuracy(attacks.len())))?;
    let found = assessment.verdicts.iter().filter_map(|verdict| verdict.broken.as_ref());
    let norm = match attacks[0].distance() {
        Distance::LInf => "max |delta|  ",
        Distance::L2 => "max |delta|_2",
    };
    let largest = found.map(|broken| broken.distance).fold(0.0, f64::max);
    console::print(&format!("{norm} {largest:.6}, eps {}", attacks[0].eps()))
}

fn print_checks(checks: &[Check]) -> Result<()> {
    for Check { name, passed, finding } in checks {
        let verdict = if *passed { "pass" } else { "FAIL" };
        console::print(&format!("{verdict}  {name:<12}  {finding}"))?;
    }
    let failed = checks.iter().filter(|check| !check.passed).count();
    if failed > 0 {
        console::print(&format!("{failed} of {} checks failed: do not believe this accuracy", checks.len()))?;
    }
    Ok(())
}

/// Writes `grid-000.png`, …; returns how many.
fn write_grids(out: &Path, target: &EvalTarget, eps: f32, assessment: &Assessment) -> Result<usize> {
    let names = target.data.id.name.info().class_names;
    let name = |class: u8| names.get(usize::from(class)).copied().unwrap_or("?");
    let pixels = |i: usize| target.data.test.image(i).iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let clean: Vec<Vec<f32>> = (0..assessment.verdicts.len()).map(pixels).collect();
    let examples: Vec<Example> = assessment
        .verdicts
        .iter()
        .enumerate()
        .map(|(i, verdict)| Example {
            clean: &clean[i],
            attacked: &assessment.attempts[i],
            label: name(verdict.label),
            natural: name(verdict.natural),
            adversarial: name(verdict.broken.as_ref().map_or(verdict.natural, |broken| broken.class)),
        })
        .collect();
    let pages = examples.chunks(PER_PAGE);
    let count = pages.len();
    for (i, examples) in pages.enumerate() {
        let png = Grid { shape: target.data.shape, eps, examples }.png()?;
        write_atomic(&out.join(format!("grid-{i:03}.png")), &png)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn checks_use_the_first_two_hundred_images() {
        let indices: Vec<u32> = (3..500).collect();
        assert_eq!(
            [&indices[..7], &indices[..200], &indices].map(checked),
            [&indices[..7], &indices[..200], &indices[..200]]
        );
    }
}
