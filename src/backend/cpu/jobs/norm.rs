//! Batch normalisation of one channel in one block of images.

use crate::backend::Activation;
use crate::backend::cpu::layout::LANES;
use crate::backend::cpu::layout::element::{Element, activate, activation_gradient};

/// A channel's `(x - mean) scale + beta`.
#[derive(Clone, Copy)]
pub struct Normalization<T> {
    pub mean: T,
    pub scale: T,
    pub beta: T,
}

impl<T: Element> Normalization<T> {
    /// `gamma xhat + beta` with `xhat = (x - mean) inv_std`.
    pub fn new([mean, inv_std]: [T; 2], gamma: T, beta: T) -> Self {
        Normalization { mean, scale: gamma * inv_std, beta }
    }

    fn of(&self, x: T) -> T {
        (x - self.mean) * self.scale + self.beta
    }
}

/// Forward pass: `y` is the normalised `x`, plus `residual`, then the activation.
pub struct BatchNormFwd<'a, T> {
    pub normalization: Normalization<T>,
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
                y[l] = activate(self.activation, self.normalization.of(x[l]) + residual);
            }
        }
    }
}

/// What the backward pass knows of the forward pass.
#[derive(Clone, Copy)]
pub struct NormalizedPlane<'a, T> {
    pub normalization: Normalization<T>,
    pub x: &'a [[T; LANES]],
    pub activation: Activation,
    /// The output where a residual was added. Elsewhere it is computed from `x` again, which is faster than reading it.
    pub y: Option<&'a [[T; LANES]]>,
}

impl<T: Element> NormalizedPlane<'_, T> {
    /// The gradient with respect to the activation's input.
    fn activation_gradient(&self, i: usize, l: usize, dy: T) -> T {
        let y = match self.y {
            Some(y) => y[i][l],
            None => activate(self.activation, self.normalization.of(self.x[i][l])),
        };
        activation_gradient(self.activation, y, dy)
    }
}

/// The sums of `g` and of `g (x - mean)`, per lane, where `g` is the gradient with respect to the activation's input.
pub struct GradientSums<'a, T> {
    pub plane: NormalizedPlane<'a, T>,
    pub dy: &'a [[T; LANES]],
}

impl<T: Element> GradientSums<'_, T> {
    pub fn plain(self) -> [[T; LANES]; 2] {
        let [mut sum, mut products] = [[T::zero(); LANES]; 2];
        for (i, (x, dy)) in self.plane.x.iter().zip(self.dy).enumerate() {
            for l in 0..LANES {
                let g = self.plane.activation_gradient(i, l, dy[l]);
                sum[l] += g;
                products[l] += g * (x[l] - self.plane.normalization.mean);
            }
        }
        [sum, products]
    }
}

/// What flows through the statistics of the batch: `mean_g + xhat mean_g_xhat` with `xhat = (x - mean) inv_std`.
#[derive(Clone, Copy, Default)]
pub struct StatisticsTerm<T> {
    pub inv_std: T,
    pub mean_g: T,
    pub mean_g_xhat: T,
}

/// Backward pass: `dresidual = g`, the gradient with respect to the activation's input, and `dx = scale (g - term)`.
pub struct BatchNormBwd<'a, T> {
    pub plane: NormalizedPlane<'a, T>,
    pub term: Option<StatisticsTerm<T>>,
    /// `dy`, in whose place `dx` is written.
    pub gradient: &'a mut [[T; LANES]],
    pub dresidual: Option<&'a mut [[T; LANES]]>,
}

impl<T: Element> BatchNormBwd<'_, T> {
    pub fn plain(mut self) {
        let Normalization { mean, scale, .. } = self.plane.normalization;
        for (i, (gradient, x)) in self.gradient.iter_mut().zip(self.plane.x).enumerate() {
            for l in 0..LANES {
                let g = self.plane.activation_gradient(i, l, gradient[l]);
                let centred = self.term.map_or(g, |term| {
                    let xhat = (x[l] - mean) * term.inv_std;
                    g - term.mean_g - xhat * term.mean_g_xhat
                });
                gradient[l] = scale * centred;
                if let Some(dresidual) = &mut self.dresidual {
                    dresidual[i][l] = g;
                }
            }
        }
    }
}
