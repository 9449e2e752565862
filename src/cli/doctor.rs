//! `engine doctor`: what the engine finds on this machine.

use std::path::PathBuf;

use clap::Args;

use super::{device, output};
use crate::backend::cpu::Cpu;
use crate::data::DatasetName;
use crate::data::locate::Roots;
use crate::error::Result;

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
    output::print(&format!("engine   {version}, {commit}"))?;
    output::print(&format!("system   {os} {arch}"))?;
    output::print(&format!("cpu      {cpu}, {} threads, vector instructions: {path}", device::cores()))?;
    output::print("gpu      not looked for: this build has no CUDA backend")?;
    let roots = Roots::new(args.data.as_deref());
    for &name in DatasetName::ALL {
        let place = match roots.find(name) {
            Ok(found) => found.dir.display().to_string(),
            Err(_) => format!("embedded sample only; get all with `engine data fetch --data-set {name}`"),
        };
        output::print(&format!("data     {name:<14} {place}"))?;
    }
    output::print(&format!("         {roots}"))
}

/// The processor's name, where the system tells it.
pub fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
