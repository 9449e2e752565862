//! What was found: scores and survivors, on the terminal and as `docs/mutation.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::faults::Set;
use crate::hunt::{Outcome, Tried};

/// What was drawn of the faults of `cargo mutants`.
#[derive(Clone, Copy)]
pub struct Sample {
    pub seed: u64,
    pub found: usize,
    pub drawn: usize,
    /// Of those, how many are no switches that compile.
    pub unbuilt: usize,
}

/// `survivors.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explained {
    /// Faults that change nothing that could be noticed.
    #[serde(default)]
    equivalent: Vec<Survivor>,
    /// Others that no test is for.
    #[serde(default)]
    untested: Vec<Survivor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Survivor {
    id: String,
    why: String,
}

pub struct Page<'a> {
    tried: &'a [Tried],
    explained: Explained,
    sample: Sample,
    /// Tests that were not asked.
    failing: &'a [&'a str],
    commit: String,
    date: String,
}

impl<'a> Page<'a> {
    /// # Errors
    /// In one line, what is wrong with `survivors.toml`.
    pub fn new(root: &Path, tried: &'a [Tried], sample: Sample, failing: &'a [&'a str]) -> Result<Self, String> {
        let path = root.join("tests/mutation/survivors.toml");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let explained: Explained = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let noticed = |s: &&Survivor| tried.iter().any(|tried| tried.id == s.id && tried.outcome.noticed());
        if let Some(wrong) = explained.equivalent.iter().chain(&explained.untested).find(noticed) {
            return Err(format!("{}: a test notices {}", path.display(), wrong.id));
        }
        let said = |command: &mut Command| {
            let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
            output.unwrap_or_default()
        };
        let commit = said(Command::new("git").arg("-C").arg(root).args(["describe", "--always", "--dirty"]));
        let date = said(Command::new("date").args(["-u", "+%Y-%m-%d"]));
        Ok(Page { tried, explained, sample, failing, commit, date })
    }

    fn why_equivalent(&self, tried: &Tried) -> Option<&str> {
        why(&self.explained.equivalent, tried)
    }

    fn survivors(&self) -> impl Iterator<Item = &Tried> {
        self.tried.iter().filter(|tried| !tried.outcome.noticed())
    }

    /// A row a set: tried, noticed, equivalent, and the share of those that are not equivalent.
    fn scores(&self) -> Vec<[String; 5]> {
        let row = |set: &Set| {
            let of_set = || self.tried.iter().filter(|tried| tried.set == *set);
            let noticed = of_set().filter(|tried| tried.outcome.noticed()).count();
            let equivalent = of_set().filter(|tried| self.why_equivalent(tried).is_some()).count();
            let real = of_set().count() - equivalent;
            let share = format!("{:.1} %", 100.0 * noticed as f64 / real.max(1) as f64);
            [set.title().to_string(), of_set().count().to_string(), noticed.to_string(), equivalent.to_string(), share]
        };
        Set::ALL.iter().map(row).collect()
    }

    /// For the terminal.
    pub fn summary(&self) -> String {
        let mut text = format!("{:<16}{:>7}{:>9}{:>12}{:>9}\n", "", "tried", "noticed", "equivalent", "score");
        for [set, tried, noticed, equivalent, score] in self.scores() {
            let _ = writeln!(text, "{set:<16}{tried:>7}{noticed:>9}{equivalent:>12}{score:>9}");
        }
        for tried in self.survivors().filter(|tried| self.why_equivalent(tried).is_none()) {
            let word = tried.outcome.word();
            let _ = writeln!(text, "{word}: {} ({}:{}): {}", tried.id, tried.file, tried.line, tried.what);
        }
        if !self.failing.is_empty() {
            let _ = writeln!(text, "not asked, as they fail without a fault: {}", self.failing.join(", "));
        }
        text
    }

    /// Writes it as a document.
    ///
    /// # Errors
    /// In one line.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let Sample { seed, found, drawn, unbuilt } = self.sample;
        let mut text = format!(
            "# Planted faults\n\nFaults that a tired engineer could write, planted one at a time, and how many of them the tests \
             notice.\nWritten by `tests/mutation` on {} at commit {}:\n\n```sh\ncargo run --release --manifest-path \
             tests/mutation/Cargo.toml -- --sample {drawn} --seed {seed} --page\n```\n\nOurs are the list in \
             [faults.toml](../tests/mutation/faults.toml). Of the {found} faults that `cargo mutants` finds in the modules of \
             attacks,\npruning, training, evaluation, checkpoints, data, tables and reports, seed {seed} drew {drawn}; {unbuilt} of \
             them do not compile.\nThe score leaves out what is equivalent: a fault that changes nothing that could be \
             noticed.\n\n| faults | tried | noticed | equivalent | score |\n|---|---|---|---|---|\n",
            self.date, self.commit
        );
        for row in self.scores() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        let (equivalent, missed): (Vec<&Tried>, Vec<&Tried>) =
            self.survivors().partition(|tried| self.why_equivalent(tried).is_some());
        text += "\n## Not noticed\n\n";
        text += &table(&missed, |tried| {
            let why = why(&self.explained.untested, tried).unwrap_or("not explained");
            match tried.outcome {
                Outcome::Survived => why.to_string(),
                outcome => format!("{why} ({})", outcome.word()),
            }
        });
        text += "\n## Equivalent\n\n";
        text += &table(&equivalent, |tried| self.why_equivalent(tried).unwrap_or_default().to_string());
        if !self.failing.is_empty() {
            let _ =
                write!(text, "\nNot asked, as they fail in the copy without a fault: {}.\n", self.failing.join(", "));
        }
        fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// What is said of a fault in one of the lists.
fn why<'a>(list: &'a [Survivor], tried: &Tried) -> Option<&'a str> {
    list.iter().find(|survivor| survivor.id == tried.id).map(|survivor| survivor.why.as_str())
}

/// Faults, where they are, and a word on each.
fn table(faults: &[&Tried], word: impl Fn(&Tried) -> String) -> String {
    if faults.is_empty() {
        return "None.\n".to_string();
    }
    let mut text = "| fault | where | why |\n|---|---|---|\n".to_string();
    for tried in faults {
        // The names of those of `cargo mutants` begin with their file.
        let fault = if tried.set == Set::Mutants { &tried.what } else { &tried.id };
        let cells = [fault.clone(), format!("{}:{}", tried.file, tried.line), word(tried)];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}
