//! The command line: one file a verb. The only place that prints or exits.

mod attack;
mod data;
mod device;
mod doctor;
mod eval;
mod execute;
mod interrupt;
mod output;
mod progress;
mod run;
mod table_run;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};

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
    Run(run::RunArgs),
    /// Train one network
    Train(train::TrainArgs),
    /// Measure a trained network: accuracy on clean and on attacked images
    Eval(eval::EvalArgs),
    /// Find, check, download and sample data sets
    Data(data::DataArgs),
    /// Show what the engine finds on this machine
    Doctor(doctor::DoctorArgs),
}

impl Verb {
    fn run(&self) -> Result<()> {
        match self {
            Verb::Run(args) => run::run(args),
            Verb::Train(args) => train::run(args),
            Verb::Eval(args) => eval::run(args),
            Verb::Data(args) => data::run(args),
            Verb::Doctor(args) => doctor::run(args),
        }
    }
}

/// Runs the program on the process's arguments.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted with the state saved.
pub fn main() -> ExitCode {
    match Cli::parse().verb.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Who interrupted knows it, and has been told how to go on.
            if !matches!(error, Error::Interrupted) {
                output::note(&format!("error: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}
