//! Euclidean projection on the networks that a target allows.

use super::{Group, Masks, Slice, Target, groups};
use crate::autograd::tensor::Param;
use crate::backend::Backend;
use crate::base::error::{Error, Result};
use crate::nn::models::{Architecture, Model};
use crate::nn::params::ParamSpec;

/// For each group, with its tensors in the order of its members, the mask over its items that keeps the best; all in one call of
/// the backend.
///
/// # Errors
/// [`Error::Diverged`] with the group's `name` if a tensor holds NaN.
pub fn select<B: Backend>(
    backend: &B,
    groups: &[(&Group, Vec<&B::Buf>)],
    name: impl Fn(&Group) -> String,
) -> Result<Vec<B::Buf>> {
    let norms: Vec<Option<B::Buf>> = groups
        .iter()
        .map(|(group, tensors)| match group.slice {
            Slice::Element => None,
            Slice::Row => Some(backend.row_norms(group.items, tensors)),
            Slice::Column => Some(backend.column_norms(group.items, tensors[0])),
        })
        .collect();
    let scores = groups.iter().zip(&norms).map(|((_, tensors), norms)| norms.as_ref().unwrap_or(tensors[0]));
    let selections: Vec<_> = groups.iter().zip(scores).map(|((group, _), scores)| (group.keep, scores)).collect();
    let masks = backend.top_k_masks(&selections).into_iter().zip(groups);
    let nan = |group| {
        let name = name(group);
        Error::Diverged(format!("{name}: cannot prune weights that are NaN; use a smaller learning rate"))
    };
    masks.map(|(mask, (group, _))| mask.ok_or_else(|| nan(group))).collect()
}

/// Sets what `groups` do not keep of the members to zero, and nothing else.
///
/// # Errors
/// As [`select`], and [`Error::Shape`] while a tape shares a member.
pub fn project<B: Backend>(backend: &B, groups: &[Group], model: &mut Model<B>) -> Result<()> {
    let architecture = model.architecture().clone();
    let tensors = groups.iter().map(|group| (group, members(group, model))).collect::<Vec<_>>();
    let masks = select(backend, &tensors, |group| name(&architecture, group))?;
    let params = model.params_mut();
    for (group, mask) in groups.iter().zip(masks) {
        for &member in &group.members {
            let broadcast = broadcast(backend, group, &architecture.params[member], &mask);
            apply(backend, broadcast.as_ref().unwrap_or(&mask), &mut params[member])?;
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
    prune_before_scales(backend, &groups, model)?;
    Masks::of(backend, model).apply(backend, model)
}

/// Sets the filters to zero whose scale is not kept.
fn prune_before_scales<B: Backend>(backend: &B, groups: &[Group], model: &mut Model<B>) -> Result<()> {
    let architecture = model.architecture().clone();
    let by_scale: Vec<&Group> = groups.iter().filter(|group| !group.scores_weights(&architecture)).collect();
    if by_scale.is_empty() {
        return Ok(());
    }
    let scales: Vec<_> = by_scale.iter().map(|&group| (group, members(group, model))).collect();
    let masks = select(backend, &scales, |group| name(&architecture, group))?;
    let params = model.params_mut();
    for (group, mask) in by_scale.into_iter().zip(masks) {
        let weight = architecture.layers[group.layers[0]].weight;
        let cols = architecture.params[weight].len() / group.items;
        apply(backend, &backend.broadcast_rows(group.items, cols, &mask), &mut params[weight])?;
    }
    Ok(())
}

/// The members of `group` in `model`.
pub(super) fn members<'m, B: Backend>(group: &Group, model: &'m Model<B>) -> Vec<&'m B::Buf> {
    group.members.iter().map(|&member| model.params()[member].buf()).collect()
}

/// The layers of `group`, for messages.
pub(super) fn name(architecture: &Architecture, group: &Group) -> String {
    let names: Vec<&str> = group.layers.iter().map(|&layer| architecture.layers[layer].name.as_str()).collect();
    names.join(", ")
}

/// Mask over the elements of a member from one over the items of its group; `None` if it is that already.
pub(super) fn broadcast<B: Backend>(backend: &B, group: &Group, member: &ParamSpec, mask: &B::Buf) -> Option<B::Buf> {
    let others = member.len() / group.items;
    match group.slice {
        Slice::Element => None,
        Slice::Row => Some(backend.broadcast_rows(group.items, others, mask)),
        Slice::Column => Some(backend.broadcast_columns(others, group.items, mask)),
    }
}

/// Sets what `mask` does not keep to zero.
pub(super) fn apply<B: Backend>(backend: &B, mask: &B::Buf, param: &mut Param<B>) -> Result<()> {
    backend.apply_mask(mask, param.buf_mut()?);
    Ok(())
}
