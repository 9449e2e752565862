//! No module imports from a floor above its own. The floors are the table in the documentation of `src/lib.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// Every `.rs` file below `dir`.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// The top-level modules that a file's code names as `crate::module`. Unit tests, at the end of a file, may look up.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(|l| l.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join("\n");
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            // `use crate::{a, b::c}`: the names at depth one.
            Some(group) => {
                let mut depth = 0;
                let mut expect = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => expect = true,
                        c if expect && depth == 0 && !c.is_whitespace() => {
                            found.push(name(&group[at..]));
                            expect = false;
                        }
                        _ => {}
                    }
                }
            }
            None => found.push(name(rest)),
        }
    }
    found
}

/// The imports that break the rule, as `file: module`.
fn upward(files: &[(String, String)], floors: &BTreeMap<String, usize>) -> Vec<String> {
    let mut broken = Vec::new();
    for (file, text) in files {
        let module = file.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = floors.get(module) else {
            broken.push(format!("{file}: module '{module}' has no floor in src/lib.rs"));
            continue;
        };
        for import in imports(text) {
            if floors.get(&import).is_some_and(|floor| floor > own) {
                broken.push(format!("{file} (floor {own}) imports crate::{import} (floor {})", floors[&import]));
            }
        }
    }
    broken
}

#[test]
fn no_module_imports_from_a_floor_above() {
    let (root, floors) = (source(), floors());
    let files: Vec<(String, String)> = rust_files(&root)
        .into_iter()
        .map(|p| (p.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&p).unwrap()))
        .filter(|(file, _)| file != "lib.rs" && file != "main.rs")
        .collect();
    assert!(
        files.len() > 50 && floors.len() > 15,
        "{} files, {} floors: looked in the wrong place",
        files.len(),
        floors.len()
    );
    assert_eq!(upward(&files, &floors), Vec::<String>::new());
}

#[test]
fn an_upward_import_is_seen() {
    let floors = floors();
    let file = |text: &str| vec![("tape.rs".to_string(), text.to_string())];
    for bad in
        ["use crate::train::train;", "use crate::{error::Error, models::{Mode, Model}};", "let x = crate::cli::main();"]
    {
        assert_eq!(upward(&file(bad), &floors).len(), 1, "{bad}");
    }
    for good in ["use crate::backend::Backend;", "// use crate::train;", "#[cfg(test)]\nuse crate::train;"] {
        assert!(upward(&file(good), &floors).is_empty(), "{good}");
    }
}
