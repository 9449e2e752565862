//! The command line: one file a verb. The only place that prints or exits.

mod attack;
mod attack_args;
mod attack_dir;
mod bench;
mod browser;
mod chain;
mod command_line;
mod console;
mod cost;
mod data;
mod dataset_args;
mod device_args;
mod doctor;
mod estimate;
mod eval;
mod eval_progress;
mod eval_target;
mod execute;
mod export;
mod fetch;
mod import;
mod interrupt;
mod out_file_args;
mod plan_progress;
mod pretrained;
mod provenance;
mod prune;
mod run;
mod run_args;
mod run_dir;
mod run_examples;
mod run_page;
mod suite_args;
mod table_run;
mod timed_training;
mod train;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::base::error::{Error, Result};

/// Trains, attacks and prunes small convolutional networks.
#[derive(Parser)]
#[command(name = "engine", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Reproduce a table of the paper
    Run(run_args::RunArgs),
    /// Train one network, fresh or from a checkpoint
    Train(train::TrainArgs),
    /// Prune a trained network, and retrain what is left
    Prune(prune::PruneArgs),
    /// Attack a trained network: accuracy after each attack, signs of masked gradients, pictures
    Attack(attack::AttackVerbArgs),
    /// Measure a trained network: accuracy on clean and on attacked images
    Eval(eval::EvalArgs),
    /// Write a trained network to a file for other programs, or shrunk if it is pruned
    Export(export::ExportArgs),
    /// Make a model of a file that PyTorch has saved
    Import(import::ImportArgs),
    /// Find, check, download and sample data sets
    Data(data::DataArgs),
    /// Show what the engine finds on this machine
    Doctor(doctor::DoctorArgs),
    /// Measure the speed of training on this machine
    Bench(bench::BenchArgs),
}

impl Verb {
    fn run(&self) -> Result<()> {
        match self {
            Verb::Run(args) => run::run(args),
            Verb::Train(args) => train::run(args),
            Verb::Prune(args) => prune::run(args),
            Verb::Attack(args) => attack::run(args),
            Verb::Eval(args) => eval::run(args),
            Verb::Export(args) => export::run(args),
            Verb::Import(args) => import::run(args),
            Verb::Data(args) => data::run(args),
            Verb::Doctor(args) => doctor::run(args),
            Verb::Bench(args) => bench::run(args),
        }
    }
}

/// Runs the program on the process's arguments.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted with the state saved.
pub fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => cli.verb.run(),
        Err(error) => parse_error(&error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The user who interrupted it has been told how to resume.
            if !matches!(error, Error::Interrupted) {
                console::note(&format!("error: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help and version are asked for, and are printed; the rest of what clap calls an error is one.
fn parse_error(error: &clap::Error) -> Result<()> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => console::print(&text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            console::note(text.trim_end());
            Err(Error::Usage("no command given".to_string()))
        }
        _ => Err(Error::Usage(one_line(&text))),
    }
}

/// clap's message without its usage: what is wrong, and its tip or else where to look.
fn one_line(text: &str) -> String {
    let end = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more information");
    let mut lines = text.lines().map(str::trim).take_while(end).filter(|line| !line.is_empty());
    let mut joined = lines.next().unwrap_or_default().trim_start_matches("error: ").to_string();
    for line in lines {
        match line.strip_prefix("tip: ") {
            Some(tip) => joined.extend(["; ", tip]),
            None => joined.extend([" ", line]),
        }
    }
    let advises = text.contains("tip: ") || text.contains("did you mean");
    if advises { joined } else { joined + "; see --help" }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, one_line};

    #[test]
    fn the_command_line_is_well_defined() {
        Cli::command().debug_assert();
    }

    #[test]
    fn parse_errors_are_one_line() {
        let line = |args: &[&str]| one_line(&Cli::try_parse_from(args).err().unwrap().render().to_string());
        for (args, expected) in [
            (&["engine", "trian"][..], "unrecognized subcommand 'trian'; a similar subcommand exists: 'train'"),
            (&["engine", "run"], "the following required arguments were not provided: --table <ID>; see --help"),
            (
                &["engine", "run", "--tabel", "b1"],
                "unexpected argument '--tabel' found; a similar argument exists: '--table'",
            ),
            (
                &["engine", "run", "--table", "b1", "--seeds", "0"],
                "invalid value '0' for '--seeds <N>': 0 is not in 1..=100000; see --help",
            ),
            (
                &["engine", "train", "--network", "lenat"],
                "invalid value 'lenat' for '--network <NETWORK>': unknown network 'lenat'; did you mean 'lenet'?",
            ),
        ] {
            assert_eq!(line(args), expected);
        }
    }
}
