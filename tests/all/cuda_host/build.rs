//! Kernels as a shared library, made by the system's C++ compiler and kept under the hash of what it is made from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

use sha2::{Digest, Sha256};

/// A kernel file, `kernels/<file>.cu`, and the kernels in it.
pub struct Unit<'a> {
    pub file: &'a str,
    pub kernels: Vec<&'a str>,
}

/// The runtime's own files in `tests/cuda_host`.
const RUNTIME: [&str; 6] =
    ["async_copy.cpp", "checks.cpp", "context.cpp", "fibers.cpp", "launch.cpp", "memory_map.cpp"];

/// For everything.
const FLAGS: &[&str] = &["-std=c++17", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"];

/// For kernels: the compiler calls the runtime before every access, as if for ThreadSanitizer.
const KERNEL_FLAGS: &[&str] =
    &["-fno-strict-aliasing", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0", "-Wall", "-Wextra"];

/// The runtime takes the place of ThreadSanitizer's, whose library is not linked.
const LINK_FLAGS: &[&str] = &["-shared", "-Wl,--wrap=memcpy,--wrap=memmove,--wrap=memset", "-Wl,-z,defs", "-lpthread"];

/// The library with these kernels. Only what has changed is compiled: objects are kept too.
///
/// # Errors
/// In one line: no compiler, no sources, or what the compiler says.
pub fn library(units: &[Unit<'_>]) -> Result<PathBuf, String> {
    let roots = roots();
    let mut objects = units.iter().map(|unit| Object::of_unit(&roots, unit)).collect::<Result<Vec<_>, _>>()?;
    for file in RUNTIME {
        objects.push(Object::new(&roots, file, format!("#include \"cuda_host/{file}\"\n"), Vec::new())?);
    }
    let key = hash(objects.iter().map(|object| object.key.as_str()).chain(LINK_FLAGS.iter().copied()));
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-host");
    let library = root.join(&key).join("libkernels.so");
    if library.exists() {
        return Ok(library);
    }
    let compiler = compiler(&root)?;
    // Another process may do the same: each in a folder of its own, and the first to finish gives its away.
    let work = root.join(format!("{key}.{}", std::process::id()));
    make(&compiler, &roots, &objects, &root.join("objects"), &work)?;
    if fs::rename(&work, root.join(&key)).is_err() {
        // Not first, or it could not be moved: then the library is missing, and opening it says so.
        let _ = fs::remove_dir_all(&work);
    }
    Ok(library)
}

/// The folders in which includes are looked up: that of the kernels (`ENGINE_HOST_SOURCES` names a copy that takes its place)
/// and that above the runtime.
fn roots() -> [PathBuf; 2] {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    [env::var_os("ENGINE_HOST_SOURCES").map_or_else(|| package.join("kernels"), PathBuf::from), package.join("tests")]
}

/// What makes a kernel file known to the runtime.
fn wrapper(unit: &Unit<'_>) -> String {
    let mut text = format!("#include \"cuda_host/cuda.h\"\n#include \"{}.cu\"\n", unit.file);
    for kernel in &unit.kernels {
        let _ = writeln!(text, "REGISTER({kernel});");
    }
    text
}

/// A text to compile with these flags, under the hash of both and of every file that the text includes.
struct Object {
    name: String,
    text: String,
    flags: Vec<&'static str>,
    key: String,
}

impl Object {
    fn of_unit(roots: &[PathBuf], unit: &Unit<'_>) -> Result<Self, String> {
        Object::new(roots, &unit.file.replace('/', "-"), wrapper(unit), kernel_flags())
    }

    fn new(roots: &[PathBuf], name: &str, text: String, flags: Vec<&'static str>) -> Result<Self, String> {
        let mut included = BTreeMap::new();
        include(roots, &roots[0], &text, &mut included)?;
        let flags = [FLAGS, &flags].concat();
        let files = included.values().map(String::as_str);
        let key = hash([text.as_str()].into_iter().chain(flags.iter().copied()).chain(files));
        Ok(Object { name: format!("{name}.cpp"), text, flags, key })
    }
}

/// Adds the files that `text`, of a file in `folder`, includes by quotes, and those that they include. The compiler's own
/// headers stay out.
fn include(
    roots: &[PathBuf],
    folder: &Path,
    text: &str,
    included: &mut BTreeMap<PathBuf, String>,
) -> Result<(), String> {
    for name in text.lines().filter_map(|line| line.strip_prefix("#include \"")?.split('"').next()) {
        let mut places =
            std::iter::once(folder).chain(roots.iter().map(PathBuf::as_path)).map(|place| place.join(name));
        let path = places.find(|path| path.exists()).ok_or_else(|| format!("{name}: there is no such file"))?;
        let path = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        if included.contains_key(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        included.insert(path.clone(), text.clone());
        include(roots, path.parent().unwrap_or(folder), &text, included)?;
    }
    Ok(())
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Beside [`KERNEL_FLAGS`], `fmaf` as an instruction where the processor has it. Products and sums are not contracted to it, so
/// that what is to have the CPU's bits has them; `ENGINE_HOST_CONTRACT=1` contracts them, as NVRTC does for a GPU, so that a
/// test that asks for more than rounding can promise is seen here.
fn kernel_flags() -> Vec<&'static str> {
    let contract = env::var_os("ENGINE_HOST_CONTRACT").is_some_and(|value| value == "1");
    let mut flags = vec![if contract { "-ffp-contract=fast" } else { "-ffp-contract=off" }];
    flags.extend(KERNEL_FLAGS);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") {
        flags.push("-mfma");
    }
    flags
}

pub fn compiler(out: &Path) -> Result<cc::Tool, String> {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .target(&target)
        .host(&target)
        .opt_level(2)
        .out_dir(out)
        .no_default_flags(true)
        .cargo_metadata(false);
    let tool = build.try_get_compiler().map_err(|e| format!("there is no C++ compiler: {e}"))?;
    match tool.to_command().arg("--version").output() {
        Ok(output) if output.status.success() => Ok(tool),
        _ => Err(format!("there is no C++ compiler: {} does not run", tool.path().display())),
    }
}

/// Compiles in `work`, two files at a time, what is not among the `kept` objects, and links.
fn make(compiler: &cc::Tool, roots: &[PathBuf], objects: &[Object], kept: &Path, work: &Path) -> Result<(), String> {
    for folder in [kept, work] {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let compile = |object: &Object| -> Result<PathBuf, String> {
        let done = kept.join(&object.key).with_extension("o");
        if done.exists() {
            return Ok(done);
        }
        let source = work.join(&object.name);
        fs::write(&source, &object.text).map_err(|e| format!("{}: {e}", source.display()))?;
        let fresh = source.with_extension("o");
        let mut command = compiler.to_command();
        command.args(&object.flags);
        for root in roots {
            command.arg("-I").arg(root);
        }
        command.arg("-c").arg(&source).arg("-o").arg(&fresh);
        run(&mut command)?;
        // At once, so that nobody finds half of it.
        fs::rename(&fresh, &done).map_err(|e| format!("{}: {e}", done.display()))?;
        Ok(done)
    };
    let linked: Result<Vec<PathBuf>, String> = thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || objects.iter().skip(half).step_by(2).map(compile).collect::<Result<Vec<_>, _>>())
        });
        let halves = halves.map(|half| half.join().expect("a compiling thread does not panic"));
        Ok(halves.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    });
    let mut link = compiler.to_command();
    run(link.args(linked?).args(LINK_FLAGS).arg("-o").arg(work.join("libkernels.so")))
}

pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}
