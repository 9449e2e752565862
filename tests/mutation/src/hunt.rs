//! Runs tests against faults: those that reach a fault, the quickest first, until one fails.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::faults::{Fault, Set};
use crate::files::{self, Files, hash};
use crate::kernels;
use crate::reach::Known;
use crate::records::Records;
use crate::runner::{End, Env, Runner, Test, each};
use crate::tree::Tree;

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A test failed.
    Noticed,
    /// A test did not end.
    Hung,
    /// Every test that reaches it passed.
    Survived,
    /// No test reaches it.
    Unreached,
    /// It does not compile: the list is wrong.
    Uncompiled,
}

impl Outcome {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Noticed => "noticed",
            Outcome::Hung => "noticed, as it hangs",
            Outcome::Survived => "SURVIVED",
            Outcome::Unreached => "UNREACHED",
            Outcome::Uncompiled => "DOES NOT COMPILE",
        }
    }

    pub fn noticed(self) -> bool {
        matches!(self, Outcome::Noticed | Outcome::Hung)
    }
}

/// A fault that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tried {
    pub id: String,
    pub set: Set,
    pub file: String,
    pub line: usize,
    pub what: String,
    /// Hash of what was planted.
    pub edit: String,
    pub outcome: Outcome,
    /// The test that noticed.
    pub by: Option<Test>,
    /// Tests that were run.
    pub ran: usize,
    pub seconds: f64,
}

/// The engine with its switches, what is known of its tests, and what was found so far.
pub struct Hunt<'a> {
    pub work: &'a Path,
    pub original: &'a Files,
    pub tree: &'a Tree,
    pub runner: &'a Runner,
    pub known: &'a [Known],
    pub records: &'a Records<Tried>,
    pub jobs: usize,
}

/// A kernel library is compiled for no longer than this.
const COMPILE: Duration = Duration::from_secs(1800);

impl Hunt<'_> {
    /// Tries all faults that have no record yet; what became of every one.
    ///
    /// # Errors
    /// In one line; what a compiler says.
    pub fn all(&self, faults: &[Fault]) -> Result<Vec<Tried>, String> {
        let records = self.records.all();
        let record = |fault: &Fault| records.iter().rev().find(|r| r.id == fault.id && r.edit == edit(fault));
        let (tried, missing): (Vec<&Fault>, Vec<&Fault>) = faults.iter().partition(|fault| record(fault).is_some());
        let mut all: Vec<Tried> = tried.into_iter().filter_map(|fault| record(fault).cloned()).collect();
        let (switches, others): (Vec<&Fault>, Vec<&Fault>) =
            missing.into_iter().partition(|fault| self.tree.numbers.contains_key(&fault.id));
        let (kernels, alone): (Vec<&Fault>, Vec<&Fault>) = others.into_iter().partition(|f| f.set == Set::Kernels);
        let fresh = std::sync::Mutex::new(Vec::new());
        let keep = |tried: Tried| {
            report(&tried);
            self.records.add(&tried)?;
            fresh.lock().expect("no thread panics").push(tried);
            Ok(())
        };
        each(self.jobs, &switches, |fault| keep(self.switch(fault)?))?;
        each(self.jobs, &kernels, |fault| keep(self.kernel(fault)?))?;
        // They are built in the same folder, so one after the other.
        each(1, &alone, |fault| keep(self.alone(fault)?))?;
        all.extend(fresh.into_inner().expect("no thread panics"));
        all.sort_by(|a, b| (a.set, &a.file, a.line, &a.id).cmp(&(b.set, &b.file, b.line, &b.id)));
        Ok(all)
    }

    /// A fault that is a switch.
    fn switch(&self, fault: &Fault) -> Result<Tried, String> {
        let number = self.tree.numbers[&fault.id];
        let tests: Vec<&Known> = self.known.iter().filter(|known| known.switches.contains(&number)).collect();
        let env: Env = vec![("MUTATION_PLANTED", number.to_string().into())];
        self.ask(self.runner, fault, tests, &env)
    }

    /// A fault in a kernel: only the units that include its file are compiled anew, by the test program itself.
    fn kernel(&self, fault: &Fault) -> Result<Tried, String> {
        let folder = self.work.join("kernels").join(&fault.id);
        let mut sources = kernels::sources(self.original);
        let name = fault.file.trim_start_matches("kernels/");
        let text = sources.get_mut(name).ok_or_else(|| format!("{}: there is no such kernel", fault.file))?;
        let original = String::from_utf8_lossy(text).into_owned();
        *text = fault.edit.apply(&original).into_bytes();
        files::write(&folder, &sources)?;
        // What may be missing: anything but a compiler that takes them.
        let skips = "data gpu nvrtc nvdisasm processor system";
        let env: Env = vec![("ENGINE_HOST_SOURCES", OsString::from(&folder)), ("ENGINE_SKIPS", skips.into())];
        if self.runner.run(&kernels::compiling_test(), &env, COMPILE)?.0 != End::Passed {
            return Ok(tried(fault, Outcome::Uncompiled));
        }
        let affected = kernels::affected(&sources, name);
        let mut tests: Vec<&Known> =
            self.known.iter().filter(|known| affected.iter().any(|kernel| kernels::launched(kernel, &known.kernels))).collect();
        let near = kernels::at(&original, fault.edit.range.start);
        tests.sort_by_key(|known| near.as_ref().is_some_and(|near| !kernels::launched(near, &known.kernels)));
        let tried = self.ask(self.runner, fault, tests, &env);
        std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        tried
    }

    /// A fault that takes a build of its own: in a constant, or in a file that the engine includes.
    fn alone(&self, fault: &Fault) -> Result<Tried, String> {
        let ask = |programs| {
            let runner = Runner { programs, tree: self.runner.tree.clone(), scratch: self.runner.scratch.clone() };
            let mut tests: Vec<&Known> = self.known.iter().collect();
            tests.sort_by_key(|known| !fault.tests.iter().any(|start| known.test.name.starts_with(start)));
            self.ask(&runner, fault, tests, &Env::new())
        };
        let built = self.tree.with_fault(fault, self.original, ask)?;
        built.unwrap_or_else(|_| Ok(tried(fault, Outcome::Uncompiled)))
    }

    /// Runs these tests until one notices, first that which noticed the last time.
    fn ask(&self, runner: &Runner, fault: &Fault, mut tests: Vec<&Known>, env: &Env) -> Result<Tried, String> {
        let before: HashMap<String, Test> =
            self.records.of_any_key().into_iter().filter_map(|tried| Some((tried.id, tried.by?))).collect();
        tests.sort_by_key(|known| before.get(&fault.id) != Some(&known.test));
        tests.retain(|known| known.passed);
        let started = Instant::now();
        let outcome = if tests.is_empty() { Outcome::Unreached } else { Outcome::Survived };
        let mut tried = tried(fault, outcome);
        for known in tests {
            tried.ran += 1;
            let (end, _) = runner.run(&known.test, env, known.limit())?;
            if end != End::Passed {
                tried.outcome = if end == End::Hung { Outcome::Hung } else { Outcome::Noticed };
                tried.by = Some(known.test.clone());
                break;
            }
        }
        tried.seconds = started.elapsed().as_secs_f64();
        Ok(tried)
    }
}

/// A fault of which no test was asked yet.
fn tried(fault: &Fault, outcome: Outcome) -> Tried {
    let Fault { id, set, file, line, what, .. } = fault.clone();
    Tried { id, set, file, line, what, edit: edit(fault), outcome, by: None, ran: 0, seconds: 0.0 }
}

fn edit(fault: &Fault) -> String {
    let range = format!("{:?}", fault.edit.range);
    hash([fault.file.as_bytes(), range.as_bytes(), fault.edit.with.as_bytes()])
}

/// A line for each, as they come.
fn report(tried: &Tried) {
    let Tried { id, outcome, by, ran, seconds, .. } = tried;
    let by = by.as_ref().map(|test| format!(" by {}", test.name)).unwrap_or_default();
    let word = outcome.word();
    println!("{word}{by} ({ran} tests, {seconds:.1} s): {id}");
}
