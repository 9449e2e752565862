//! The machine, as every record of a run describes it.

use super::device_args::Device;
use super::doctor;
use crate::experiments::report::run_record::Machine;

/// This machine, and what of it computes.
pub fn machine(device: &Device) -> Machine {
    Machine {
        os: std::env::consts::OS.to_string(),
        arch: std::env::consts::ARCH.to_string(),
        cpu: doctor::cpu_model(),
        threads: device.threads,
        backend: device.backend.to_string(),
        gpu: device.gpu.clone(),
    }
}
