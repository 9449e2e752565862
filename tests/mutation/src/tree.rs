//! A copy of the engine with all faults in it that can be switches, built once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::faults::{Fault, Set};
use crate::files::{self, Files};
use crate::places::{Place, places};
use crate::runner::Program;
use crate::switch::{Switch, Switched, switched};

/// What asks which fault is there.
const PLANTED: &str = include_str!("../planted.rs");

/// A fault that is to be a switch.
struct Candidate<'a> {
    number: usize,
    fault: &'a Fault,
    /// Where it can stand, the best first; those before `level` do not compile.
    places: Vec<Place>,
    level: usize,
}

impl Candidate<'_> {
    fn switch(&self) -> Option<Switch> {
        let place = self.places.get(self.level)?.clone();
        Some(Switch { number: self.number, place, edit: self.fault.edit.clone() })
    }
}

/// The copy, its programs and its switches.
pub struct Tree {
    pub path: PathBuf,
    /// Cargo's folder for it.
    target: PathBuf,
    pub files: Files,
    /// Switch of each fault that has one; its number is not 0.
    pub numbers: HashMap<String, usize>,
    pub programs: Vec<Program>,
}

impl Tree {
    /// Copies `original` to `work` with a switch for each of `faults`, as far as they can be.
    ///
    /// # Errors
    /// In one line, or what the compiler says if no switch is to blame.
    pub fn new(work: &Path, original: &Files, faults: &[Fault]) -> Result<Self, String> {
        let mut candidates = Vec::new();
        for fault in faults.iter().filter(|fault| fault.set != Set::Kernels && fault.file.ends_with(".rs")) {
            let text = text(original, &fault.file)?;
            let places = places(&text, &fault.edit.range).map_err(|e| format!("{}: {e}", fault.file))?;
            candidates.push(Candidate { number: candidates.len() + 1, fault, places, level: 0 });
        }
        let mut tree = Tree {
            path: work.join("tree"),
            target: work.join("build"),
            files: Files::new(),
            numbers: HashMap::new(),
            programs: Vec::new(),
        };
        loop {
            let rendered = tree.render(original, &candidates)?;
            files::write(&tree.path, &tree.files)?;
            let mut blamed = tree.check(&rendered)?;
            if blamed.is_empty() {
                break;
            }
            blamed.sort_unstable();
            blamed.dedup();
            for number in blamed {
                candidates[number - 1].level += 1;
                let Candidate { fault, places, level, .. } = &candidates[number - 1];
                let next = if *level < places.len() { "goes further out" } else { "is no switch" };
                println!("{next}, since it does not compile: {}", fault.id);
            }
        }
        let placed = candidates.iter().filter(|candidate| candidate.switch().is_some());
        tree.numbers = placed.map(|candidate| (candidate.fault.id.clone(), candidate.number)).collect();
        tree.programs = tree.build()?;
        Ok(tree)
    }

    /// The files with switches in them.
    fn render(&mut self, original: &Files, all: &[Candidate<'_>]) -> Result<BTreeMap<String, Switched>, String> {
        let mut switches: BTreeMap<String, Vec<Switch>> = BTreeMap::new();
        for candidate in all {
            let of_file = switches.entry(candidate.fault.file.clone()).or_default();
            of_file.extend(candidate.switch());
        }
        self.files = original.clone();
        let mut rendered = BTreeMap::new();
        for (name, switches) in switches {
            let file = switched(&text(original, &name)?, switches);
            self.files.insert(name.clone(), file.text.clone().into_bytes());
            rendered.insert(name, file);
        }
        self.files.insert("src/planted.rs".to_string(), PLANTED.as_bytes().to_vec());
        let lib = text(&self.files, "src/lib.rs")?;
        let lib =
            format!("#![allow(warnings)]\n{lib}\n#[doc(hidden)]\npub mod planted;\npub(crate) use planted::planted;\n");
        self.files.insert("src/lib.rs".to_string(), lib.into_bytes());
        // It includes a module of the engine, in which there may be switches.
        let build = text(&self.files, "build.rs")? + "\nfn planted(_: usize) -> bool {\n    false\n}\n";
        self.files.insert("build.rs".to_string(), build.into_bytes());
        Ok(rendered)
    }

    /// The numbers of switches that do not compile.
    fn check(&self, rendered: &BTreeMap<String, Switched>) -> Result<Vec<usize>, String> {
        let (passed, messages) = self.cargo(&["build", "--lib"])?;
        if passed {
            return Ok(Vec::new());
        }
        let mut blamed = Vec::new();
        let mut others = Vec::new();
        for message in messages.iter().filter(|m| m["message"]["level"] == "error") {
            let (mut first, mut rest) = (Vec::new(), Vec::new());
            spans(&message["message"], &mut first, &mut rest);
            let blame = |(file, range): &(String, Range<usize>)| rendered.get(file)?.blame(range);
            match first.iter().chain(&rest).find_map(blame) {
                Some(number) => blamed.push(number),
                None => others.push(message["message"]["rendered"].as_str().unwrap_or_default().to_string()),
            }
        }
        if blamed.is_empty() { Err(others.concat()) } else { Ok(blamed) }
    }

    /// The test programs.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn build(&self) -> Result<Vec<Program>, String> {
        let (passed, messages) = self.cargo(&["test", "--no-run", "--lib", "--test", "all"])?;
        if !passed {
            let rendered = messages.iter().filter_map(|m| m["message"]["rendered"].as_str());
            return Err(rendered.collect());
        }
        let tests = messages.iter().filter(|m| m["reason"] == "compiler-artifact" && m["profile"]["test"] == true);
        let program = |message: &Value| {
            let (name, path) = (message["target"]["name"].as_str()?, message["executable"].as_str()?);
            Some(Program { name: name.to_string(), path: PathBuf::from(path) })
        };
        Ok(tests.filter_map(program).collect())
    }

    /// Runs Cargo in the copy: whether it succeeded, and its messages.
    fn cargo(&self, args: &[&str]) -> Result<(bool, Vec<Value>), String> {
        let mut command = Command::new("cargo");
        command.args(args).arg("--message-format=json").current_dir(&self.path).env("CARGO_TARGET_DIR", &self.target);
        let output = command.stderr(std::process::Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok((output.status.success(), messages))
    }

    /// Builds the copy with a fault that cannot be a switch, calls `f` with its test programs, and takes the fault out. Where it
    /// does not compile, what the compiler says.
    ///
    /// # Errors
    /// In one line.
    pub fn with_fault<T>(
        &self,
        fault: &Fault,
        original: &Files,
        f: impl FnOnce(Vec<Program>) -> T,
    ) -> Result<Result<T, String>, String> {
        // Its file may have switches that are elsewhere: without them, nobody asks for their numbers.
        let mut files = self.files.clone();
        files.insert(fault.file.clone(), fault.edit.apply(&text(original, &fault.file)?).into_bytes());
        files::write(&self.path, &files)?;
        let outcome = self.build().map(f);
        files::write(&self.path, &self.files)?;
        Ok(outcome)
    }
}

fn text(files: &Files, name: &str) -> Result<String, String> {
    let bytes = files.get(name).ok_or_else(|| format!("{name}: there is no such file"))?;
    String::from_utf8(bytes.clone()).map_err(|e| format!("{name}: {e}"))
}

/// Files and bytes that a message is about: the primary ones, and others, also of its notes.
fn spans(message: &Value, first: &mut Vec<(String, Range<usize>)>, rest: &mut Vec<(String, Range<usize>)>) {
    for span in message["spans"].as_array().into_iter().flatten() {
        // Of a macro, the place where it is called.
        let mut place = span;
        while place["expansion"].is_object() {
            place = &place["expansion"]["span"];
        }
        let offset = |name: &str| usize::try_from(place[name].as_u64().unwrap_or(0)).unwrap_or(0);
        let range = offset("byte_start")..offset("byte_end");
        let file = place["file_name"].as_str().unwrap_or_default().to_string();
        let primary = span["is_primary"] == true;
        if primary { first.push((file, range)) } else { rest.push((file, range)) }
    }
    for child in message["children"].as_array().into_iter().flatten() {
        let mut of_child = Vec::new();
        spans(child, &mut of_child, rest);
        rest.append(&mut of_child);
    }
}
