//! Each module imports only from its own floor or from below; the table in the documentation of `src/lib.rs` says which
//! floor is whose.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Floor by module.
type Floors = BTreeMap<String, usize>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rows `//! | floor | [`module`], [`module`] | … |`.
fn floors(lib: &str) -> Floors {
    let mut floors = Floors::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = row.split('|').map(str::trim);
        let (Some(Ok(floor)), Some(modules)) = (cells.next().map(str::parse), cells.next()) else { continue };
        for module in modules.split(',') {
            let name = module.trim().trim_start_matches("[`").trim_end_matches("`]").to_string();
            assert!(floors.insert(name, floor).is_none(), "{module} has two floors");
        }
    }
    floors
}

/// All files with the path of their module: `attack/pgd.rs` is `[attack, pgd]`, `attack/mod.rs` is `[attack]`.
fn modules(dir: &Path) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_stem().unwrap().to_str().unwrap().to_string();
        if entry.is_dir() {
            found.extend(modules(&entry).into_iter().map(|(path, text)| ([vec![name.clone()], path].concat(), text)));
        } else if entry.extension().is_some_and(|e| e == "rs") {
            let path = if name == "mod" { vec![] } else { vec![name] };
            found.push((path, fs::read_to_string(&entry).unwrap()));
        }
    }
    found
}

/// The code before the file's tests, without comments.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = before_tests.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The top-level modules that `code`, of a module `depth` levels below the crate's root, names from the root.
fn imports(code: &str, depth: usize) -> Vec<String> {
    let root = "super::".repeat(depth);
    let from_root = |prefix: &str| {
        // Not in the middle of a longer path, such as `super::super::` for `super::`.
        let begins = |at: usize| !code[..at].ends_with("::") && !code[..at].ends_with(|c: char| c.is_alphanumeric());
        let rests = code.match_indices(prefix).filter(|(at, _)| begins(*at)).map(|(at, _)| &code[at + prefix.len()..]);
        rests.flat_map(first_names).collect::<Vec<String>>()
    };
    [from_root("crate::"), from_root(&root)].concat()
}

/// `a` of `a::b`; `a` and `b` of `{a::c, b::{d, e}}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What `module` imports from above.
fn upward(floors: &Floors, module: &[String], text: &str) -> Vec<String> {
    let floor = floors[&module[0]];
    let mut above = imports(&code(text), module.len());
    above.retain(|import| floors.get(import).is_some_and(|&other| other > floor));
    above.sort_unstable();
    above.dedup();
    above
}

#[test]
fn no_module_imports_from_above() {
    let floors = floors(&fs::read_to_string(source().join("lib.rs")).unwrap());
    let (mut violations, mut checked) = (Vec::new(), 0);
    for (module, text) in modules(&source()) {
        if !["lib", "main"].contains(&module[0].as_str()) {
            let above = upward(&floors, &module, &text);
            violations.extend(above.into_iter().map(|import| format!("{} imports {import}", module.join("::"))));
            checked += imports(&code(&text), module.len()).len();
        }
    }
    assert!(violations.is_empty(), "upward: {violations:#?}");
    assert!(checked > 200, "only {checked} imports found");
}

#[test]
fn the_table_has_every_module() {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    let declared =
        lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    let mut declared: Vec<&str> = declared.collect();
    declared.sort_unstable();
    assert_eq!(floors(&lib).keys().collect::<Vec<_>>(), declared);
}

#[test]
fn upward_imports_are_found_in_every_form() {
    let floors =
        floors("//! | floor | modules | owns |\n//! |---|---|---|\n//! | 0 | [`a`], [`b`] | |\n//! | 1 | [`c`] | |\n");
    assert_eq!(floors.len(), 3);
    let found = |module: &str, text: &str| {
        let module: Vec<String> = module.split("::").map(String::from).collect();
        upward(&floors, &module, text).concat()
    };
    for text in [
        "use crate::c;",
        "use crate::c::x;",
        "pub use crate::{a, b::{y, z}, c::x};",
        "use crate::{\n    b,\n    c,\n};",
        "fn f() -> crate::c::X {}",
        "macro_rules! m { () => { $crate::c::X } }",
        "use super::c;",
    ] {
        assert_eq!(found("a", text), "c", "{text}");
    }
    assert_eq!(found("a::inner", "use super::super::c::X;"), "c");
    for text in [
        "use crate::a; use crate::b::c;",
        "// use crate::c;",
        "/// [`crate::c`]\nfn f() {}",
        "use mycrate::c;",
        "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\n",
    ] {
        assert_eq!(found("a", text), "", "{text}");
    }
    assert_eq!(found("a::inner", "use super::c;"), "", "a::c");
    assert_eq!(found("c", "use crate::{a, b};"), "", "downward");
}
