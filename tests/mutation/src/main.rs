//! Plants faults in the engine, one at a time, and counts which of them the tests notice.
//!
//! ```text
//! cargo install cargo-mutants --locked                                     # once
//! cargo run --release --manifest-path tests/mutation/Cargo.toml            # everything; goes on where it stopped
//! cargo run --release --manifest-path tests/mutation/Cargo.toml -- --only norm-parts
//! cargo run --release --manifest-path tests/mutation/Cargo.toml -- --page  # the same, and writes docs/mutation.md
//! ```
//!
//! The faults are the list in `faults.toml`, each of a kind that an engineer could write, and a sample, drawn by a seed, of what
//! `cargo mutants` finds. In a copy of the working tree, those in Rust become switches (`planted.rs`), so that one build has
//! them all. Every test runs once, in a process of its own, to see which switches it reaches and which kernels it launches;
//! then each fault is tried against the tests that reach it, the quickest first, until one fails. A fault in a kernel has the
//! units that include its file compiled anew for the host; one in a constant or a table has a build of its own.
//!
//! Not run: documentation tests, ignored tests, and tests that fail in the copy without a fault.

mod faults;
mod files;
mod hunt;
mod kernels;
mod page;
mod places;
mod reach;
mod records;
mod runner;
mod switch;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use faults::{Fault, Set};
use hunt::Hunt;
use records::Records;
use runner::Runner;
use tree::Tree;

/// Plants faults in the engine, one at a time, and counts which of them the tests notice.
///
/// An interrupted run goes on where it stopped, as long as no file of the engine changes.
#[derive(Parser)]
struct Args {
    /// Only faults whose names contain this
    #[arg(long, value_name = "ID")]
    only: Option<String>,
    /// Only these faults
    #[arg(long)]
    set: Option<Set>,
    /// How many of the faults of cargo-mutants; with 0 it need not be installed
    #[arg(long, default_value_t = 240)]
    sample: usize,
    /// Which of them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Test processes side by side
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Folder for the copy and what was found [default: target/mutation]
    #[arg(long)]
    work: Option<PathBuf>,
    /// Write docs/mutation.md
    #[arg(long)]
    page: bool,
    /// Print the faults, and plant none
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().map_err(|e| e.to_string())?;
    let work = args.work.clone().unwrap_or_else(|| root.join("target/mutation"));
    std::fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let work = work.canonicalize().map_err(|e| format!("{}: {e}", work.display()))?;
    let mut faults = faults::ours(&root)?;
    let mutants = if args.sample > 0 { faults::mutants(&root, args.seed)? } else { Vec::new() };
    let found = mutants.len();
    faults.extend(mutants.into_iter().take(args.sample));
    let wanted = |fault: &&Fault| {
        args.set.is_none_or(|set| fault.set == set) && args.only.as_ref().is_none_or(|only| fault.id.contains(only))
    };
    if args.list {
        faults
            .iter()
            .filter(wanted)
            .for_each(|fault| println!("{} {}:{}: {}", fault.id, fault.file, fault.line, fault.what));
        return Ok(());
    }
    let original = files::working_tree(&root)?;
    let tree = Tree::new(&work, &original, &faults)?;
    let switchless = |fault: &Fault| fault.set == Set::Mutants && !tree.numbers.contains_key(&fault.id);
    let unbuilt = faults.iter().filter(|fault| switchless(fault)).count();
    let tried: Vec<Fault> = faults.iter().filter(wanted).filter(|fault| !switchless(fault)).cloned().collect();

    let scratch = work.join("scratch");
    runner::empty(&scratch)?;
    let runner = Runner { programs: tree.programs.clone(), tree: tree.path.clone(), scratch };
    // So that no test has to compile the kernels in its own time.
    runner.run(&kernels::compiling_test(), &Vec::new(), std::time::Duration::from_secs(3600))?;
    let known = reach::reach(&runner, &work.join("reach.jsonl"), &files::hash_of(&tree.files), args.jobs)?;
    let failing: Vec<&str> = known.iter().filter(|known| !known.passed).map(|known| known.test.name.as_str()).collect();
    let records = Records::open(&work.join("tried.jsonl"), &files::hash_of(&original))?;
    let (work, jobs) = (work.as_path(), args.jobs);
    let hunt = Hunt { work, original: &original, tree: &tree, runner: &runner, known: &known, records: &records, jobs };
    let tried = hunt.all(&tried)?;
    let sample = page::Sample { seed: args.seed, found, drawn: args.sample.min(found), unbuilt };
    let page = page::Page::new(&root, &tried, sample, &failing)?;
    println!("\n{}", page.summary());
    if args.page { page.write(&root.join("docs/mutation.md")) } else { Ok(()) }
}
