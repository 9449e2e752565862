//! The transforms of one row or column. A tile's is that of its columns, then of its rows.
#![allow(clippy::out_of_bounds_indexing, reason = "the branch for tiles of six is dead where they have four")]

use pulp::Simd;

/// The points of tiles of six besides 0 and ∞: plus and minus these.
const POINTS: [f32; 2] = [0.75, 1.5];
const SQUARES: [f32; 2] = [POINTS[0] * POINTS[0], POINTS[1] * POINTS[1]];

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
    // The polynomial that is zero at all points but 0, of inputs two apart.
    let (product, sum) = (simd.splat_f32s(SQUARES[0] * SQUARES[1]), simd.splat_f32s(-SQUARES[0] - SQUARES[1]));
    out[0] = simd.mul_add_f32s(product, d[0], simd.mul_add_f32s(sum, d[2], d[4]));
    out[5] = simd.mul_add_f32s(product, d[1], simd.mul_add_f32s(sum, d[3], d[5]));
    // Those that are zero at all but one of the others: even and odd powers.
    unroll!(I < 2, at most 8, {
        let other = simd.splat_f32s(-SQUARES[1 - I]);
        let even = simd.mul_add_f32s(other, d[2], d[4]);
        let odd = simd.mul_f32s(simd.splat_f32s(POINTS[I]), simd.mul_add_f32s(other, d[1], d[3]));
        out[1 + 2 * I] = simd.add_f32s(even, odd);
        out[2 + 2 * I] = simd.sub_f32s(even, odd);
    });
    out
}

/// `Aᵀ m`.
#[inline(always)]
pub fn output<S: Simd, const M: usize, const N: usize>(simd: S, m: [S::f32s; N]) -> [S::f32s; M] {
    let mut out = [simd.splat_f32s(0.0); M];
    let (even, odd) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    if N == 4 {
        out[0] = simd.add_f32s(m[0], even);
        out[1] = simd.add_f32s(odd, m[3]);
        return out;
    }
    let (far_even, far_odd) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    out[0] = simd.add_f32s(m[0], simd.add_f32s(even, far_even));
    out[1] = weighted(simd, 1, odd, far_odd);
    if M == 4 {
        out[2] = weighted(simd, 2, even, far_even);
        out[3] = weighted(simd, 3, odd, far_odd);
    }
    out[M - 1] = simd.add_f32s(out[M - 1], m[N - 1]);
    out
}

/// The sum of what belongs to the nearer and to the farther points, weighted with a power of each.
#[inline(always)]
fn weighted<S: Simd>(simd: S, power: i32, near: S::f32s, far: S::f32s) -> S::f32s {
    let [a, b] = [POINTS[0].powi(power), POINTS[1].powi(power)];
    simd.mul_add_f32s(simd.splat_f32s(b), far, simd.mul_f32s(simd.splat_f32s(a), near))
}

/// `G g`.
#[inline(always)]
pub fn filter<S: Simd, const R: usize, const N: usize>(simd: S, g: [S::f32s; R]) -> [S::f32s; N] {
    let mut out = [g[R - 1]; N];
    if N == 4 {
        out[0] = g[0];
        [out[1], out[2]] = filter_at(simd, g, 1.0, 2.0);
    } else {
        // Over the product of a point's distances to the others.
        let [near, far] = SQUARES;
        out[0] = simd.mul_f32s(simd.splat_f32s(1.0 / (near * far)), g[0]);
        [out[1], out[2]] = filter_at(simd, g, POINTS[0], 2.0 * near * (near - far));
        [out[3], out[4]] = filter_at(simd, g, POINTS[1], 2.0 * far * (far - near));
    }
    out
}

/// The polynomial of a filter at `point` and at `-point`, over `over`.
#[inline(always)]
fn filter_at<S: Simd, const R: usize>(simd: S, g: [S::f32s; R], point: f32, over: f32) -> [S::f32s; 2] {
    let (square, scale) = (simd.splat_f32s(point * point), simd.splat_f32s(1.0 / over));
    let (mut even, mut odd) = (g[R - 1], g[R - 2]);
    if R == 5 {
        even = simd.mul_add_f32s(even, square, g[2]);
        odd = simd.mul_add_f32s(odd, square, g[1]);
    }
    even = simd.mul_add_f32s(even, square, g[0]);
    odd = simd.mul_f32s(odd, simd.splat_f32s(point));
    [simd.mul_f32s(scale, simd.add_f32s(even, odd)), simd.mul_f32s(scale, simd.sub_f32s(even, odd))]
}
