//! What is planted: our own list (`faults.toml`), and a sample of what `cargo mutants` would try.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::files::hash;
use crate::switch::Edit;

/// Where a fault comes from and how it is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// Ours, in a kernel.
    Kernels,
    /// Ours, in Rust or in what Rust includes.
    Rust,
    /// Of `cargo mutants`.
    Mutants,
}

impl Set {
    pub const ALL: [Set; 3] = [Set::Kernels, Set::Rust, Set::Mutants];

    pub fn title(self) -> &'static str {
        match self {
            Set::Kernels => "ours: kernels",
            Set::Rust => "ours: Rust",
            Set::Mutants => "cargo mutants",
        }
    }
}

/// A fault in a file of the engine.
#[derive(Clone, Debug)]
pub struct Fault {
    pub id: String,
    pub set: Set,
    /// From the root of the repository.
    pub file: String,
    pub line: usize,
    pub edit: Edit,
    /// What is wrong with it, in words.
    pub what: String,
    /// Starts of the names of tests that are likely to notice, where it cannot be seen which tests reach it.
    pub tests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    fault: Vec<Entry>,
}

/// As written in `faults.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    file: String,
    /// Occurs once in the file.
    old: String,
    new: String,
    what: String,
    #[serde(default)]
    tests: Vec<String>,
}

impl Entry {
    fn fault(self, root: &Path) -> Result<Fault, String> {
        let path = root.join(&self.file);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let places: Vec<usize> = text.match_indices(&self.old).map(|(at, _)| at).collect();
        let [at] = places[..] else {
            return Err(format!("{}: `old` is {} times in {}, not once", self.id, places.len(), self.file));
        };
        let edit = shortest(at, &self.old, &self.new);
        let line = 1 + text[..edit.range.start].matches('\n').count();
        let set = if self.file.starts_with("kernels/") { Set::Kernels } else { Set::Rust };
        let Entry { id, file, what, tests, .. } = self;
        Ok(Fault { id, set, file, line, edit, what, tests })
    }
}

/// The edit without what `old` and `new` have in common at their ends.
fn shortest(at: usize, old: &str, new: &str) -> Edit {
    let same = |a: &mut dyn Iterator<Item = char>, b: &mut dyn Iterator<Item = char>| -> usize {
        a.zip(b).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
    };
    let before = same(&mut old.chars(), &mut new.chars());
    let (old, new) = (&old[before..], &new[before..]);
    let after = same(&mut old.chars().rev(), &mut new.chars().rev());
    let range = at + before..at + before + old.len() - after;
    Edit { range, with: new[..new.len() - after].to_string() }
}

/// Our own list.
///
/// # Errors
/// In one line, what is wrong with it.
pub fn ours(root: &Path) -> Result<Vec<Fault>, String> {
    let path = root.join("tests/mutation/faults.toml");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let list: List = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let (faults, stale): (Vec<_>, Vec<_>) =
        list.fault.into_iter().map(|entry| entry.fault(root)).partition(Result::is_ok);
    let faults: Vec<Fault> = faults.into_iter().flatten().collect();
    if !stale.is_empty() {
        return Err(stale.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("\n"));
    }
    let mut seen = HashMap::new();
    match faults.iter().find(|fault| seen.insert(fault.id.clone(), ()).is_some()) {
        Some(twice) => Err(format!("{} is in the list twice", twice.id)),
        None => Ok(faults),
    }
}

/// The modules that `cargo mutants` is asked about.
const MODULES: [&str; 6] = ["attack", "prune", "train", "experiments", "checkpoint", "data"];

/// As `cargo mutants --list --json` prints it.
#[derive(Deserialize)]
struct Mutant {
    name: String,
    file: String,
    span: Span,
    replacement: String,
}

#[derive(Deserialize)]
struct Span {
    start: Position,
    end: Position,
}

/// Both counted from 1, columns in characters.
#[derive(Deserialize)]
struct Position {
    line: usize,
    column: usize,
}

impl Position {
    fn offset(&self, text: &str) -> usize {
        let start: usize = text.split_inclusive('\n').take(self.line - 1).map(str::len).sum();
        start + text[start..].chars().take(self.column - 1).map(char::len_utf8).sum::<usize>()
    }
}

/// Everything that `cargo mutants` finds in those modules, in an order that `seed` decides.
///
/// # Errors
/// In one line, if it is not installed or finds something that is not there.
pub fn mutants(root: &Path, seed: u64) -> Result<Vec<Fault>, String> {
    let globs =
        MODULES.iter().flat_map(|m| ["--file".into(), format!("src/{m}.rs"), "--file".into(), format!("src/{m}/**")]);
    let mut command = Command::new("cargo");
    command.args(["mutants", "--list", "--json", "--no-config", "--dir"]).arg(root).args(globs);
    let output = command.output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`cargo mutants` (cargo install cargo-mutants --locked): {}", why.trim()));
    }
    let mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo mutants: {e}"))?;
    let (mut texts, mut named) = (HashMap::new(), HashMap::new());
    let mut faults = Vec::new();
    for mutant in mutants {
        let path = root.join(&mutant.file);
        let text: &String = match texts.entry(mutant.file.clone()) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?)
            }
        };
        let range = mutant.span.start.offset(text)..mutant.span.end.offset(text);
        // Without line and column, which change with every edit above, but with a number if there are more of the same.
        let what = mutant.name.splitn(2, ": ").last().unwrap_or_default().to_string();
        let name = format!("{}: {what}", mutant.file);
        let count = named.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        let id = if *count == 1 { name } else { format!("{name} ({count})") };
        let (line, edit) = (mutant.span.start.line, Edit { range, with: mutant.replacement });
        faults.push(Fault { id, set: Set::Mutants, file: mutant.file, line, edit, what, tests: Vec::new() });
    }
    faults.sort_by_key(|fault| hash([seed.to_string().as_bytes(), fault.id.as_bytes()]));
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::{Edit, Position, shortest};

    #[test]
    fn only_what_differs_is_edited() {
        let edit = |old, new| shortest(10, old, new);
        assert_eq!(edit("a.min(b)", "a.max(b)"), Edit { range: 13..15, with: "ax".to_string() });
        assert_eq!(edit("a; b;", "b;"), Edit { range: 10..13, with: String::new() });
        assert_eq!(edit("aa", "aaa"), Edit { range: 12..12, with: "a".to_string() });
    }

    #[test]
    fn positions_count_characters() {
        let text = "é\nüx y\n";
        let at = |line, column| &text[Position { line, column }.offset(text)..];
        assert_eq!([at(1, 1), at(2, 1), at(2, 2), at(2, 4)], [text, "üx y\n", "x y\n", "y\n"]);
    }
}
