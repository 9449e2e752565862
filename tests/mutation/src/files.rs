//! Copies of folders, and hashes of what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

/// What files hold, by their paths from some root.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The first half of the SHA-256 of the parts, in hexadecimal digits.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn hash_of(files: &Files) -> String {
    hash(files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes]))
}

/// Everything in the working tree that git does not ignore and that builds or tests the engine.
///
/// # Errors
/// In one line.
pub fn working_tree(root: &Path) -> Result<Files, String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = command.output().map_err(|e| format!("git: {e}"))?;
    let names = String::from_utf8(output.stdout).map_err(|e| format!("git: {e}"))?;
    let wanted =
        |name: &&str| !["tests/mutation/", "fuzz/", "docs/mutation.md"].iter().any(|folder| name.starts_with(folder));
    let mut files = Files::new();
    for name in names.split('\0').filter(|name| !name.is_empty()).filter(wanted) {
        let path = root.join(name);
        // What is deleted but not yet committed is still listed.
        if path.is_file() {
            files.insert(name.to_string(), fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?);
        }
    }
    Ok(files)
}

/// Makes `folder` hold these files and no others. What is right already is not touched, so that little is built again.
///
/// # Errors
/// In one line.
pub fn write(folder: &Path, files: &Files) -> Result<(), String> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| format!("{path}: {e}")
    };
    let mut present = Vec::new();
    list(folder, &mut present).map_err(failed(folder))?;
    for path in present {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        if !files.contains_key(&name) {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed(&path))?;
        fs::write(&path, bytes).map_err(failed(&path))?;
    }
    Ok(())
}

fn list(folder: &Path, found: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, found)? } else { found.push(path) }
    }
    Ok(())
}
