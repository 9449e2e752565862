//! The network that a run starts from.

use std::path::Path;
use std::sync::Arc;

use super::config::{Origin, Sparsity, TrainConfig};
use crate::backend::Backend;
use crate::base::error::{Error, Result};
use crate::checkpoint::{ModelInfo, load_model};
use crate::nn::init::initial_values;
use crate::nn::models::{Architecture, Model};
use crate::prune::{Masks, Target, shrink};

/// The first weights of a run, and what is known of them.
pub(super) struct InitialModel<B: Backend> {
    pub model: Model<B>,
    /// Epochs that the weights were trained before.
    pub epochs: usize,
    /// The target they were pruned to, if their zeros are masks.
    pub pruned: Option<Target>,
}

/// Makes or loads the network as `config` says; `parent` is the parent stage's model file.
pub(super) fn initial_model<B: Backend>(
    backend: &B,
    config: &TrainConfig,
    classes: usize,
    parent: Option<&Path>,
) -> Result<InitialModel<B>> {
    if config.origin == Origin::Initialisation {
        return Ok(InitialModel { model: fresh(backend, config, classes)?, epochs: 0, pruned: None });
    }
    let path = parent.ok_or_else(|| Error::Failed(format!("origin = {} without a parent", config.origin)))?;
    let (model, info) = load_model(backend, path)?;
    check(path, config, &info)?;
    let (mut model, epochs) = match config.origin {
        Origin::Inherited => {
            let mut fresh = fresh(backend, config, classes)?;
            Masks::of(backend, &model).apply(backend, &mut fresh)?;
            (fresh, 0)
        }
        _ => (model, info.epochs),
    };
    let mut pruned = None;
    if let Sparsity::Masked(masked) = &config.sparsity {
        pruned = info.pruned;
        if masked.compact {
            let shrunk = shrink(backend, &model)?;
            pruned = shrunk.target(pruned);
            model = shrunk.model;
        }
    }
    Ok(InitialModel { model, epochs, pruned })
}

fn fresh<B: Backend>(backend: &B, config: &TrainConfig, classes: usize) -> Result<Model<B>> {
    let architecture = Architecture::new(config.network, config.width, classes)?;
    let values = initial_values(&architecture, config.init, config.seed);
    Model::new(backend, Arc::new(architecture), &values)
}

/// Whether the parent's model is one that `config` can start from.
fn check(path: &Path, config: &TrainConfig, info: &ModelInfo) -> Result<()> {
    if (info.network, info.width) != (config.network, config.width) {
        return Err(Error::input(
            path,
            format!(
                "is a '{}' of width {}, the run is for '{}' of width {}",
                info.network, info.width, config.network, config.width
            ),
            "give another model, or change network and width",
        ));
    }
    let Sparsity::Masked(masked) = &config.sparsity else { return Ok(()) };
    let target = info.pruning_target(path)?;
    if target == masked.target {
        return Ok(());
    }
    Err(Error::input(
        path,
        format!(
            "is pruned by '{}' with ratio {}, the run is for '{}' with ratio {}",
            target.scheme, target.ratio, masked.target.scheme, masked.target.ratio
        ),
        "give another model, or change the target",
    ))
}
