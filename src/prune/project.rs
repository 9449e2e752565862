//! Euclidean projection on the networks that a target allows.

use super::{Group, Masks, Scheme, Slice, Target, groups};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::models::{Architecture, Model};
use crate::params::ParamSpec;
use crate::tensor::Tensor;

/// Mask over the items of `group` that keeps the best of `tensors`, one a member, in the order of the members.
///
/// # Errors
/// [`Error::Diverged`] naming `name` if a tensor holds NaN.
pub fn select<B: Backend>(backend: &B, group: &Group, name: &str, tensors: &[&B::Buf]) -> Result<B::Buf> {
    let mask = match group.slice {
        Slice::Element => backend.top_k_mask(group.keep, tensors[0]),
        Slice::Row => backend.top_k_mask(group.keep, &backend.row_norms(group.items, tensors)),
        Slice::Column => backend.top_k_mask(group.keep, &backend.column_norms(group.items, tensors[0])),
    };
    mask.ok_or_else(|| {
        Error::Diverged(format!("{name}: cannot prune weights that are NaN; use a smaller learning rate"))
    })
}

/// Sets what `groups` do not keep of the members to zero, and nothing else.
///
/// # Errors
/// As [`select`], and [`Error::Shape`] while a tape shares a member.
pub fn project<B: Backend>(backend: &B, groups: &[Group], model: &mut Model<B>) -> Result<()> {
    let architecture = model.architecture().clone();
    for group in groups {
        let params = model.params_mut();
        let tensors: Vec<&B::Buf> = group.members.iter().map(|&member| params[member].buf()).collect();
        let mask = select(backend, group, &name(&architecture, group), &tensors)?;
        for &member in &group.members {
            let spread = spread(backend, group, &architecture.params[member], &mask);
            apply(backend, spread.as_ref().unwrap_or(&mask), &mut params[member])?;
        }
    }
    Ok(())
}

/// Prunes `model` to `target` for good: projects it, and takes from filters without any weight left their bias and
/// their normalisation's scale, shift and running mean, so that they emit exactly zero. The zeros are the masks: see
/// [`super::Masks::of`].
///
/// # Errors
/// As [`super::groups()`] and [`project`].
pub fn hard_prune<B: Backend>(backend: &B, target: &Target, model: &mut Model<B>) -> Result<()> {
    let groups = groups(model.architecture(), target)?;
    project(backend, &groups, model)?;
    if target.scheme == Scheme::BnFilter {
        prune_behind_scales(backend, &groups, model)?;
    }
    Masks::of(backend, model).apply(backend, model)
}

/// Sets the filters to zero whose scale is not kept.
fn prune_behind_scales<B: Backend>(backend: &B, groups: &[Group], model: &mut Model<B>) -> Result<()> {
    let architecture = model.architecture().clone();
    for group in groups {
        let params = model.params_mut();
        let scale = params[group.members[0]].buf();
        let mask = select(backend, group, &name(&architecture, group), &[scale])?;
        let weight = architecture.layers[group.layers[0]].weight;
        let cols = architecture.params[weight].len() / group.items;
        apply(backend, &backend.spread_rows(group.items, cols, &mask), &mut params[weight])?;
    }
    Ok(())
}

/// The layers of `group`, for messages.
pub(super) fn name(architecture: &Architecture, group: &Group) -> String {
    let names: Vec<&str> = group.layers.iter().map(|&layer| architecture.layers[layer].name.as_str()).collect();
    names.join(", ")
}

/// Mask over the elements of a member from one over the items of its group; `None` if it is that already.
pub(super) fn spread<B: Backend>(backend: &B, group: &Group, member: &ParamSpec, mask: &B::Buf) -> Option<B::Buf> {
    let others = member.len() / group.items;
    match group.slice {
        Slice::Element => None,
        Slice::Row => Some(backend.spread_rows(group.items, others, mask)),
        Slice::Column => Some(backend.spread_columns(others, group.items, mask)),
    }
}

/// Sets what `mask` does not keep to zero.
pub(super) fn apply<B: Backend>(backend: &B, mask: &B::Buf, tensor: &mut Tensor<B>) -> Result<()> {
    backend.apply_mask(mask, tensor.buf_mut()?);
    Ok(())
}
