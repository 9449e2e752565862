//! Convolution, ReLU and max pooling as one op is what the three are one after the other.

use engine::backend::{Activation, Backend};
use engine::base::dims::{Conv2dDims, Pool2dDims};

use crate::backends::{normal, on_every_backend, relu_output};

on_every_backend! { is_convolution_and_pooling }

/// `[c_in, h, w], c_out, (k, stride, pad), (pool, its stride)`: LeNet's two paddings; images, windows and kernels that the
/// gradient by patches is not for; more channels than a chunk, more columns than a tile.
type Case = ([usize; 3], usize, (usize, usize, usize), (usize, usize));

const CASES: [Case; 9] = [
    ([1, 28, 28], 2, (5, 1, 2), (2, 2)),
    ([3, 14, 14], 7, (5, 1, 0), (2, 2)),
    ([2, 6, 10], 11, (3, 1, 1), (2, 2)),
    ([2, 8, 4], 3, (1, 1, 0), (2, 2)),
    ([2, 10, 10], 3, (7, 1, 3), (2, 2)),
    ([2, 9, 7], 3, (3, 1, 1), (2, 2)),
    ([2, 12, 12], 3, (3, 2, 1), (2, 2)),
    ([2, 9, 9], 3, (3, 1, 1), (3, 3)),
    ([2, 9, 9], 3, (3, 1, 1), (3, 2)),
];

pub fn is_convolution_and_pooling<B: Backend>(backend: &B) {
    for (n, case) in [1, 16, 19].into_iter().flat_map(|n| CASES.map(|case| (n, case))) {
        let ([c, h, w], c_out, (k, stride, pad), (pool, pool_stride)) = case;
        let d = Conv2dDims::new([n, c, h, w], c_out, k, stride, pad).unwrap();
        let p = Pool2dDims::new(d.y(), pool, pool_stride).unwrap();
        let len = |dims: [usize; 4]| dims.iter().product::<usize>();
        let x = backend.upload_batch(n, &normal(1, len(d.x())));
        let weight = backend.upload(&normal(2, len(d.w())));
        let bias = backend.upload(&normal(3, c_out));
        let dy = backend.upload_batch(n, &normal(4, len(p.y())));

        let (expected, indices) =
            backend.max_pool2d_fwd(&p, &backend.conv2d_fwd(&d, &x, &weight, Some(&bias), Activation::Relu));
        let (y, own_indices) = backend.conv2d_pool_fwd(&d, &p, &x, &weight, Some(&bias), Activation::Relu);
        assert_near(
            &backend.download_batch(n, &y),
            &backend.download_batch(n, &expected),
            &format!("y of {case:?}, {n}"),
        );

        let unpooled = backend.max_pool2d_bwd(&p, &indices, None, &backend.activation_bwd(relu_output(&y), &dy));
        let expected = backend.download_batch(n, &backend.conv2d_bwd_input(&d, &x, &unpooled, &weight));
        let dx = backend
            .download_batch(n, &backend.conv2d_pool_bwd_input(&d, &p, &own_indices, &x, relu_output(&y), &dy, &weight));
        assert_near(&dx, &expected, &format!("dx of {case:?}, {n}"));
    }
}

/// To 1e-6 of the largest value.
fn assert_near(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let near = (got - expected).abs() <= 1e-6 * scale;
        assert!(near, "{what}, element {i}: {got}, expected {expected}");
    }
}
