//! Machine code for the GPU at hand: embedded by the build script, or compiled at the first use and kept on disk.

use std::borrow::Cow;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::compile::{self, Nvrtc, Source};
use crate::base::error::{Error, Result};

/// The tables that the build script writes.
mod built {
    use super::Embedded;

    /// The driver reads images as words.
    #[allow(dead_code)]
    #[repr(align(16))]
    struct Aligned<T>(T);

    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// A file of kernels, compiled for an architecture.
#[derive(Debug)]
pub struct Embedded {
    /// `kernels/<file>.cu`.
    pub file: &'static str,
    /// `80`, `90a`, …: a cubin; `ptx80`: PTX.
    pub arch: &'static str,
    /// The image that the driver loads; PTX ends in a zero byte.
    pub image: &'static [u8],
    /// The log of the compiler: warnings, and for every kernel of a cubin its registers and spills.
    pub log: &'static str,
}

/// Where an [`Image`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From this program.
    Embedded,
    /// Compiled just now.
    Compiled,
    /// Compiled by an earlier run.
    Cached,
}

/// An image that the driver loads: the kernels of a file.
#[derive(Clone, Debug)]
pub struct Image {
    bytes: Cow<'static, [u8]>,
    /// The architecture, as in [`Embedded`].
    pub arch: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// All that is embedded; nothing where the build found no NVRTC.
pub fn embedded() -> &'static [Embedded] {
    built::EMBEDDED
}

/// Name and text of every `.cu` and `.cuh` below `kernels/`.
pub fn sources() -> &'static [(&'static str, &'static str)] {
    built::SOURCES
}

/// Version of the NVRTC that compiled what is embedded.
pub fn built_with() -> Option<(i32, i32)> {
    built::NVRTC
}

/// The architectures that are embedded, each once.
pub fn architectures() -> Vec<&'static str> {
    let mut archs: Vec<&str> = Vec::new();
    for image in embedded() {
        if !archs.contains(&image.arch) {
            archs.push(image.arch);
        }
    }
    archs
}

/// File (or name, where the dynamic loader found it) and version of the NVRTC at hand, or where it was looked for in vain.
pub fn nvrtc() -> Result<(PathBuf, (i32, i32)), String> {
    compiler().map(|nvrtc| (nvrtc.path.clone(), nvrtc.version)).map_err(str::to_string)
}

fn compiler() -> Result<&'static Nvrtc, &'static str> {
    static NVRTC: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
    NVRTC.get_or_init(compile::find::nvrtc).as_ref().map_err(String::as_str)
}

/// The kernels of `kernels/<file>.cu` for a GPU of this compute capability: what is embedded for it, else embedded PTX, else
/// compiled now, or by an earlier run.
///
/// # Errors
/// [`Error::Failed`] where nothing is embedded that the driver can load, and there is no NVRTC or it does not know the GPU.
pub fn image(file: &str, compute_capability: (i32, i32)) -> Result<Image> {
    let driver = crate::backend::cuda::gpu().ok().map(|gpu| gpu.driver);
    let loadable = |image: &&Embedded| built_with().is_none_or(|built| driver_loads(image.arch, built, driver));
    let fits = embedded().iter().filter(|image| image.file == file).filter(loadable);
    let best =
        fits.filter_map(|image| Some((rank(image.arch, compute_capability)?, image))).max_by_key(|(rank, _)| *rank);
    match best {
        Some((_, image)) => {
            Ok(Image { bytes: Cow::Borrowed(image.image), arch: image.arch.to_string(), origin: Origin::Embedded })
        }
        None => {
            let directories = directories::ProjectDirs::from("", "", "engine");
            compile(file, compute_capability, directories.map(|d| d.cache_dir().join("kernels")).as_deref())
        }
    }
}

/// Compiles `kernels/<file>.cu` for a GPU of this compute capability, or takes what an earlier call has left in `cache`.
///
/// # Errors
/// [`Error::Failed`] if there is no such file, no NVRTC, it knows neither the GPU nor PTX for it, or it refuses the file.
pub fn compile(file: &str, compute_capability: (i32, i32), cache: Option<&Path>) -> Result<Image> {
    let name = format!("{file}.cu");
    match sources().iter().find(|(source, _)| *source == name) {
        Some((_, text)) => compile_text(&name, text, compute_capability, cache),
        None => Err(Error::Failed(format!("there is no kernels/{name}"))),
    }
}

/// [`compile`] for any text, which can include the `.cuh` below `kernels/`; `name` is what the compiler calls it.
///
/// # Errors
/// As [`compile`].
pub fn compile_text(name: &str, text: &str, compute_capability: (i32, i32), cache: Option<&Path>) -> Result<Image> {
    let nvrtc = compiler().map_err(|why| {
        let embedded = match built_with() {
            Some((major, minor)) => format!(
                "what is embedded ({}, by NVRTC {major}.{minor}) does not fit this GPU and its driver",
                architectures().join(", ")
            ),
            None => "this program was built without NVRTC".to_string(),
        };
        let install = compile::INSTALL;
        Error::Failed(format!("no kernels for this GPU: {embedded}, and nothing compiles them now: {why}; {install}"))
    })?;
    let source = Source { name, text };
    let headers = sources().iter().filter(|(name, _)| name.ends_with(".cuh"));
    let headers: Vec<Source> = headers.map(|&(name, text)| Source { name, text }).collect();
    let arch = arch_for(compute_capability, |arch| nvrtc.knows(arch));
    let result = match cache {
        Some(cache) => nvrtc.compile_cached(cache, source, &headers, &arch),
        None => nvrtc.compile(source, &headers, &arch).map(|compiled| (compiled, false)),
    };
    let (compiled, known) =
        result.map_err(|rejected| Error::Failed(rejected.lines().next().unwrap_or_default().to_string()))?;
    let origin = if known { Origin::Cached } else { Origin::Compiled };
    Ok(Image { bytes: Cow::Owned(compiled.image), arch, origin })
}

/// The architecture to compile for: with the instructions that only this generation has, where kernels use them.
fn arch_for(compute_capability: (i32, i32), knows: impl Fn(&str) -> bool) -> String {
    let arch = match compute_capability {
        (9, 0) => "90a".to_string(),
        (major, minor) => format!("{major}{minor}"),
    };
    if knows(&arch) { arch } else { compile::PTX.to_string() }
}

/// Whether a driver (CUDA version as 1000 major + 10 minor; `None` if unknown) loads what this NVRTC has made: cubins of its
/// own and of earlier major versions, PTX up to exactly its own version.
fn driver_loads(arch: &str, (major, minor): (i32, i32), driver: Option<i32>) -> bool {
    let needed = 1000 * major + if arch.starts_with("ptx") { 10 * minor } else { 0 };
    driver.is_none_or(|driver| driver >= needed)
}

/// How well an architecture suits a GPU, more is better; `None` if it does not run there.
fn rank(arch: &str, (major, minor): (i32, i32)) -> Option<(bool, i32, bool)> {
    let (cubin, rest) = arch.strip_prefix("ptx").map_or((true, arch), |rest| (false, rest));
    let number = rest.trim_end_matches(['a', 'f']);
    let built: i32 = number.parse().ok()?;
    let fits = if !cubin {
        // PTX that is not tied to an architecture runs on this and all later ones.
        number == rest && built <= 10 * major + minor
    } else if rest.ends_with('a') || (major, minor) == (8, 7) {
        // Tegra, 8.7, does not take the code of desktop GPUs.
        built == 10 * major + minor
    } else {
        built / 10 == major && built % 10 <= minor
    };
    fits.then_some((cubin, built, number != rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(archs: &[&'a str], compute_capability: (i32, i32)) -> Option<&'a str> {
        let ranked = archs.iter().filter_map(|arch| Some((rank(arch, compute_capability)?, *arch)));
        ranked.max().map(|(_, arch)| arch)
    }

    #[test]
    fn every_gpu_gets_the_nearest_architecture() {
        let built = ["80", "90a", "100", "ptx80"];
        for (compute_capability, arch) in [
            ((7, 5), None),
            ((8, 0), Some("80")),
            ((8, 6), Some("80")),
            ((8, 7), Some("ptx80")),
            ((8, 9), Some("80")),
            ((9, 0), Some("90a")),
            ((10, 0), Some("100")),
            ((10, 3), Some("100")),
            ((12, 0), Some("ptx80")),
        ] {
            assert_eq!(best(&built, compute_capability), arch, "{compute_capability:?}");
        }
        assert_eq!(best(&["80", "86", "89"], (8, 6)), Some("86"));
        assert_eq!(best(&["90", "90a"], (9, 0)), Some("90a"));
        assert_eq!(best(&["90a"], (10, 0)), None);
        assert_eq!(best(&["100f", "103a"], (10, 3)), Some("103a"));
    }

    #[test]
    fn a_driver_loads_older_code() {
        assert!(driver_loads("90a", (12, 9), Some(12_040)) && driver_loads("ptx80", (12, 9), Some(12_090)));
        assert!(driver_loads("90a", (12, 9), Some(13_000)) && driver_loads("ptx80", (12, 9), None));
        assert!(!driver_loads("ptx80", (12, 9), Some(12_080)) && !driver_loads("90a", (13, 0), Some(12_090)));
    }

    #[test]
    fn an_unknown_gpu_gets_ptx() {
        assert_eq!(arch_for((9, 0), |_| true), "90a");
        assert_eq!(arch_for((12, 0), |_| true), "120");
        assert_eq!(arch_for((13, 0), |_| false), "ptx80");
    }
}
