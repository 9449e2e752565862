//! Records the commit for `run.json` and `engine doctor`, compiles the kernels into the program, and hands their lists of tiles
//! to the host.
//!
//! Where there is no NVRTC the program has their sources only, and compiles them when they are first used. Results are kept
//! in the target directory, so that the profiles do not compile the same kernels again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, io, thread};

#[allow(dead_code)]
#[path = "src/backend/cuda/runtime/compile.rs"]
mod compile;

use compile::{Compiled, Nvrtc, Source, find};

/// Architectures to compile for, separated by commas.
const ENV_ARCHS: &str = "ENGINE_CUDA_ARCHS";
/// The default, as far as NVRTC knows them: Ampere and Ada, Hopper, Blackwell in data centres. Every other and later GPU runs
/// the PTX that is always there.
const ARCHS: &str = "80,90a,100";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Absent from a source archive; then the commit is simply unknown.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=ENGINE_COMMIT={commit}");
    }
    if let Err(error) = kernels() {
        println!("cargo::error={error}");
        exit(1);
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

/// Writes `kernels.rs`, which `modules.rs` includes.
fn kernels() -> Result<(), String> {
    println!("cargo::rerun-if-changed=kernels");
    let variables = [find::ENV_NVRTC, compile::ENV_LINEINFO, find::ENV_PYTHON, ENV_ARCHS];
    for name in variables.iter().chain(&find::ENV_TOOLKITS) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let files = read_sources(Path::new("kernels")).map_err(|e| format!("kernels: {e}"))?;
    write_tile_lists(&out, &files).map_err(|e| format!("{}: {e}", out.display()))?;
    let table = match find::nvrtc() {
        Ok(nvrtc) => {
            // Not the bare name of one that the dynamic loader has found: Cargo would miss such a file here every time.
            if nvrtc.path.is_absolute() {
                println!("cargo::rerun-if-changed={}", nvrtc.path.display());
            }
            let archs = architectures(&nvrtc)?;
            let images = compile_all(&nvrtc, &files, &archs, &cache(&out))?;
            let (major, minor) = nvrtc.version;
            embed(&out, &images, &format!("Some(({major}, {minor}))"))
        }
        Err(why) if find::named().is_some() => return Err(why),
        Err(why) => {
            let install = compile::INSTALL;
            println!(
                "cargo::warning=the CUDA kernels are not embedded but compiled when first used: {why}; to embed them: \
                 {install}, then touch build.rs"
            );
            embed(&out, &[], "None")
        }
    };
    let mut table = table.map_err(|e| format!("{}: {e}", out.display()))?;
    // The text, not a path: what is compiled later is what was there now.
    let _ = writeln!(table, "pub const SOURCES: &[(&str, &str)] = &{files:?};");
    fs::write(out.join("kernels.rs"), table).map_err(|e| format!("{}: {e}", out.display()))
}

/// Path below `root`, as `f32/conv.cu`, and text of every `*.cu` and `*.cuh`, in order.
fn read_sources(root: &Path) -> io::Result<Vec<(String, String)>> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh") {
                let below: Vec<_> =
                    path.strip_prefix(root).unwrap_or(&path).iter().map(|part| part.to_string_lossy()).collect();
                files.push((below.join("/"), fs::read_to_string(&path)?));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Writes every list of tiles, `#define LIST(TILE)` and a row `TILE(name, …)` for each kernel, as `<list>.rs`: an array of calls
/// `tile("name", …)`, which the host's tables include.
fn write_tile_lists(out: &Path, files: &[(String, String)]) -> io::Result<()> {
    for (_, text) in files {
        let mut lines = text.lines().map(|line| line.trim_end_matches('\\').trim());
        while let Some(line) = lines.next() {
            let list = line.strip_prefix("#define ").and_then(|rest| rest.strip_suffix("(TILE)"));
            let Some(list) = list else { continue };
            let rows = lines.by_ref().map_while(|line| line.strip_prefix("TILE(")?.strip_suffix(')')?.split_once(','));
            let calls: String = rows.map(|(name, columns)| format!("tile({name:?},{columns}),\n")).collect();
            fs::write(out.join(format!("{}.rs", list.to_lowercase())), format!("[\n{calls}]\n"))?;
        }
    }
    Ok(())
}

fn architectures(nvrtc: &Nvrtc) -> Result<Vec<String>, String> {
    let given = env::var(ENV_ARCHS).ok().filter(|given| !given.is_empty());
    let names = given.as_deref().unwrap_or(ARCHS).split(',').map(str::trim);
    let (mut known, unknown): (Vec<&str>, Vec<&str>) = names.partition(|arch| nvrtc.knows(arch));
    if let (Some(_), [arch, ..]) = (&given, &unknown[..]) {
        let (major, minor) = nvrtc.version;
        return Err(format!(
            "{ENV_ARCHS}: NVRTC {major}.{minor} does not know architecture '{arch}'; write them as in 80,90a"
        ));
    }
    known.push(compile::PTX);
    Ok(known.into_iter().map(String::from).collect())
}

/// The directory of compiled kernels, in the target directory (the one with `CACHEDIR.TAG`), so that all profiles share it.
fn cache(out: &Path) -> PathBuf {
    out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).unwrap_or(out).join("kernels-cache")
}

/// A kernel file for an architecture.
struct Image<'a> {
    file: &'a str,
    arch: &'a str,
    compiled: Compiled,
}

fn compile_all<'a>(
    nvrtc: &Nvrtc,
    files: &'a [(String, String)],
    archs: &'a [String],
    cache: &Path,
) -> Result<Vec<Image<'a>>, String> {
    let sources: Vec<Source> = files.iter().map(|(name, text)| Source { name, text }).collect();
    let (headers, units): (Vec<Source>, Vec<Source>) = sources.into_iter().partition(|s| s.name.ends_with(".cuh"));
    let jobs: Vec<(Source, &String)> =
        units.iter().flat_map(|&unit| archs.iter().map(move |arch| (unit, arch))).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(&(unit, arch)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = nvrtc.compile_cached(cache, unit, &headers, arch).map(|(compiled, _)| compiled);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((unit.name, arch, outcome));
        }
    };
    let threads = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    thread::scope(|scope| (0..jobs.len().min(threads)).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|&(file, arch, _)| (file, archs.iter().position(|a| a == arch)));

    let mut images = Vec::new();
    let mut rejected: Vec<(&str, String)> = Vec::new();
    for (file, arch, outcome) in done {
        match outcome {
            Ok(compiled) => images.push(Image { file: file.trim_end_matches(".cu"), arch, compiled }),
            // What is wrong for one architecture is mostly so for all: once is enough.
            Err(error) if rejected.last().is_none_or(|(last, _)| *last != file) => rejected.push((file, error)),
            Err(_) => {}
        }
    }
    for (_, error) in &rejected {
        error.lines().filter(|line| !line.is_empty()).for_each(|line| println!("cargo::error={line}"));
    }
    match rejected.len() {
        0 => Ok(images),
        count => Err(format!("{count} of {} files in kernels/ do not compile", units.len())),
    }
}

/// Writes the images to `out`; the start of `kernels.rs`, with a table of them.
fn embed(out: &Path, images: &[Image], nvrtc: &str) -> io::Result<String> {
    let mut table = format!("pub const NVRTC: Option<(i32, i32)> = {nvrtc};\npub const EMBEDDED: &[Embedded] = &[\n");
    for Image { file, arch, compiled: Compiled { image, log } } in images {
        let path = out.join(format!("{}.{arch}", file.replace('/', "-")));
        fs::write(&path, image)?;
        let _ = writeln!(
            table,
            "Embedded {{ file: {file:?}, arch: {arch:?}, image: &Aligned(*include_bytes!({path:?})).0, log: {log:?} }},"
        );
    }
    table.push_str("];\n");
    Ok(table)
}
