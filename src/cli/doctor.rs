//! `engine doctor`: what the engine finds on this machine.

use std::path::PathBuf;

use clap::Args;

use super::{device, output};
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
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let cpu = cpu_model().unwrap_or_else(|| "unknown".to_string());
    output::print(&format!("engine   {}, {os} {arch}", env!("CARGO_PKG_VERSION")))?;
    output::print(&format!("cpu      {cpu}, {} threads, {}", device::cores(), vector_features()))?;
    output::print("gpu      not used: the CUDA backend is not part of this build")?;
    let roots = Roots::new(args.data.as_deref());
    for &name in DatasetName::ALL {
        let place = match roots.find(name) {
            Ok(found) => found.dir.display().to_string(),
            Err(error) => format!("embedded sample only ({error})"),
        };
        output::print(&format!("data     {name:<14} {place}"))?;
    }
    Ok(())
}

/// The processor's name, where the system tells it.
pub fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Vector instructions that make a difference to the CPU backend.
fn vector_features() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(target_arch = "aarch64")]
    let features = [("neon", std::arch::is_aarch64_feature_detected!("neon"))];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];
    let present: Vec<&str> = features.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    if present.is_empty() { "no vector instructions known to the engine".to_string() } else { present.join(" ") }
}
