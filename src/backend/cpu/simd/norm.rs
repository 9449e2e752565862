//! [`BatchNormFwd`] and [`BatchNormBwd`] on vector registers. Both are bound by memory: what is asked inside the loops
//! costs nothing, because the answer is the same every time.

use pulp::Simd;

use super::{activate, activation_gradient, registers, registers_mut};
use crate::backend::Activated;
use crate::backend::cpu::jobs::{BatchNormBwd, BatchNormFwd, StatisticsTerm};

impl pulp::WithSimd for BatchNormFwd<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BatchNormFwd { mean, scale, beta, x, residual, activation, y } = self;
        let add = residual.is_some();
        let (residual, x) = (registers::<S>(residual.unwrap_or(x)), registers::<S>(x));
        let (mean, scale, beta) = (simd.splat_f32s(mean), simd.splat_f32s(scale), simd.splat_f32s(beta));
        for ((y, &x), &residual) in registers_mut::<S>(y).iter_mut().zip(x).zip(residual) {
            let mut value = simd.mul_add_f32s(simd.sub_f32s(x, mean), scale, beta);
            if add {
                value = simd.add_f32s(value, residual);
            }
            *y = activate(simd, activation, value);
        }
    }
}

impl pulp::WithSimd for BatchNormBwd<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let BatchNormBwd { scale, term, x, activated: Activated { activation, y }, dy, dx, dresidual } = self;
        let (x, y, dy) = (registers::<S>(x), registers::<S>(y), registers::<S>(dy));
        let dx = registers_mut::<S>(dx);
        let mut dresidual = dresidual.map(registers_mut::<S>);
        let scale = simd.splat_f32s(scale);
        let with_term = term.is_some();
        let StatisticsTerm { mean, inv_std, mean_g, mean_g_xhat } = term.unwrap_or_default();
        let (mean, inv_std) = (simd.splat_f32s(mean), simd.splat_f32s(inv_std));
        let (mean_g, mean_g_xhat) = (simd.splat_f32s(mean_g), simd.splat_f32s(mean_g_xhat));
        for (i, (((dx, &x), &y), &dy)) in dx.iter_mut().zip(x).zip(y).zip(dy).enumerate() {
            let g = activation_gradient(simd, activation, y, dy);
            let mut gradient = g;
            if with_term {
                let xhat = simd.mul_f32s(simd.sub_f32s(x, mean), inv_std);
                // Rounded as in the plain loop, not fused: where a channel has few values the two terms all but cancel,
                // and every path should leave the same difference.
                gradient = simd.sub_f32s(simd.sub_f32s(g, mean_g), simd.mul_f32s(xhat, mean_g_xhat));
            }
            *dx = simd.mul_f32s(scale, gradient);
            if let Some(dresidual) = &mut dresidual {
                dresidual[i] = g;
            }
        }
    }
}
