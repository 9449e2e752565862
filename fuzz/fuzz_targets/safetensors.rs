//! Safetensors: as a model of ours, and as a state dict from elsewhere.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use engine::backend::cpu::Cpu;
use engine::checkpoint::{NetworkHint, decode_model, import_bytes};
use libfuzzer_sys::fuzz_target;

static CPU: LazyLock<Cpu<f32>> = LazyLock::new(|| Cpu::new(1).expect("a thread"));

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_model(&*CPU, Path::new("fuzz"), bytes);
    let _ = import_bytes(Path::new("fuzz"), bytes, NetworkHint::default());
});
