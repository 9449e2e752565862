//! The transforms of one row or column. A tile's is that of its columns, then of its rows.
#![allow(clippy::out_of_bounds_indexing, reason = "the branch for tiles of six is dead where they have four")]

use pulp::Simd;

/// `Bᵀ d`.
#[inline(always)]
pub fn input<S: Simd, const N: usize>(simd: S, d: [S::f32s; N]) -> [S::f32s; N] {
    let mut out = d;
    if N == 4 {
        out[0] = simd.sub_f32s(d[0], d[2]);
        out[1] = simd.add_f32s(d[1], d[2]);
        out[2] = simd.sub_f32s(d[2], d[1]);
        out[3] = simd.sub_f32s(d[3], d[1]);
        return out;
    }
    let (two, minus_four, minus_five) = (simd.splat_f32s(2.0), simd.splat_f32s(-4.0), simd.splat_f32s(-5.0));
    let four = simd.splat_f32s(4.0);
    // At ±1 and at ±2, even and odd powers.
    let (even1, odd1) = (simd.mul_add_f32s(minus_four, d[2], d[4]), simd.mul_add_f32s(minus_four, d[1], d[3]));
    let (even2, odd2) = (simd.sub_f32s(d[4], d[2]), simd.mul_f32s(two, simd.sub_f32s(d[3], d[1])));
    out[0] = simd.mul_add_f32s(four, d[0], simd.mul_add_f32s(minus_five, d[2], d[4]));
    out[1] = simd.add_f32s(even1, odd1);
    out[2] = simd.sub_f32s(even1, odd1);
    out[3] = simd.add_f32s(even2, odd2);
    out[4] = simd.sub_f32s(even2, odd2);
    out[5] = simd.mul_add_f32s(four, d[1], simd.mul_add_f32s(minus_five, d[3], d[5]));
    out
}

/// `Aᵀ m`.
#[inline(always)]
pub fn output<S: Simd, const M: usize, const N: usize>(simd: S, m: [S::f32s; N]) -> [S::f32s; M] {
    let mut out = [simd.splat_f32s(0.0); M];
    let (even1, odd1) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    if N == 4 {
        out[0] = simd.add_f32s(m[0], even1);
        out[1] = simd.add_f32s(odd1, m[3]);
        return out;
    }
    let (even2, odd2) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    out[0] = simd.add_f32s(m[0], simd.add_f32s(even1, even2));
    out[1] = simd.mul_add_f32s(simd.splat_f32s(2.0), odd2, odd1);
    if M == 4 {
        out[2] = simd.mul_add_f32s(simd.splat_f32s(4.0), even2, even1);
        out[3] = simd.add_f32s(simd.mul_add_f32s(simd.splat_f32s(8.0), odd2, odd1), m[5]);
    } else {
        out[1] = simd.add_f32s(out[1], m[5]);
    }
    out
}

/// `G g`.
#[inline(always)]
pub fn filter<S: Simd, const R: usize, const N: usize>(simd: S, g: [S::f32s; R]) -> [S::f32s; N] {
    let mut out = [simd.splat_f32s(0.0); N];
    let last = g[R - 1];
    // Over the powers of the point, the higher ones first.
    let mut at = |entry: usize, point: f32, over: f32| {
        let square = simd.splat_f32s(point * point);
        let (mut even, mut odd) = (last, g[R - 2]);
        if R == 5 {
            even = simd.mul_add_f32s(even, square, g[2]);
            odd = simd.mul_add_f32s(odd, square, g[1]);
        }
        even = simd.mul_add_f32s(even, square, g[0]);
        let (over, odd) = (simd.splat_f32s(over), simd.mul_f32s(odd, simd.splat_f32s(point)));
        out[entry] = simd.mul_f32s(over, simd.add_f32s(even, odd));
        out[entry + 1] = simd.mul_f32s(over, simd.sub_f32s(even, odd));
    };
    if N == 4 {
        at(1, 1.0, 0.5);
        out[0] = g[0];
    } else {
        at(1, 1.0, -1.0 / 6.0);
        at(3, 2.0, 1.0 / 24.0);
        out[0] = simd.mul_f32s(simd.splat_f32s(0.25), g[0]);
    }
    out[N - 1] = last;
    out
}
