//! [`BatchNormFwd`], [`GradientSums`] and [`BatchNormBwd`] on vector registers. They are bound by memory: what is asked
//! inside the loops costs nothing, because the answer is the same every time.

use pulp::Simd;

use super::sums::{CHAINS, per_lane};
use super::{activate, activation_gradient, registers, registers_mut};
use crate::backend::Activation;
use crate::backend::cpu::jobs::{
    BatchNormBwd, BatchNormFwd, GradientSums, Normalization, NormalizedPlane, StatisticsTerm,
};
use crate::backend::cpu::layout::LANES;

/// The scalars of a [`Normalization`], each in all lanes of a register.
#[derive(Clone, Copy)]
struct Splat<S: Simd> {
    mean: S::f32s,
    scale: S::f32s,
    beta: S::f32s,
}

impl<S: Simd> Splat<S> {
    #[inline(always)]
    fn new(simd: S, Normalization { mean, scale, beta }: Normalization<f32>) -> Self {
        Splat { mean: simd.splat_f32s(mean), scale: simd.splat_f32s(scale), beta: simd.splat_f32s(beta) }
    }

    #[inline(always)]
    fn of(self, simd: S, x: S::f32s) -> S::f32s {
        simd.mul_add_f32s(simd.sub_f32s(x, self.mean), self.scale, self.beta)
    }
}

impl pulp::WithSimd for BatchNormFwd<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BatchNormFwd { normalization, x, residual, activation, y } = self;
        let normalization = Splat::new(simd, normalization);
        let add = residual.is_some();
        let (residual, x) = (registers::<S>(residual.unwrap_or(x)), registers::<S>(x));
        for ((y, &x), &residual) in registers_mut::<S>(y).iter_mut().zip(x).zip(residual) {
            let mut value = normalization.of(simd, x);
            if add {
                value = simd.add_f32s(value, residual);
            }
            *y = activate(simd, activation, value);
        }
    }
}

/// A [`NormalizedPlane`] in registers.
struct Plane<'a, S: Simd> {
    normalization: Splat<S>,
    x: &'a [S::f32s],
    activation: Activation,
    /// `x` stands in where the output is computed from it.
    y: &'a [S::f32s],
    saved: bool,
}

impl<'a, S: Simd> Plane<'a, S> {
    #[inline(always)]
    fn new(simd: S, plane: NormalizedPlane<'a, f32>) -> Self {
        let NormalizedPlane { normalization, x, activation, y } = plane;
        let (normalization, saved) = (Splat::new(simd, normalization), y.is_some());
        Plane { normalization, x: registers::<S>(x), activation, y: registers::<S>(y.unwrap_or(x)), saved }
    }

    /// The gradient with respect to the activation's input.
    #[inline(always)]
    fn activation_gradient(&self, simd: S, x: S::f32s, y: S::f32s, dy: S::f32s) -> S::f32s {
        let y = if self.saved { y } else { activate(simd, self.activation, self.normalization.of(simd, x)) };
        activation_gradient(simd, self.activation, y, dy)
    }
}

impl pulp::WithSimd for GradientSums<'_, f32> {
    type Output = [[f32; LANES]; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [[f32; LANES]; 2] {
        let plane = Plane::new(simd, self.plane);
        let mean = plane.normalization.mean;
        let (xs, x_rest) = plane.x.as_chunks::<CHAINS>();
        let (ys, y_rest) = plane.y.as_chunks::<CHAINS>();
        let (dys, dy_rest) = registers::<S>(self.dy).as_chunks::<CHAINS>();
        let [mut sums, mut products] = [[simd.splat_f32s(0.0); CHAINS]; 2];
        for ((x, y), dy) in xs.iter().zip(ys).zip(dys) {
            unroll!(I < CHAINS, {
                let g = plane.activation_gradient(simd, x[I], y[I], dy[I]);
                sums[I] = simd.add_f32s(sums[I], g);
                products[I] = simd.mul_add_f32s(g, simd.sub_f32s(x[I], mean), products[I]);
            });
        }
        for (i, ((&x, &y), &dy)) in x_rest.iter().zip(y_rest).zip(dy_rest).enumerate() {
            let g = plane.activation_gradient(simd, x, y, dy);
            sums[i] = simd.add_f32s(sums[i], g);
            products[i] = simd.mul_add_f32s(g, simd.sub_f32s(x, mean), products[i]);
        }
        [per_lane(simd, sums), per_lane(simd, products)]
    }
}

impl pulp::WithSimd for BatchNormBwd<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let plane = Plane::new(simd, self.plane);
        let Splat { mean, scale, .. } = plane.normalization;
        let mut dresidual = self.dresidual.map(registers_mut::<S>);
        let with_term = self.term.is_some();
        let StatisticsTerm { inv_std, mean_g, mean_g_xhat } = self.term.unwrap_or_default();
        let (inv_std, mean_g, mean_g_xhat) =
            (simd.splat_f32s(inv_std), simd.splat_f32s(mean_g), simd.splat_f32s(mean_g_xhat));
        let gradients = registers_mut::<S>(self.gradient).iter_mut();
        for (i, ((gradient, &x), &y)) in gradients.zip(plane.x).zip(plane.y).enumerate() {
            let g = plane.activation_gradient(simd, x, y, *gradient);
            let mut centred = g;
            if with_term {
                let xhat = simd.mul_f32s(simd.sub_f32s(x, mean), inv_std);
                // Rounded as in the plain loop, not fused: where a channel has few values the two terms all but cancel,
                // and every path should leave the same difference.
                centred = simd.sub_f32s(simd.sub_f32s(g, mean_g), simd.mul_f32s(xhat, mean_g_xhat));
            }
            *gradient = simd.mul_f32s(scale, centred);
            if let Some(dresidual) = &mut dresidual {
                dresidual[i] = g;
            }
        }
    }
}
