//! Activations.

use crate::base::named_enum::named_enum;

named_enum! {
    /// A function of each element at the end of an op. A new one is a variant here, an arm wherever the compiler asks for its
    /// value, its gradient and its number in the CUDA kernels, and there its value and gradient
    /// (`kernels/primitives/activation.cuh`).
    pub enum Activation: "activation" {
        /// `x`.
        Identity = "identity",
        /// `max(x, 0)`. NaN passes.
        Relu = "relu",
    }
}

impl Activation {
    /// Whether it changes nothing.
    pub fn is_identity(self) -> bool {
        self == Activation::Identity
    }
}

/// An activation with its output, from which its gradient is computed.
#[derive(Debug)]
pub struct Activated<'a, Y: ?Sized> {
    pub activation: Activation,
    pub y: &'a Y,
}

impl<Y: ?Sized> Clone for Activated<'_, Y> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Y: ?Sized> Copy for Activated<'_, Y> {}

impl<'a, Y: ?Sized> Activated<'a, Y> {
    /// The same activation with what `f` makes of its output.
    pub fn map<Z: ?Sized>(self, f: impl FnOnce(&'a Y) -> &'a Z) -> Activated<'a, Z> {
        Activated { activation: self.activation, y: f(self.y) }
    }
}
