//! Removing what pruning has emptied.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Scheme, Target};
use crate::backend::Backend;
use crate::base::error::{Error, Result};
use crate::nn::models::{Architecture, Model};
use crate::nn::params::LayerSpec;

/// A network without the channels that were zero.
pub struct Shrunk<B: Backend> {
    /// The small network: of a smaller width where every layer has just that many outputs left.
    pub model: Model<B>,
    /// One line for each channel space that keeps channels some of its layers have lost, and why.
    pub stays: Vec<String>,
    /// Whether the small network is dense: no zeros are left that were masks.
    is_dense: bool,
}

impl<B: Backend> Shrunk<B> {
    /// The target by which the small network is still pruned, where the large one was pruned by `target`.
    pub fn target(&self, target: Option<Target>) -> Option<Target> {
        target.filter(|_| !self.is_dense)
    }
}

/// Removes every channel that no layer writes to any more, with the weights that read it. The logits stay the same but
/// for rounding.
///
/// # Errors
/// [`Error::Shape`] if a model does not fit its architecture.
pub fn shrink<B: Backend>(backend: &B, model: &Model<B>) -> Result<Shrunk<B>> {
    let large = model.architecture();
    let mut values: Values = model.state(backend).into_iter().map(|(name, _, values)| (name, values)).collect();
    let mut alive: Vec<Vec<bool>> = large.layers.iter().map(|layer| alive_outputs(large, &values, layer)).collect();
    // A class stays, whatever its logit.
    if let Some(logits) = alive.last_mut() {
        logits.fill(true);
    }
    let kept: Vec<Vec<usize>> = (0..large.spaces.len()).map(|space| kept_channels(large, &alive, space)).collect();
    let stays = (0..large.spaces.len()).filter_map(|space| why_they_stay(large, &alive, space, &kept[space])).collect();
    for layer in &large.layers {
        cut(large, &mut values, layer, &kept);
    }
    let mut outputs: Vec<usize> = large.layers.iter().map(|layer| kept[layer.writes].len()).collect();
    // The classifier's are the classes.
    outputs.pop();
    let small = Arc::new(Architecture::with_outputs(large.network, large.width, outputs, large.classes)?);
    let lookup = |name: &str| {
        let missing = || Error::Shape { op: "shrink", expected: format!("values of {name}"), got: "none".into() };
        values.get(name).cloned().ok_or_else(missing)
    };
    let params = small.params.iter().map(|p| lookup(&p.name)).collect::<Result<Vec<_>>>()?;
    // Where every layer has lost the same share, that share is what was pruned.
    let is_dense = small.outputs.is_none() && small.width < large.width;
    let mut shrunk = Model::new(backend, small, &params)?;
    shrunk.load_state(backend, |name, _| lookup(name))?;
    Ok(Shrunk { model: shrunk, stays, is_dense })
}

/// Parameters and running statistics by name.
type Values = BTreeMap<String, Vec<f32>>;

/// Names of the values that a layer has one of for each output, its bias and those of its normalisation, split into
/// what makes an output emit something when its weights are zero, and the rest.
fn companions(architecture: &Architecture, layer: &LayerSpec) -> (Vec<String>, Vec<String>) {
    let name = |param: usize| architecture.params[param].name.clone();
    let emitting = [layer.bias, layer.norm.map(|n| n.gamma), layer.norm.map(|n| n.beta)].into_iter().flatten();
    let running = layer.norm.map_or_else(Vec::new, |n| {
        let norm = &architecture.norms[n.norm].name;
        vec![format!("{norm}.running_mean"), format!("{norm}.running_var")]
    });
    (emitting.map(name).collect(), running)
}

/// Per output of `layer`, whether it can emit anything but zero.
fn alive_outputs(architecture: &Architecture, values: &Values, layer: &LayerSpec) -> Vec<bool> {
    let weight = &architecture.params[layer.weight];
    let (emitting, _) = companions(architecture, layer);
    let rows = weight.shape[0];
    let any = |name: &String, row: usize| {
        values.get(name).is_some_and(|v| {
            let len = v.len() / rows;
            v[row * len..][..len].iter().any(|&v| v != 0.0)
        })
    };
    (0..rows).map(|row| any(&weight.name, row) || emitting.iter().any(|name| any(name, row))).collect()
}

/// The layers that write to a channel space.
fn writers(architecture: &Architecture, space: usize) -> impl Iterator<Item = usize> {
    (0..architecture.layers.len()).filter(move |&layer| architecture.layers[layer].writes == space)
}

/// The channels of a space that stay: those that some layer writes to, and all of the image, which none does. At least
/// one, because a layer cannot be empty.
fn kept_channels(architecture: &Architecture, alive: &[Vec<bool>], space: usize) -> Vec<usize> {
    let writers: Vec<usize> = writers(architecture, space).collect();
    let written = |&c: &usize| writers.is_empty() || writers.iter().any(|&layer| alive[layer][c]);
    let kept: Vec<usize> = (0..architecture.spaces[space]).filter(written).collect();
    if kept.is_empty() { vec![0] } else { kept }
}

/// The line of [`Shrunk::stays`] about `space`, if it keeps channels that some of its layers have lost.
fn why_they_stay(architecture: &Architecture, alive: &[Vec<bool>], space: usize, kept: &[usize]) -> Option<String> {
    let left: Vec<(&str, usize)> = writers(architecture, space)
        .map(|layer| (architecture.layers[layer].name.as_str(), alive[layer].iter().filter(|&&a| a).count()))
        .collect();
    if left.iter().all(|&(_, count)| count == kept.len()) {
        return None;
    }
    let (stay, all) = (kept.len(), architecture.spaces[space]);
    let name = left.last()?.0;
    if left.iter().all(|&(_, count)| count == 0) {
        return Some(format!("{name}: {stay} of {all} channels stays, because a layer cannot be empty"));
    }
    let each: Vec<String> = left.iter().map(|(name, count)| format!("{name} keeps {count}")).collect();
    Some(format!(
        "{} stream: {stay} of {all} channels stay, because {} different ones; scheme '{}' removes them together",
        name.split('.').next().unwrap_or(name),
        each.join(", "),
        Scheme::Tied
    ))
}

/// Leaves of a layer's values those of its kept outputs and inputs.
fn cut(architecture: &Architecture, values: &mut Values, layer: &LayerSpec, kept: &[Vec<usize>]) {
    let rows = &kept[layer.writes];
    if let Some(weight) = values.get_mut(&architecture.params[layer.weight].name) {
        let row = weight.len() / architecture.params[layer.weight].shape[0];
        let mut left = Vec::with_capacity(weight.len());
        for &r in rows {
            // Of one input channel: the positions of a kernel, or of the image that a fully connected layer reads.
            let len = row / architecture.spaces[layer.reads];
            left.extend(kept[layer.reads].iter().flat_map(|&c| &weight[r * row + c * len..][..len]));
        }
        *weight = left;
    }
    let (emitting, running) = companions(architecture, layer);
    for name in emitting.iter().chain(&running) {
        if let Some(v) = values.get_mut(name) {
            *v = rows.iter().map(|&r| v[r]).collect();
        }
    }
}
