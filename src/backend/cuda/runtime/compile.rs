//! Compiles with NVRTC, NVIDIA's compiler of kernels as a library. It needs neither a GPU nor a toolkit.
//!
//! Two programs share this file: the build script, which embeds what it compiles, and the backend, which compiles at run
//! time what nobody has embedded. So it uses nothing of the crate. Symbols are looked up in the one library that was
//! found; a lookup by name could end at another copy, and whatever is missing is an answer in one line.

// Named, because the build script's own file is elsewhere.
#[path = "compile/find.rs"]
pub mod find;

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, ptr};

use libloading::Library;
use sha2::{Digest, Sha256};

/// With `1` the machine code says which line of which file it came from, for profilers.
pub const ENV_LINEINFO: &str = "ENGINE_CUDA_LINEINFO";
/// Advice where there is none.
pub const INSTALL: &str = "pip install nvidia-cuda-nvrtc-cu12";
/// PTX that every GPU from compute capability 8.0 on can run, as an architecture.
pub const PTX: &str = "ptx80";

/// Part of every cache key: raise it when the same input must give something else.
const CACHE_FORMAT: &str = "1";

/// Declares the functions of the library as fields, all of which return a status.
macro_rules! api {
    ($($field:ident = $symbol:literal($($arg:ty),*);)+) => {
        struct Api { $($field: unsafe extern "C" fn($($arg),*) -> c_int,)+ }

        impl Api {
            /// # Safety
            /// The library must be an NVRTC, and must stay loaded.
            unsafe fn of(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of NVRTC's documentation, the same in all its versions.
                unsafe { Ok(Api { $($field: *library.get(concat!($symbol, "\0").as_bytes())?,)+ }) }
            }
        }
    };
}

type Program = *mut c_void;
type Texts = *const *const c_char;

api! {
    version = "nvrtcVersion"(*mut c_int, *mut c_int);
    arch_count = "nvrtcGetNumSupportedArchs"(*mut c_int);
    archs = "nvrtcGetSupportedArchs"(*mut c_int);
    create = "nvrtcCreateProgram"(*mut Program, *const c_char, *const c_char, c_int, Texts, Texts);
    compile = "nvrtcCompileProgram"(Program, c_int, Texts);
    destroy = "nvrtcDestroyProgram"(*mut Program);
    log_size = "nvrtcGetProgramLogSize"(Program, *mut usize);
    log = "nvrtcGetProgramLog"(Program, *mut c_char);
    cubin_size = "nvrtcGetCUBINSize"(Program, *mut usize);
    cubin = "nvrtcGetCUBIN"(Program, *mut c_char);
    ptx_size = "nvrtcGetPTXSize"(Program, *mut usize);
    ptx = "nvrtcGetPTX"(Program, *mut c_char);
}

type SizeOf = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Fill = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// NVRTC, loaded for as long as the process lives.
pub struct Nvrtc {
    api: Api,
    /// The file, or the bare name with which the dynamic loader found it.
    pub path: PathBuf,
    /// Major and minor version.
    pub version: (i32, i32),
    archs: Vec<c_int>,
}

/// A file of kernels, or one that they include.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its path below `kernels/`, such as `f32/conv.cu`.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// A compiled file of kernels.
#[derive(PartialEq, Eq, Debug)]
pub struct Compiled {
    /// The cubin, or PTX with the zero byte that ends it.
    pub image: Vec<u8>,
    /// Warnings, and for every kernel its registers, stack, shared memory and spills.
    pub log: String,
}

/// Whether NVRTC is asked to say which line machine code came from.
fn line_info() -> bool {
    env::var_os(ENV_LINEINFO).is_some_and(|value| value == "1")
}

fn options(arch: &str) -> Vec<String> {
    let target = match arch.strip_prefix("ptx") {
        Some(virtual_arch) => format!("compute_{virtual_arch}"),
        None => format!("sm_{arch}"),
    };
    let mut options = vec![format!("--gpu-architecture={target}")];
    // Without the last one NVRTC takes generic lambdas for functions of the host.
    let fixed = ["--std=c++17", "--ptxas-options=-v", "--device-as-default-execution-space"];
    options.extend(fixed.map(String::from));
    options.extend(line_info().then(|| "-lineinfo".to_string()));
    options
}

impl Nvrtc {
    fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: runs the library's initialisers, which are NVRTC's own.
        let library = unsafe { Library::new(path) }.map_err(|e| words(&e))?;
        // SAFETY: whatever has all these symbols is an NVRTC, and it is never unloaded.
        let api = unsafe { Api::of(&library) }.map_err(|e| words(&e))?;
        // Unloading it would leave behind what its threads still use.
        std::mem::forget(library);
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: three places for three numbers.
        let told = unsafe { (api.version)(&mut major, &mut minor) == 0 && (api.arch_count)(&mut count) == 0 };
        if !told || major < 12 {
            return Err(format!("version {major}.{minor} is too old, 12.0 is needed"));
        }
        let mut archs = vec![0; usize::try_from(count).unwrap_or_default()];
        // SAFETY: a place for each of the `count` numbers.
        if unsafe { (api.archs)(archs.as_mut_ptr()) } != 0 {
            archs.clear();
        }
        Ok(Nvrtc { api, path: path.to_path_buf(), version: (major, minor), archs })
    }

    /// Whether it can compile for an architecture such as `80`, `90a` or [`PTX`].
    pub fn knows(&self, arch: &str) -> bool {
        let number = arch.strip_prefix("ptx").unwrap_or(arch);
        let (number, since) = match number.strip_suffix('a') {
            Some(number) => (number, (12, 0)),
            None => number.strip_suffix('f').map_or((number, (12, 0)), |family| (family, (12, 9))),
        };
        self.version >= since && number.parse().is_ok_and(|number: c_int| self.archs.contains(&number))
    }

    /// Compiles a file for an architecture; `headers` are what it can include.
    ///
    /// # Errors
    /// The error in one line, and in the lines behind it all that the compiler says.
    pub fn compile(&self, source: Source, headers: &[Source], arch: &str) -> Result<Compiled, String> {
        let failed = |what: &str| format!("kernels/{} for {arch}: {what}", source.name);
        let text = |text: &str| CString::new(text).map_err(|_| failed("there is a zero byte in the text"));
        let texts = |of: &mut dyn Iterator<Item = &str>| of.map(text).collect::<Result<Vec<CString>, String>>();
        let (name, code) = (text(source.name)?, text(source.text)?);
        let header_names = texts(&mut headers.iter().map(|h| h.name))?;
        let header_texts = texts(&mut headers.iter().map(|h| h.text))?;
        let options = texts(&mut options(arch).iter().map(String::as_str))?;
        let (header_names_at, header_texts_at) = (pointers(&header_names), pointers(&header_texts));
        let options_at = pointers(&options);

        let mut running = Running { api: &self.api, program: ptr::null_mut() };
        // SAFETY: the strings, two for each header, live longer than the program, which is dropped first.
        let status = unsafe {
            (self.api.create)(
                &mut running.program,
                code.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                header_texts_at.as_ptr(),
                header_names_at.as_ptr(),
            )
        };
        if status != 0 {
            return Err(failed(&format!("NVRTC fails with status {status}")));
        }
        // SAFETY: the program was just created; the options live longer.
        let status = unsafe { (self.api.compile)(running.program, options.len() as c_int, options_at.as_ptr()) };
        let log = running.log();
        if status != 0 {
            let status = format!("NVRTC fails with status {status}");
            let what = log.lines().find(|line| line.contains("error")).map_or(&*status, str::trim);
            return Err(format!("{}\n{log}", failed(what)));
        }
        let (size, fill) = match arch.starts_with("ptx") {
            true => (self.api.ptx_size, self.api.ptx),
            false => (self.api.cubin_size, self.api.cubin),
        };
        match running.bytes(size, fill) {
            Some(image) if !image.is_empty() => Ok(Compiled { image, log }),
            _ => Err(failed("NVRTC gives no result")),
        }
    }

    /// [`Nvrtc::compile`], or what it gave earlier to the same question, from the directory `cache`; and whether it was
    /// earlier. A cache that cannot be written costs time only.
    ///
    /// # Errors
    /// As [`Nvrtc::compile`].
    pub fn compile_cached(
        &self,
        cache: &Path,
        source: Source,
        headers: &[Source],
        arch: &str,
    ) -> Result<(Compiled, bool), String> {
        let path = cache.join(self.key(source, headers, arch));
        if let Some(known) = fs::read(&path).ok().and_then(|entry| unpack(&entry)) {
            return Ok((known, true));
        }
        let compiled = self.compile(source, headers, arch)?;
        // Others may be doing the same: each writes a file of its own and the last rename stays.
        static WRITES: AtomicUsize = AtomicUsize::new(0);
        let write = WRITES.fetch_add(1, Ordering::Relaxed);
        let temporary = cache.join(format!(".tmp-{}-{write}", std::process::id()));
        let written = fs::create_dir_all(cache)
            .and_then(|()| fs::write(&temporary, pack(&compiled)))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        Ok((compiled, false))
    }

    /// Hash of everything that decides the result.
    fn key(&self, source: Source, headers: &[Source], arch: &str) -> String {
        let version = format!("{}.{}", self.version.0, self.version.1);
        let options = options(arch);
        let mut parts = vec![CACHE_FORMAT, &version];
        parts.extend(options.iter().map(String::as_str));
        parts.extend([source].iter().chain(headers).flat_map(|file| [file.name, file.text]));
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hex(&hash.finalize())
    }
}

/// A program that is destroyed whatever happens.
struct Running<'a> {
    api: &'a Api,
    program: Program,
}

impl Running<'_> {
    fn bytes(&self, size: SizeOf, fill: Fill) -> Option<Vec<u8>> {
        let mut bytes = 0;
        // SAFETY: the program exists; a place for the number.
        if unsafe { size(self.program, &mut bytes) } != 0 {
            return None;
        }
        let mut buffer = vec![0_u8; bytes];
        // SAFETY: the buffer has the size that was asked for.
        (unsafe { fill(self.program, buffer.as_mut_ptr().cast()) } == 0).then_some(buffer)
    }

    /// Without the times, so that the same input gives the same log.
    fn log(&self) -> String {
        let log = self.bytes(self.api.log_size, self.api.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines = log.trim_end_matches('\0').lines().filter(|line| !line.contains("Compile time ="));
        lines.map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: created by the same library, and not used any more.
            unsafe { (self.api.destroy)(&mut self.program) };
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

/// The message of the loader, in one line; the error itself says only which call failed.
fn words(error: &libloading::Error) -> String {
    let said = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    said.lines().next().unwrap_or_default().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A cache entry: hash of the rest, length of the log, log, image.
fn pack(compiled: &Compiled) -> Vec<u8> {
    let mut rest = (compiled.log.len() as u64).to_le_bytes().to_vec();
    rest.extend_from_slice(compiled.log.as_bytes());
    rest.extend_from_slice(&compiled.image);
    [&Sha256::digest(&rest)[..], &rest].concat()
}

/// `None` for an entry that is cut short or damaged, as a power cut may leave it.
fn unpack(entry: &[u8]) -> Option<Compiled> {
    let (hash, rest) = entry.split_at_checked(32)?;
    if Sha256::digest(rest)[..] != *hash {
        return None;
    }
    let (length, rest) = rest.split_first_chunk()?;
    let (log, image) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some(Compiled { image: image.to_vec(), log: String::from_utf8(log.to_vec()).ok()? })
}
