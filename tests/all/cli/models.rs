//! Model files for the verbs that take one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::backend::cpu::Cpu;
use engine::checkpoint::{ModelInfo, load_model, save_model};
use engine::nn::init::{Init, initial_values};
use engine::nn::models::{Architecture, Model, Network};
use engine::prune::{Scheme, SparsityReport, Target, hard_prune};

pub fn cpu() -> Cpu<f32> {
    Cpu::new(1).unwrap()
}

/// Writes a network with its initial weights to `dir`, pruned to `target` if there is one.
pub fn write(dir: &Path, network: Network, width: usize, target: Option<Target>) -> PathBuf {
    let backend = cpu();
    let architecture = Arc::new(Architecture::new(network, width, 10).unwrap());
    let values = initial_values(&architecture, Init::Default, 7);
    let mut model = Model::new(&backend, architecture, &values).unwrap();
    if let Some(target) = &target {
        hard_prune(&backend, target, &mut model).unwrap();
    }
    let info = ModelInfo::new(model.architecture(), target, 3);
    let name = if target.is_some() { "pruned" } else { "dense" };
    let path = dir.join(format!("{network}-{width}-{name}.safetensors"));
    save_model(&path, &model.state(&backend), &info).unwrap();
    path
}

/// From width 2 to 1.
pub fn half(scheme: Scheme) -> Target {
    Target { scheme, ratio: 0.5, linear: true }
}

/// What a file says of its model, and what is left of it.
pub fn read(path: &Path) -> (ModelInfo, SparsityReport) {
    let backend = cpu();
    let (model, info) = load_model(&backend, path).unwrap();
    (info, SparsityReport::of(&backend, &model))
}

/// The path behind `model: ` in what a verb has printed.
pub fn printed(text: &str) -> PathBuf {
    text.lines().find_map(|line| line.strip_prefix("model: ")).unwrap_or_else(|| panic!("no model: {text}")).into()
}
