//! Where NVRTC is: a toolkit, the dynamic loader's path, or a wheel of Python's.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::Nvrtc;

/// Names the library or its directory; `none` forbids it.
pub const ENV_NVRTC: &str = "ENGINE_NVRTC";
/// Name toolkits, with the library in `lib64` or `lib`.
pub const ENV_TOOLKITS: [&str; 2] = ["CUDA_HOME", "CUDA_PATH"];
/// Names a Python environment.
pub const ENV_PYTHON: &str = "VIRTUAL_ENV";

/// The older major version first: a driver runs machine code of its own and of earlier ones.
const NAMES: [&str; 3] = ["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"];
/// Where the wheels put it, below `site-packages`.
const WHEELS: [&str; 2] = ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"];

/// The library, or its directory, that the user names; a build without it would not be what was asked for.
pub fn named() -> Option<PathBuf> {
    variable(ENV_NVRTC).filter(|given| given.as_os_str() != "none")
}

/// NVRTC: the one that is named, or the first that works in a toolkit, on the dynamic loader's path, in a Python environment.
///
/// # Errors
/// In one line where it was looked for, and what is wrong with those that were found.
pub fn nvrtc() -> Result<Nvrtc, String> {
    let mut search = Search::default();
    match named() {
        Some(given) => search.named(&given),
        None if variable(ENV_NVRTC).is_some() => Err(format!("{ENV_NVRTC}=none forbids NVRTC")),
        None => search.anywhere().ok_or_else(|| search.nothing()),
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where a search has been, and what it found there that does not work.
#[derive(Default)]
struct Search {
    places: Vec<String>,
    broken: Vec<String>,
}

impl Search {
    fn named(&mut self, given: &Path) -> Result<Nvrtc, String> {
        let found = if given.is_dir() { self.directory(given) } else { self.file(given) };
        found.ok_or_else(|| match self.broken.first() {
            Some(broken) => format!("{ENV_NVRTC}: {broken}"),
            None => format!("{ENV_NVRTC}: there is no {} in {}", NAMES[0], given.display()),
        })
    }

    fn anywhere(&mut self) -> Option<Nvrtc> {
        let toolkits = ENV_TOOLKITS.into_iter().filter_map(variable);
        for root in toolkits.chain([PathBuf::from("/usr/local/cuda")]) {
            if let Some(found) = ["lib64", "lib"].iter().find_map(|lib| self.directory(&root.join(lib))) {
                return Some(found);
            }
        }
        self.places.push("the dynamic loader's path".to_string());
        if let Some(found) = NAMES.iter().find_map(|name| self.load(Path::new(name))) {
            return Some(found);
        }
        // Cargo sets the second for build scripts and for what it runs.
        let beside = variable("CARGO_MANIFEST_DIR").map(|project| project.join(".venv"));
        let environments = variable(ENV_PYTHON).into_iter().chain(beside);
        let packages: Vec<PathBuf> = environments.flat_map(|environment| site_packages(&environment)).collect();
        self.wheels(packages).or_else(|| self.wheels(python_path()))
    }

    fn wheels(&mut self, packages: Vec<PathBuf>) -> Option<Nvrtc> {
        let directories = packages.iter().flat_map(|packages| WHEELS.map(|wheel| packages.join(wheel)));
        let found = directories.filter(|directory| directory.is_dir()).find_map(|directory| self.directory(&directory));
        self.places.extend(packages.iter().map(|packages| packages.display().to_string()));
        found
    }

    fn directory(&mut self, directory: &Path) -> Option<Nvrtc> {
        self.places.push(directory.display().to_string());
        let files = NAMES.iter().map(|name| directory.join(name)).filter(|file| file.exists());
        files.into_iter().find_map(|file| self.file(&file))
    }

    fn file(&mut self, path: &Path) -> Option<Nvrtc> {
        // The loader would look for a relative path without a slash elsewhere.
        match path.canonicalize().and_then(|path| whole(&path).map(|()| path)) {
            Ok(path) => self.load(&path),
            Err(error) => {
                self.broken.push(format!("{}: {error}", path.display()));
                None
            }
        }
    }

    fn load(&mut self, path: &Path) -> Option<Nvrtc> {
        match Nvrtc::load(path) {
            Ok(nvrtc) => Some(nvrtc),
            Err(why) => {
                // The loader's way to say that there is no such file at all.
                if !why.starts_with(&format!("{}: cannot open shared object file", path.display())) {
                    let known = why.starts_with(&path.display().to_string());
                    self.broken.push(if known { why } else { format!("{}: {why}", path.display()) });
                }
                None
            }
        }
    }

    fn nothing(&self) -> String {
        let broken = self.broken.iter().map(|broken| format!("; {broken}")).collect::<String>();
        format!("no usable {} in {}{broken}", NAMES[0], self.places.join(", "))
    }
}

/// Fails for a file that is not a library or is cut short, which would kill the process instead of failing to load. In a
/// library the table of sections comes last.
fn whole(path: &Path) -> io::Result<()> {
    let mut file = fs::File::open(path)?;
    let mut header = [0; 64];
    let problem = |what: &str| io::Error::other(what.to_string());
    file.read_exact(&mut header).map_err(|_| problem("not a library"))?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(problem("not a library"));
    }
    let number = |at: usize, size: usize| header[at..at + size].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    let (table, entry, entries) = (number(40, 8), number(58, 2), number(60, 2));
    if table.saturating_add(entry * entries) > file.metadata()?.len() {
        return Err(problem("cut short"));
    }
    Ok(())
}

/// `lib/python3.*/site-packages` of a Python environment.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let versions = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    versions.map(|version| version.path().join("site-packages")).filter(|packages| packages.is_dir()).collect()
}

/// Where `python3` looks for packages; nothing if there is none.
fn python_path() -> Vec<PathBuf> {
    let script = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))";
    let answer = Command::new("python3").args(["-c", script]).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&answer).lines().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let named = |path: &Path| Search::default().named(path).err().unwrap();
        assert!(named(dir.path()).starts_with("ENGINE_NVRTC: there is no libnvrtc.so.12 in "));
        assert!(named(&dir.path().join("gone")).contains("gone: No such file"));

        let file = dir.path().join("libnvrtc.so.12");
        let mut cut_short = b"\x7fELF\x02\x01\x01".to_vec();
        cut_short.resize(64, 0);
        // The table of sections at 1 MiB of a file of 64 bytes.
        cut_short[42] = 0x10;
        for (bytes, what) in [(&b""[..], "not a library"), (&[b'x'; 100], "not a library"), (&cut_short, "cut short")] {
            fs::write(&file, bytes).unwrap();
            for given in [dir.path(), &file] {
                let why = named(given);
                assert!(why.ends_with(&format!("libnvrtc.so.12: {what}")) && why.lines().count() == 1, "{why}");
            }
        }
        // A header of zeros passes for a library until the loader reads it.
        cut_short[42] = 0;
        fs::write(&file, &cut_short).unwrap();
        assert_eq!(named(&file).lines().count(), 1);
    }

    #[test]
    fn packages_of_an_environment_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let packages = dir.path().join("lib/python3.99/site-packages");
        fs::create_dir_all(packages.join(WHEELS[0])).unwrap();
        assert_eq!(site_packages(dir.path()), std::slice::from_ref(&packages));
        fs::write(packages.join(WHEELS[0]).join(NAMES[1]), "").unwrap();
        let mut search = Search::default();
        assert!(search.wheels(vec![packages]).is_none());
        assert!(search.nothing().ends_with("libnvrtc.so.13: not a library"), "{}", search.nothing());
    }
}
