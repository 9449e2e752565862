//! `engine attack`: what is left of a trained network's accuracy under attack, and the adversarial examples.

use std::time::Instant;

use clap::Args;

use super::attack_dir::{ADVERSARIAL, AttackDir, AttackDirArgs, VERDICTS, page_name};
use super::eval_progress::EvalProgress;
use super::eval_target::{EvalTarget, EvalTargetArgs, check_model};
use super::suite_args::SuiteArgs;
use super::{command_line, console, interrupt, provenance};
use crate::attack::config::AttackConfig;
use crate::attack::evaluation::Subset;
use crate::attack::suite::checks::Check;
use crate::attack::suite::state::SuiteState;
use crate::attack::suite::{Assessment, Cost, Suite, Verdict};
use crate::attack::target_model::ImagePasses;
use crate::backend::{Backend, Distance};
use crate::base::error::{Error, Result};
use crate::base::files::sha256;
use crate::base::json::exact_json;
use crate::checkpoint::load_model;
use crate::experiments::pipeline::on_backend;
use crate::experiments::report::attack_record::{AttackAccuracy, AttackRecord, SuiteAccuracy, SuiteKey};
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
    #[command(flatten)]
    dir: AttackDirArgs,
    /// Also write adversarial.safetensors and verdicts.csv
    #[arg(long)]
    save: bool,
    /// Look for signs of masked gradients, on up to 200 of the images; autoattack always does
    #[arg(long)]
    checks: bool,
}

/// The images that the checks use: the first 200 of those that are attacked.
fn checked(indices: &[u32]) -> &[u32] {
    &indices[..indices.len().min(200)]
}

pub fn run(args: &AttackVerbArgs) -> Result<()> {
    let start = Instant::now();
    let attacks = args.suite.resolve(args.target.data_set())?;
    let target = args.target.load()?;
    target.check_trained()?;
    attacks.iter().try_for_each(|attack| attack.validate(target.data.classes))?;
    let most = target.data.test.len();
    if !(1..=most).contains(&args.n) {
        return Err(Error::Usage(format!("--n: must be 1 to {most}, the number of test images, got {}", args.n)));
    }
    if let Some(surrogate) = &args.suite.from {
        check_model(surrogate, args.target.data_set())?;
    }
    let key = SuiteKey {
        model: sha256(&target.model)?,
        surrogate: args.suite.from.as_deref().map(sha256).transpose()?,
        data: &target.data.id,
        n: args.n,
        seed: target.seed,
        backend: target.device.backend,
        precision: target.device.precision,
        attacks: &attacks,
    };
    let dir = args.dir.open(exact_json(&key)?, args.suite.name(), &target.model, args.n)?;
    let mut state = SuiteState::new(&dir.path, &dir.suite, target.data.shape)?;
    // Before the work, not after it.
    dir.create()?;
    if args.dir.fresh {
        dir.clear()?;
        state.discard()?;
    }
    let assessment = state.load()?;
    let task = SuiteTask { args, target: &target, attacks: &attacks, state: &mut state, assessment };
    let (assessment, checks) = on_backend!(&target.device.start()?, |backend| task.run(backend))?;
    Outcome { args, target: &target, attacks: &attacks, dir: &dir, assessment, checks }.publish(start)?;
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
fn print_accuracies(target: &EvalTarget, first: &AttackConfig, result: &SuiteAccuracy) -> Result<()> {
    console::print(&format!("images        {} from {}", result.images, target.data.origin))?;
    console::print(&format!("natural       {:.2}", result.natural))?;
    for AttackAccuracy { name, accuracy, broken, cost } in &result.attacks {
        let Cost { seconds, passes: ImagePasses { queries, gradients } } = cost;
        console::print(&format!(
            "{name:<13} {accuracy:.2}  broke {broken} in {seconds:.2} s, {queries} queries, {gradients} gradients"
        ))?;
    }
    console::print(&format!("adversarial   {:.2}", result.adversarial))?;
    let norm = match first.distance() {
        Distance::LInf => "max |delta|  ",
        Distance::L2 => "max |delta|_2",
    };
    console::print(&format!("{norm} {:.6}, eps {}", result.largest_distance, first.eps()))
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

/// The verdicts of the attacks and the checks.
struct Outcome<'a> {
    args: &'a AttackVerbArgs,
    target: &'a EvalTarget,
    attacks: &'a [AttackConfig],
    dir: &'a AttackDir,
    assessment: Assessment,
    checks: Vec<Check>,
}

impl Outcome<'_> {
    /// Prints and writes everything; `start` is when this run began.
    fn publish(&self, start: Instant) -> Result<()> {
        let Outcome { args, target, attacks, dir, assessment, checks } = self;
        let result = SuiteAccuracy::new(attacks, assessment);
        print_accuracies(target, &attacks[0], &result)?;
        print_checks(checks)?;
        // The same attack may have been here before, with more files.
        dir.clear()?;
        let mut files = self.write_grids()?;
        console::print(&format!("pictures      {} in {}", files.len(), dir.path.display()))?;
        if args.save {
            files.extend(self.save()?);
        }
        let record = AttackRecord {
            command: command_line::args(),
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("ENGINE_COMMIT"),
            model: target.model.display().to_string(),
            surrogate: args.suite.from.as_ref().map(|path| path.display().to_string()),
            origin: &target.data.origin,
            suite: &dir.suite,
            result,
            checks,
            files,
            machine: provenance::machine(&target.device),
            wall_seconds: start.elapsed().as_secs_f64(),
        };
        console::print(&format!("result        {}", dir.write_result(&record)?.display()))
    }

    /// Writes the pictures; returns the names of the files.
    fn write_grids(&self) -> Result<Vec<String>> {
        let Outcome { target: EvalTarget { data, .. }, attacks, assessment, .. } = self;
        let names = data.id.name.info().class_names;
        let name = |class: u8| names.get(usize::from(class)).copied().unwrap_or("?");
        let pixels = |i: usize| data.test.image(i).iter().map(|&byte| f32::from(byte) / 255.0).collect();
        let clean: Vec<Vec<f32>> = (0..assessment.verdicts.len()).map(pixels).collect();
        let example = |(i, verdict): (usize, &Verdict)| Example {
            clean: &clean[i],
            attacked: &assessment.attempts[i],
            label: name(verdict.label),
            natural: name(verdict.natural),
            adversarial: name(verdict.broken.as_ref().map_or(verdict.natural, |broken| broken.class)),
        };
        let examples: Vec<Example> = assessment.verdicts.iter().enumerate().map(example).collect();
        let write = |(page, examples): (usize, &[Example])| {
            let name = page_name(page);
            self.dir.write(&name, &Grid { shape: data.shape, eps: attacks[0].eps(), examples }.png()?)?;
            Ok(name)
        };
        examples.chunks(PER_PAGE).enumerate().map(write).collect()
    }

    /// Writes what `--save` asks for; returns the names of the files.
    fn save(&self) -> Result<[String; 2]> {
        let Outcome { target, attacks, dir, assessment, .. } = self;
        let names: Vec<&str> = attacks.iter().map(|attack| attack.name()).collect();
        dir.write(VERDICTS, &verdicts::csv(assessment, &names)?)?;
        dir.write(ADVERSARIAL, &verdicts::safetensors(assessment, target.data.shape, &names)?)?;
        console::print(&format!("saved         {ADVERSARIAL}, {VERDICTS} in {}", dir.path.display()))?;
        Ok([VERDICTS, ADVERSARIAL].map(String::from))
    }
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
