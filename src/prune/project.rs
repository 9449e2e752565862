//! Euclidean projection on the networks that a target allows.

use super::{Group, Target};
use crate::backend::Backend;
use crate::error::Result;
use crate::models::Model;

/// Mask over the items of `group` that keeps the best of `tensors`, one a member, in the order of the members.
///
/// # Errors
/// [`crate::error::Error::Diverged`] naming `name` if a tensor holds NaN.
pub fn select<B: Backend>(backend: &B, group: &Group, name: &str, tensors: &[&B::Buf]) -> Result<B::Buf> {
    let _ = (backend, group, name, tensors);
    todo!()
}

/// Sets what `groups` do not keep of the members to zero, and nothing else.
///
/// # Errors
/// As [`select`].
pub fn project<B: Backend>(backend: &B, groups: &[Group], model: &mut Model<B>) -> Result<()> {
    let _ = (backend, groups, model);
    todo!()
}

/// Prunes `model` to `target` for good: projects it, and takes from filters without any weight left their bias and
/// their normalisation's scale, shift and running mean, so that they emit exactly zero. The zeros are the masks: see
/// [`super::Masks::of`].
///
/// # Errors
/// As [`super::groups()`] and [`select`].
pub fn hard_prune<B: Backend>(backend: &B, target: &Target, model: &mut Model<B>) -> Result<()> {
    let _ = (backend, target, model);
    todo!()
}
