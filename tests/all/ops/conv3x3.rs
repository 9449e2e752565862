//! 3×3 convolutions on every vector path of the CPU against the f64 reference, forward and input gradient: those with
//! enough channels go through Winograd's transforms, which no other op does.

use engine::backend::cpu::{Cpu, VectorPath};
use engine::backend::{Activation, Conv, Memory};
use engine::base::dims::Conv2dDims;

use crate::backends::normal;

/// Largest error allowed, relative to the largest sum of absolute products of an output: four roundoffs of f32, for
/// direct sums and for Winograd's alike.
const BOUND: f64 = 2.5e-7;

/// A layer's channels and image.
type Layer = ((usize, usize), (usize, usize));

/// Channels on both sides of every multiple of the register tiles; images of one tile, of half tiles, and of more tiles
/// than a strip, narrower and wider than one.
const LAYERS: [Layer; 14] = [
    ((3, 4), (8, 8)),
    ((3, 64), (7, 5)),
    ((64, 3), (5, 7)),
    ((8, 8), (32, 32)),
    ((9, 17), (8, 7)),
    ((16, 16), (2, 2)),
    ((17, 16), (3, 3)),
    ((16, 33), (4, 4)),
    ((70, 70), (2, 3)),
    ((33, 31), (3, 8)),
    ((32, 5), (2, 32)),
    ((5, 32), (32, 3)),
    ((12, 12), (1, 1)),
    ((150, 20), (4, 5)),
];

const BATCHES: [usize; 4] = [1, 5, 16, 21];

/// Forward (with bias and ReLU or without) and input gradient of one layer, as NCHW values.
fn outputs<T: engine::backend::cpu::Real>(cpu: &Cpu<T>, d: &Conv2dDims, [x, w, b, dy]: &[Vec<f32>; 4]) -> [Vec<T>; 3] {
    let n = d.n as usize;
    let (x, w, b, dy) = (cpu.upload_batch(n, x), cpu.upload(w), cpu.upload(b), cpu.upload_batch(n, dy));
    [
        cpu.batch_values(n, &cpu.conv2d_fwd(d, &x, &w, None, Activation::Identity)),
        cpu.batch_values(n, &cpu.conv2d_fwd(d, &x, &w, Some(&b), Activation::Relu)),
        cpu.batch_values(n, &cpu.conv2d_bwd_input(d, &x, &dy, &w)),
    ]
}

fn dims(n: usize, ((c_in, c_out), (h, w)): Layer) -> Conv2dDims {
    Conv2dDims::new([n, c_in, h, w], c_out, 3, 1, 1).unwrap()
}

fn values(d: &Conv2dDims) -> [Vec<f32>; 4] {
    let len = |shape: [usize; 4]| shape.iter().product::<usize>();
    [normal(1, len(d.x())), normal(2, len(d.w())), normal(3, d.c_out as usize), normal(4, len(d.y()))]
}

#[test]
fn agrees_with_f64() {
    let reference = Cpu::<f64>::new(2).unwrap();
    for layer in LAYERS {
        for n in BATCHES {
            let d = dims(n, layer);
            let values = values(&d);
            let want = outputs(&reference, &d, &values);
            let absolute = values.clone().map(|v| v.iter().map(|v| v.abs()).collect());
            let sums = outputs(&reference, &d, &absolute).map(|sums| sums.into_iter().fold(0.0, f64::max));
            for path in VectorPath::available() {
                let got = outputs(&Cpu::<f32>::with_path(1, path).unwrap(), &d, &values);
                for (what, ((got, want), sum)) in
                    ["fwd", "fwd, bias, relu", "bwd_input"].iter().zip(got.iter().zip(&want).zip(sums))
                {
                    let errors = got.iter().zip(want).map(|(&got, &want)| (f64::from(got) - want).abs() / sum);
                    // Unlike `f64::max`, a NaN stays.
                    let worst = errors.fold(0.0, |worst: f64, e| if e <= worst || worst.is_nan() { worst } else { e });
                    assert!(worst <= BOUND, "{what} on {path}, {layer:?}, n {n}: {worst:.2e} of the sum");
                }
            }
        }
    }
}

/// A pruned filter leaves its bias, a pruned channel nothing of its input.
#[test]
fn zero_weights_contribute_nothing() {
    for path in VectorPath::available() {
        let cpu = Cpu::<f32>::with_path(1, path).unwrap();
        let d = dims(5, ((16, 20), (7, 7)));
        let [x, mut w, b, dy] = values(&d);
        let filter = 16 * 9;
        w[3 * filter..4 * filter].fill(0.0);
        w.chunks_exact_mut(filter).for_each(|w| w[7 * 9..8 * 9].fill(0.0));
        let [y, biased, dx] = outputs(&cpu, &d, &[x.clone(), w.clone(), b.clone(), dy.clone()]);
        let plane =
            |values: &[f32], n: usize, channels: usize, c: usize| values[(n * channels + c) * 49..][..49].to_vec();
        for n in 0..5 {
            assert_eq!(plane(&y, n, 20, 3), [0.0; 49], "{path}");
            assert_eq!(plane(&biased, n, 20, 3), [b[3].max(0.0); 49], "{path}");
            assert_eq!(plane(&dx, n, 16, 7), [0.0; 49], "{path}");
        }
        let mut other = x;
        other.chunks_exact_mut(49).skip(7).step_by(16).for_each(|plane| plane.fill(1e3));
        assert_eq!(outputs(&cpu, &d, &[other, w, b, dy])[0], y, "{path}: the input of a pruned channel");
    }
}

#[test]
fn nan_reaches_every_output_of_its_window() {
    for path in VectorPath::available() {
        let cpu = Cpu::<f32>::with_path(1, path).unwrap();
        let d = dims(3, ((16, 16), (6, 5)));
        let [mut x, w, b, dy] = values(&d);
        // Second image, channel 4, row 2, column 3.
        x[(16 + 4) * 30 + 2 * 5 + 3] = f32::NAN;
        let y = &outputs(&cpu, &d, &[x, w, b, dy])[1];
        for (i, v) in y.iter().enumerate() {
            let (image, row, col) = (i / 480, i % 30 / 5, i % 5);
            if image == 1 && row.abs_diff(2) <= 1 && col.abs_diff(3) <= 1 {
                assert!(v.is_nan(), "{path}: [{image}, _, {row}, {col}] is {v}");
            } else if image != 1 {
                assert!(v.is_finite(), "{path}: the NaN of another image");
            }
        }
    }
}
