//! Carlini & Wagner's l2 attack.

use super::Memory;

/// The change of variables of Carlini & Wagner (2017): every point of tanh space is an image in [0, 1].
pub trait CwL2: Memory {
    /// `atanh(0.999999 (2 x - 1))`: the variable that C&W's l2 attack descends in (2017).
    fn tanh_space(&self, x: &Self::Buf) -> Self::Buf;
    /// `(tanh(w) + 1) / 2`.
    fn tanh_image(&self, w: &Self::Buf) -> Self::Buf;
    /// Gradient of `‖x - clean‖² + f(x)` with respect to `w`, where `x` comes from it and `dx` is the gradient of `f`:
    /// `2 x (1 - x) (2 (x - clean) + dx)`.
    fn tanh_image_bwd(&self, clean: &Self::Buf, x: &Self::Buf, dx: &Self::Buf) -> Self::Buf;
}
