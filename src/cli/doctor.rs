//! `engine doctor`: what the engine finds on this machine.

use std::path::PathBuf;

use clap::Args;

use super::{console, device_args};
use crate::backend::cpu::Cpu;
use crate::backend::cuda;
use crate::backend::cuda::GpuInfo;
use crate::backend::cuda::runtime::modules;
use crate::base::error::Result;
use crate::data::DatasetName;
use crate::data::locate::Roots;

#[derive(Args)]
pub struct DoctorArgs {
    /// Directory with the data sets
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub fn run(args: &DoctorArgs) -> Result<()> {
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let commit = option_env!("ENGINE_COMMIT").map_or("commit unknown".to_string(), |commit| format!("commit {commit}"));
    let cpu = cpu_model().unwrap_or_else(|| "unknown".to_string());
    let path = Cpu::<f32>::new(1)?.vector_path();
    console::print(&format!("engine   {version}, {commit}"))?;
    console::print(&format!("system   {os} {arch}"))?;
    console::print(&format!("cpu      {cpu}, {} threads, vector instructions: {path}", device_args::cores()))?;
    for line in cuda_lines() {
        console::print(&line)?;
    }
    let roots = Roots::new(args.data.as_deref());
    for &name in DatasetName::ALL {
        let place = match roots.find(name) {
            Ok(found) => found.dir.display().to_string(),
            Err(_) => format!("embedded sample only; get all with `engine data fetch --data-set {name}`"),
        };
        console::print(&format!("data     {name:<14} {place}"))?;
    }
    console::print(&format!("         {roots}"))
}

/// The GPU, the kernels for it, what compiles them, what `--backend auto` makes of it, and if that is the GPU, whether the
/// launches of a step overlap there.
fn cuda_lines() -> Vec<String> {
    let version = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    let gpu = match cuda::gpu() {
        Ok(GpuInfo { name, compute_capability, memory, driver, .. }) => format!(
            "{name}, compute capability {}, {:.1} GiB, driver for CUDA {}",
            version(compute_capability),
            memory as f64 / f64::from(1 << 30),
            cuda::cuda_version(driver),
        ),
        Err(why) => format!("none: {why}"),
    };
    let kernels = match modules::built_with() {
        Some(nvrtc) => format!("embedded for {} (NVRTC {})", modules::architectures().join(", "), version(nvrtc)),
        None => "none embedded: this program was built without NVRTC; they are compiled when first used".to_string(),
    };
    let nvrtc = match modules::nvrtc() {
        Ok((path, found)) => format!("{}, {}", version(found), path.display()),
        Err(why) => format!("none, needed only where no kernels are embedded: {why}"),
    };
    let mut lines = vec![format!("gpu      {gpu}"), format!("kernels  {kernels}"), format!("nvrtc    {nvrtc}")];
    match device_args::usable_gpu() {
        Ok(name) => {
            lines.push(format!("auto     cuda on {name}"));
            lines.push(match cuda::launches_overlap() {
                Ok(()) => "launches those of a training step overlap".to_string(),
                Err(why) => format!("launches one after the other: {why}"),
            });
        }
        Err(why) => lines.push(format!("auto     cpu, because {why}")),
    }
    lines
}

/// The processor's name, where the system tells it.
pub fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
