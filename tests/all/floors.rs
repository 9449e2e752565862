//! The order of the modules: none imports from a floor above its own (the table in `src/lib.rs`), and in no folder do files
//! and folders import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module: `["backend", "cpu", "conv"]`.
type Module = Vec<String>;
/// What each module imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Floor of every top-level module.
fn floors() -> BTreeMap<String, usize> {
    let lib = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let mut floors = BTreeMap::new();
    for line in lib.lines().filter(|l| l.starts_with("//! |")) {
        let mut cells = line.trim_start_matches("//! |").split('|').map(str::trim);
        let (Some(floor), Some(modules)) = (cells.next(), cells.next()) else { continue };
        let Ok(floor) = floor.parse::<usize>() else { continue };
        for module in modules.split(',') {
            floors.insert(module.trim().trim_matches(&['[', '`', ']'][..]).to_string(), floor);
        }
    }
    floors
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every module below `folder`, whose own path is `module`, with its text.
fn modules(folder: &Path, module: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        let name = entry.file_stem().unwrap().to_string_lossy().into_owned();
        let child = [module, std::slice::from_ref(&name)].concat();
        if entry.is_dir() {
            modules(&entry, &child, found);
        } else if entry.extension().is_some_and(|e| e == "rs") && !["lib", "main"].contains(&name.as_str()) {
            let module = if name == "mod" { module.to_vec() } else { child };
            found.insert(module, std::fs::read_to_string(&entry).unwrap());
        }
    }
}

/// A file's code without comments. Unit tests, at the end of a file, may look up.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, group)) = tree.split_once('{').filter(|_| tree.ends_with('}')) else {
        return vec![tree.split(" as ").next().unwrap_or_default().to_string()];
    };
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    let group = &group[..group.len() - 1];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(leaves).map(|leaf| format!("{}{leaf}", before.trim())).collect()
}

/// Every path in a file's code that can name a module: those of `use`, and those with `::` elsewhere.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in code.split([';', '}']) {
        let used = statement.rsplit_once("use ").filter(|(before, _)| {
            let before = before.trim_end();
            before.is_empty() || before.ends_with(['\n', ')', ']', '{']) || before.ends_with("pub")
        });
        if let Some((_, start)) = used {
            let at = start.as_ptr() as usize - code.as_ptr() as usize;
            found.extend(leaves(code[at..].split(';').next().unwrap_or_default()));
        }
    }
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    found.extend(words.filter(|word| word.contains("::")).map(|word| word.trim_matches(':').to_string()));
    found
}

/// What a path in `module` names, as far as it is one of `known`.
fn resolve(path: &str, module: &[String], known: &BTreeMap<Module, String>) -> Option<Module> {
    let mut parts: Vec<String> = path.split("::").map(|part| part.trim().to_string()).collect();
    let mut base = module.to_vec();
    match parts[0].as_str() {
        "crate" => {
            base.clear();
            parts.remove(0);
        }
        "self" => drop(parts.remove(0)),
        "super" => {
            while parts.first().is_some_and(|part| part == "super") {
                base.pop();
                parts.remove(0);
            }
        }
        child => {
            if !known.contains_key(&[module, &[child.to_string()]].concat()) {
                return None;
            }
        }
    }
    let full = [base, parts].concat();
    (1..=full.len()).rev().map(|n| full[..n].to_vec()).find(|prefix| known.contains_key(prefix))
}

fn imports(known: &BTreeMap<Module, String>) -> Imports {
    let of = |(module, text): (&Module, &String)| {
        let named = paths(&code(text)).into_iter().filter_map(|path| resolve(&path, module, known));
        (module.clone(), named.filter(|import| import != module).collect())
    };
    known.iter().map(of).collect()
}

/// The imports that go to a floor above, as `module (floor) imports module (floor)`.
fn upward(imports: &Imports, floors: &BTreeMap<String, usize>) -> Vec<String> {
    let mut broken = Vec::new();
    for (module, imported) in imports {
        let name = module.join("::");
        let Some(own) = floors.get(&module[0]) else {
            broken.push(format!("module '{name}' has no floor in src/lib.rs"));
            continue;
        };
        for import in imported {
            if let Some(floor) = floors.get(&import[0]).filter(|floor| *floor > own) {
                broken.push(format!("{name} (floor {own}) imports {} (floor {floor})", import.join("::")));
            }
        }
    }
    broken
}

/// In each folder the files and folders that reach themselves over others there, as `folder: file -> file`. A folder's own
/// `mod.rs` is not one of them: it hands on what its files define, and they use what it declares.
fn circles(imports: &Imports) -> Vec<String> {
    let folders: BTreeSet<&[String]> = imports.keys().flat_map(|m| (0..m.len()).map(|n| &m[..n])).collect();
    let mut found = Vec::new();
    for folder in folders {
        let child = |module: &Module| {
            (module.len() > folder.len() && module.starts_with(folder)).then(|| module[folder.len()].clone())
        };
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, imported) in imports {
            let Some(from) = child(module) else { continue };
            let to = imported.iter().filter_map(child).filter(|to| *to != from);
            edges.entry(from.clone()).or_default().extend(to);
        }
        let reached = |start: &String| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
            while let Some(next) = open.pop() {
                open.extend(edges.get(next).into_iter().flatten().filter(|to| seen.insert((*to).clone())));
            }
            seen
        };
        let round = |from: &String, to: &String| reached(to).contains(from);
        for (from, tos) in &edges {
            for to in tos.iter().filter(|to| round(from, to)) {
                found.push(format!("{}: {from} -> {to}", folder.join("::")));
            }
        }
    }
    found
}

#[test]
fn no_module_imports_from_a_floor_above() {
    let floors = floors();
    let mut known = BTreeMap::new();
    modules(&source(), &[], &mut known);
    let imports = imports(&known);
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(known.len() > 150 && floors.len() > 10 && count > 800, "{} modules, {count} imports", known.len());
    assert_eq!(upward(&imports, &floors), Vec::<String>::new());
}

#[test]
fn no_files_of_a_folder_import_each_other_in_a_circle() {
    let mut known = BTreeMap::new();
    modules(&source(), &[], &mut known);
    assert_eq!(circles(&imports(&known)), Vec::<String>::new());
}

/// Modules with these texts.
fn tree(files: &[(&str, &str)]) -> BTreeMap<Module, String> {
    files.iter().map(|(name, text)| (name.split('/').map(String::from).collect(), text.to_string())).collect()
}

#[test]
fn an_upward_import_is_seen() {
    let floors = floors();
    let broken = |text: &str| {
        let others = [("train/run", ""), ("nn/models", ""), ("cli", ""), ("backend", "")];
        upward(&imports(&tree(&[&others[..], &[("autograd/tape", text)]].concat())), &floors).len()
    };
    for bad in [
        "use crate::train::run::train;",
        "use crate::{base::error::Error, nn::models::{Mode, Model}};",
        "let x = crate::cli::main();",
        "pub(crate) use super::super::cli;",
    ] {
        assert_eq!(broken(bad), 1, "{bad}");
    }
    for good in ["use crate::backend::Backend;", "// use crate::train;", "#[cfg(test)]\nmod tests {\nuse crate::cli;"] {
        assert_eq!(broken(good), 0, "{good}");
    }
}

#[test]
fn a_circle_is_seen() {
    let files = [
        ("a", "mod b;"),
        ("a/b", "use super::c::C;\nfn f() {}"),
        ("a/c", "fn f() { super::d::e::g() }"),
        ("a/d", "pub use e::E;"),
        ("a/d/e", "use crate::a::{b::B, X};"),
    ];
    let found = circles(&imports(&tree(&files)));
    assert_eq!(found, ["a: b -> c", "a: c -> d", "a: d -> b"]);
    let straight = files.map(|(name, text)| (name, if name == "a/d/e" { "use super::super::X;" } else { text }));
    assert_eq!(circles(&imports(&tree(&straight))), Vec::<String>::new());
}
