//! Batch normalisation.

use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::{Element, activate, activation_gradient};
use crate::backend::{Activated, Activation};

/// Forward pass of one channel of one block of images: `y = (x - mean) scale + beta`, plus `residual`, then the activation.
pub struct BatchNormFwd<'a, T> {
    pub mean: T,
    pub scale: T,
    pub beta: T,
    pub x: &'a [[T; LANES]],
    pub residual: Option<&'a [[T; LANES]]>,
    pub activation: Activation,
    pub y: &'a mut [[T; LANES]],
}

impl<T: Element> BatchNormFwd<'_, T> {
    pub fn plain(self) {
        for (i, (y, x)) in self.y.iter_mut().zip(self.x).enumerate() {
            for l in 0..LANES {
                let residual = self.residual.map_or(T::zero(), |r| r[i][l]);
                let value = (x[l] - self.mean) * self.scale + self.beta + residual;
                y[l] = activate(self.activation, value);
            }
        }
    }
}

/// What flows through the statistics of the batch: `mean_g + xhat mean_g_xhat` with `xhat = (x - mean) inv_std`.
#[derive(Clone, Copy, Default)]
pub struct StatisticsTerm<T> {
    pub mean: T,
    pub inv_std: T,
    pub mean_g: T,
    pub mean_g_xhat: T,
}

/// Backward pass of the same: `dresidual = g`, the gradient with respect to the activation's input, and
/// `dx = scale (g - term)`.
pub struct BatchNormBwd<'a, T> {
    pub scale: T,
    pub term: Option<StatisticsTerm<T>>,
    pub x: &'a [[T; LANES]],
    pub activated: Activated<'a, [[T; LANES]]>,
    pub dy: &'a [[T; LANES]],
    pub dx: &'a mut [[T; LANES]],
    pub dresidual: Option<&'a mut [[T; LANES]]>,
}

impl<T: Element> BatchNormBwd<'_, T> {
    pub fn plain(mut self) {
        for (i, (dx, (x, dy))) in self.dx.iter_mut().zip(self.x.iter().zip(self.dy)).enumerate() {
            for l in 0..LANES {
                let g = activation_gradient(self.activated.activation, self.activated.y[i][l], dy[l]);
                let gradient = self.term.map_or(g, |b| {
                    let xhat = (x[l] - b.mean) * b.inv_std;
                    g - b.mean_g - xhat * b.mean_g_xhat
                });
                dx[l] = self.scale * gradient;
                if let Some(dresidual) = &mut self.dresidual {
                    dresidual[i][l] = g;
                }
            }
        }
    }
}
