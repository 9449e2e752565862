//! [`CrossEntropy`] on vector registers.

use pulp::Simd;

use super::{per_pixel, registers, registers_mut};
use crate::backend::cpu::jobs::CrossEntropy;
use crate::backend::cpu::layout::LANES;

impl pulp::WithSimd for CrossEntropy<'_, f32> {
    type Output = f64;

    /// With `e_c = exp(z_c - max)`, the gradient is `e_c / Σe` for a wrong class and for the right one minus the sum of
    /// those: `e_y / Σe - 1` would cancel, and be zero too early, where the network is sure.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let CrossEntropy { weight, z, labels, dz } = self;
        let pixel = per_pixel::<S>();
        // Lanes without an image have no class.
        let mut classes = [[-1.0f32; LANES]];
        classes[0].iter_mut().zip(labels).for_each(|(class, &label)| *class = f32::from(label));
        let zero = simd.splat_f32s(0.0);
        let (mut sums, mut maxima) = ([[0.0f32; LANES]], [[0.0f32; LANES]]);
        for half in 0..pixel {
            let (z, dz) = (&registers::<S>(z)[half..], &mut registers_mut::<S>(dz)[half..]);
            let class = registers::<S>(&classes)[half];
            let mut max = z[0];
            for at in (0..z.len()).step_by(pixel) {
                max = simd.select_f32s(simd.greater_than_f32s(z[at], max), z[at], max);
            }
            let (mut sum, mut wrong) = (zero, zero);
            for (c, at) in (0..z.len()).step_by(pixel).enumerate() {
                let e = exp(simd, simd.sub_f32s(z[at], max));
                let right = simd.equal_f32s(class, simd.splat_f32s(c as f32));
                sum = simd.add_f32s(sum, e);
                wrong = simd.add_f32s(wrong, simd.select_f32s(right, zero, e));
                dz[at] = e;
            }
            let scale = simd.div_f32s(simd.splat_f32s(weight as f32), sum);
            let image = simd.greater_than_or_equal_f32s(class, zero);
            for (c, at) in (0..z.len()).step_by(pixel).enumerate() {
                let right = simd.equal_f32s(class, simd.splat_f32s(c as f32));
                let gradient = simd.mul_f32s(simd.select_f32s(right, simd.neg_f32s(wrong), dz[at]), scale);
                dz[at] = simd.select_f32s(image, gradient, zero);
            }
            (registers_mut::<S>(&mut sums)[half], registers_mut::<S>(&mut maxima)[half]) = (sum, max);
        }
        let mut total = 0.0;
        for (l, &label) in labels.iter().enumerate() {
            let [sum, max, right] = [sums[0][l], maxima[0][l], z[usize::from(label)][l]].map(f64::from);
            total += sum.ln() + max - right;
        }
        weight * total
    }
}

/// `e^x` for `x <= 0`, to two units in the last place; 0 where the result would not be a normal number. NaN passes.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a Taylor polynomial for `e^r`, and `n` added to the exponent's bits. `ln 2`
/// is split into two constants, so that `n ln 2` is exact to f32 twice over (Cody & Waite, 1980).
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding it leaves the nearest integer in the lowest bits of the mantissa.
    let magic = simd.splat_f32s(12_582_912.0);
    let shifted = simd.mul_add_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), magic);
    let n = simd.sub_f32s(shifted, magic);
    let r = simd.mul_add_f32s(n, simd.splat_f32s(-0.693_359_4), x);
    let r = simd.mul_add_f32s(n, simd.splat_f32s(2.121_944_4e-4), r);
    let mut p = simd.splat_f32s(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = simd.mul_add_f32s(p, r, simd.splat_f32s(c));
    }
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let scaled = simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p), exponent));
    let small = simd.less_than_f32s(x, simd.splat_f32s(-87.0));
    let number = simd.equal_f32s(x, x);
    simd.select_f32s(number, simd.select_f32s(small, simd.splat_f32s(0.0), scaled), x)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exps<'a>(&'a [[f32; LANES]], &'a mut [[f32; LANES]]);

    impl pulp::WithSimd for Exps<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for (x, y) in registers::<S>(self.0).iter().zip(registers_mut::<S>(self.1)) {
                *y = exp(simd, *x);
            }
        }
    }

    #[test]
    fn exp_is_exact_to_two_units() {
        for path in crate::backend::cpu::VectorPath::available() {
            let arch = path.arch().unwrap();
            if matches!(arch, pulp::Arch::Scalar) {
                continue;
            }
            let x: Vec<[f32; LANES]> =
                (0..8700).map(|i| std::array::from_fn(|l| -(i as f32 + l as f32 / 16.0) / 100.0)).collect();
            let mut y = vec![[0.0; LANES]; x.len()];
            arch.dispatch(Exps(&x, &mut y));
            for (x, y) in x.as_flattened().iter().zip(y.as_flattened()) {
                let expected = f64::from(*x).exp();
                let error = (f64::from(*y) - expected).abs() / expected;
                assert!(error < 2.0 * f64::from(f32::EPSILON), "{path}: exp({x}) = {y}, off by {error:e}");
            }
            let edges =
                [[f32::NAN, -88.0, f32::NEG_INFINITY, -0.0, 0.0, -1e30, -87.5, -1e-30, 0., 0., 0., 0., 0., 0., 0., 0.]];
            let mut y = [[0.5; LANES]];
            arch.dispatch(Exps(&edges, &mut y));
            assert!(y[0][0].is_nan());
            assert_eq!(y[0][1..8], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], "{path}");
        }
    }
}
