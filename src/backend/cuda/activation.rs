//! Activations as arguments of kernels.

use crate::backend::{Activated, Activation};

/// An activation in the kernels (`kernels/primitives/activation.cuh`).
pub(super) fn code(activation: Activation) -> u32 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu => 1,
    }
}

/// The activation that a gradient goes through, and its output; without one the identity, which needs no output.
pub(super) fn or_identity<Y>(activated: Option<Activated<'_, Y>>) -> (Activation, Option<&Y>) {
    activated.map_or((Activation::Identity, None), |a| (a.activation, Some(a.y)))
}
