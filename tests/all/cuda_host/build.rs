//! Kernels as a shared library, made by the system's C++ compiler and kept under the hash of what it is made from.

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

/// The runtime's own files in `kernels/host`.
const RUNTIME: [&str; 6] =
    ["async_copy.cpp", "checks.cpp", "context.cpp", "fibers.cpp", "launch.cpp", "memory_map.cpp"];

/// For everything.
const FLAGS: &[&str] = &["-std=c++17", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"];

/// For kernels: the compiler calls the runtime before every access, as if for ThreadSanitizer.
const KERNEL_FLAGS: &[&str] =
    &["-fno-strict-aliasing", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0", "-Wall", "-Wextra"];

/// The runtime takes the place of ThreadSanitizer's, whose library is not linked.
const LINK_FLAGS: &[&str] = &["-shared", "-Wl,--wrap=memcpy,--wrap=memmove,--wrap=memset", "-Wl,-z,defs", "-lpthread"];

/// The library with these kernels.
///
/// # Errors
/// In one line: no compiler, no sources, or what the compiler says.
pub fn library(units: &[Unit<'_>]) -> Result<PathBuf, String> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let sources: Vec<(String, String)> =
        units.iter().map(|unit| (format!("{}.cpp", unit.file.replace('/', "-")), wrapper(unit))).collect();
    let key = key(&kernels, &sources)?;
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-host");
    let library = root.join(&key).join("libkernels.so");
    if library.exists() {
        return Ok(library);
    }
    let compiler = compiler(&root)?;
    // Another process may do the same: each in a folder of its own, and the first to finish gives its away.
    let work = root.join(format!("{key}.{}", std::process::id()));
    make(&compiler, &kernels, &sources, &work)?;
    if fs::rename(&work, root.join(&key)).is_err() {
        // Not first, or it could not be moved: then the library is missing, and opening it says so.
        let _ = fs::remove_dir_all(&work);
    }
    Ok(library)
}

/// What makes a kernel file known to the runtime.
fn wrapper(unit: &Unit<'_>) -> String {
    let mut text = format!("#include \"host/cuda.h\"\n#include \"{}.cu\"\n", unit.file);
    for kernel in &unit.kernels {
        let _ = writeln!(text, "REGISTER({kernel});");
    }
    text
}

/// Hash of everything that the library is made from.
fn key(kernels: &Path, sources: &[(String, String)]) -> Result<String, String> {
    let mut hash = Sha256::new();
    for directory in [kernels.to_path_buf(), kernels.join("host")] {
        let entries = fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        for file in files {
            hash.update(file.to_string_lossy().as_bytes());
            hash.update(fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?);
        }
    }
    let flags = [FLAGS, &kernel_flags(), LINK_FLAGS].concat();
    hash.update(format!("{sources:?} {flags:?}"));
    Ok(hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
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

/// Compiles and links in `work`, two files at a time.
fn make(compiler: &cc::Tool, kernels: &Path, sources: &[(String, String)], work: &Path) -> Result<(), String> {
    fs::create_dir_all(work).map_err(|e| format!("{}: {e}", work.display()))?;
    let mut jobs: Vec<(PathBuf, Vec<&str>)> = Vec::new();
    for (name, text) in sources {
        let path = work.join(name);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        jobs.push((path, kernel_flags()));
    }
    jobs.extend(RUNTIME.iter().map(|name| (kernels.join("host").join(name), Vec::new())));
    let compile = |(path, flags): &(PathBuf, Vec<&str>)| {
        let object = work.join(path.file_name().unwrap_or_default()).with_extension("o");
        let mut command = compiler.to_command();
        command.args(FLAGS).args(flags).arg("-I").arg(kernels).arg("-c").arg(path).arg("-o").arg(&object);
        run(&mut command).map(|()| object)
    };
    let objects: Result<Vec<PathBuf>, String> = thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let (jobs, compile) = (&jobs, &compile);
            scope.spawn(move || jobs.iter().skip(half).step_by(2).map(compile).collect::<Result<Vec<_>, _>>())
        });
        let halves = halves.map(|half| half.join().expect("a compiling thread does not panic"));
        Ok(halves.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    });
    let mut link = compiler.to_command();
    run(link.args(objects?).args(LINK_FLAGS).arg("-o").arg(work.join("libkernels.so")))
}

pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}
