//! Convolutions of stride 1 that keep the size of their images, on every vector path of the CPU against the f64 reference: those
//! with enough channels go through Winograd's transforms, which no other op does.

use engine::autograd::tensor::Tensor;
use engine::backend::cpu::{Cpu, Real, VectorPath};
use engine::backend::{Accumulation, Activation, Conv, ConvPool, Elementwise, Memory};
use engine::base::dims::{Conv2dDims, Pool2dDims};
use engine::data::{Dataset, DatasetName};
use engine::nn::models::{Mode, Network};
use engine::train::{TrainConfig, train};

use crate::backends::{normal, relu_output};
use crate::{networks, small_runs};

/// Largest error allowed, relative to the largest sum of absolute products of an output, in roundoffs of f32: of direct sums and of
/// F(2×2, 3×3), which only adds; and of tiles of six, whose transforms multiply. The largest measured are 4.0 and 10.9.
const BOUNDS: [(&str, f64); 2] = [("direct sums and F(2×2, 3×3)", 4.6), ("F(4×4, 3×3) and F(2×2, 5×5)", 13.0)];

/// A layer's channels, image and filter.
type Layer = ((usize, usize), (usize, usize), usize);

/// Channels on both sides of every multiple of the register tiles; images of one tile, of parts of tiles, and of more tiles
/// than a strip, narrower and wider than one, in strips of four and of seven.
const LAYERS: [Layer; 23] = [
    ((3, 4), (8, 8), 3),
    ((3, 64), (7, 5), 3),
    ((64, 3), (5, 7), 3),
    ((8, 8), (32, 32), 3),
    ((9, 17), (8, 7), 3),
    ((16, 16), (2, 2), 3),
    ((17, 16), (3, 3), 3),
    ((16, 33), (4, 4), 3),
    ((70, 70), (2, 3), 3),
    ((33, 31), (3, 8), 3),
    ((32, 5), (2, 32), 3),
    ((5, 32), (32, 3), 3),
    ((12, 12), (1, 1), 3),
    ((150, 20), (4, 5), 3),
    ((9, 40), (28, 6), 3),
    ((16, 130), (8, 8), 3),
    ((8, 16), (14, 14), 5),
    ((17, 9), (14, 14), 5),
    ((33, 40), (4, 6), 5),
    ((16, 16), (16, 16), 5),
    ((20, 33), (3, 5), 5),
    ((9, 20), (2, 28), 5),
    ((130, 16), (8, 2), 5),
];

const BATCHES: [usize; 4] = [1, 5, 16, 21];

/// Forward (with bias and ReLU or without), input gradient, and where the images have whole windows, both through 2×2 pooling: as
/// NCHW values.
fn outputs<T: Real>(cpu: &Cpu<T>, d: &Conv2dDims, [x, w, b, dy]: &[Vec<f32>; 4]) -> Vec<(&'static str, Vec<T>)> {
    let n = d.n as usize;
    let pooled = Pool2dDims::new(d.y(), 2, 2).ok().filter(|p| [d.h_in, d.w_in] == [2 * p.h_out, 2 * p.w_out]);
    let g = pooled.map(|p| cpu.upload_batch(n, &dy[..p.y().iter().product()]));
    let (x, w, b, dy) = (cpu.upload_batch(n, x), cpu.upload(w), cpu.upload(b), cpu.upload_batch(n, dy));
    let mut sum = cpu.copy_batch(&x);
    let accumulated = cpu.conv2d_bwd_input_accumulated(d, &x, &dy, &w, Accumulation::Last(Some(cpu.copy_batch(&x))));
    let dx = cpu.conv2d_bwd_input(d, &x, &dy, &w);
    cpu.add_assign(&dx, &mut sum);
    let mut pairs = cpu.batch_values(n, &accumulated).into_iter().zip(cpu.batch_values(n, &sum));
    let same = |(a, b): (T, T)| a == b || (a.is_nan() && b.is_nan());
    assert!(pairs.all(same), "added at once and afterwards, {d:?}");
    let mut all = vec![
        ("fwd", cpu.conv2d_fwd(d, &x, &w, None, Activation::Identity)),
        ("fwd, bias, relu", cpu.conv2d_fwd(d, &x, &w, Some(&b), Activation::Relu)),
        ("bwd_input", dx),
    ];
    if let (Some(p), Some(g)) = (pooled, g) {
        let (y, indices) = cpu.conv2d_pool_fwd(d, &p, &x, &w, Some(&b), Activation::Relu);
        let dx = cpu.conv2d_pool_bwd_input(d, &p, &indices, &x, relu_output(&y), &g, &w);
        all.extend([("pool fwd", y), ("pool bwd_input", dx)]);
    }
    all.into_iter().map(|(name, values)| (name, cpu.batch_values(n, &values))).collect()
}

fn dims(n: usize, ((c_in, c_out), (h, w), k): Layer) -> Conv2dDims {
    Conv2dDims::new([n, c_in, h, w], c_out, k, 1, k / 2).unwrap()
}

fn values(d: &Conv2dDims) -> [Vec<f32>; 4] {
    let len = |shape: [usize; 4]| shape.iter().product::<usize>();
    [normal(1, len(d.x())), normal(2, len(d.w())), normal(3, d.c_out as usize), normal(4, len(d.y()))]
}

/// The largest difference, which stays NaN once it is.
fn largest(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let errors = got.iter().zip(want).map(|(&got, &want)| (f64::from(got) - want).abs());
    errors.fold(0.0, |worst: f64, e| if e <= worst || worst.is_nan() { worst } else { e })
}

#[test]
fn agrees_with_f64() {
    let reference = Cpu::<f64>::new(2).unwrap();
    let roundoff = f64::from(f32::EPSILON) / 2.0;
    for layer in LAYERS {
        for n in BATCHES {
            let d = dims(n, layer);
            let values = values(&d);
            let want = outputs(&reference, &d, &values);
            let absolute = values.clone().map(|v| v.iter().map(|v| v.abs()).collect());
            let sums = outputs(&reference, &d, &absolute);
            // The algorithm with the fewest multiplications, for F(4×4) as for two rows and columns of F(2×2).
            let (_, (h, w), k) = layer;
            let large = k == 5 || 36 * h.div_ceil(4) * w.div_ceil(4) < 16 * h.div_ceil(2) * w.div_ceil(2);
            let (forms, bound) = BOUNDS[usize::from(large)];
            for path in VectorPath::available() {
                let got = outputs(&Cpu::<f32>::with_path(1, path).unwrap(), &d, &values);
                for (((pass, got), (_, want)), (_, sums)) in got.iter().zip(&want).zip(&sums) {
                    let worst = largest(got, want) / sums.iter().copied().fold(0.0, f64::max) / roundoff;
                    assert!(worst <= bound, "{pass} on {path}, {layer:?}, n {n}: {worst:.1} roundoffs, {forms}");
                }
            }
        }
    }
}

/// On real images and the activations that they have in a trained network, in parts of the largest value: logits, and the image
/// gradients of half of the images at least, since a ReLU whose input is nearly zero may be on the other side of it in f64.
#[test]
fn a_trained_resnet_is_as_exact_as_with_direct_sums() {
    let data = Dataset::sample(DatasetName::Cifar10).unwrap();
    let images = 64;
    let train_images: Vec<usize> = (0..300).collect();
    let data = Dataset { train: data.train.select(&train_images), ..data };
    let dir = tempfile::tempdir().unwrap();
    let mnist = small_runs::config(&small_runs::digits(1, 1));
    let config = TrainConfig {
        data: data.id.clone(),
        network: Network::ResNet18,
        attack: None,
        eval_attack: small_runs::attack(1),
        ..mnist
    };
    train(&Cpu::<f32>::new(2).unwrap(), &config, &data, None, dir.path(), &small_runs::Stop::never()).unwrap();

    let pixels: usize = data.shape.iter().product();
    let x: Vec<f32> = data.test.images[..images * pixels].iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let labels = &data.test.labels[..images];
    fn pass<T: Real>(cpu: &Cpu<T>, dir: &std::path::Path, x: &[f32], labels: &[u8]) -> [Vec<T>; 2] {
        let model = small_runs::load(cpu, dir);
        let n = labels.len();
        let images = Tensor::new(cpu.upload_batch(n, x), model.input(n));
        let pass = networks::pass(cpu, &model, Mode::Eval, 1.0, images, labels);
        [pass.logits.iter().map(|&v| T::of(v)).collect(), cpu.batch_values(n, pass.dx.buf())]
    }
    let want = pass(&Cpu::<f64>::new(2).unwrap(), dir.path(), &x, labels);
    let errors = |path| {
        let got = pass(&Cpu::<f32>::with_path(2, path).unwrap(), dir.path(), &x, labels);
        [0, 1].map(|i| {
            let scale = want[i].iter().fold(0.0, |max: f64, v| max.max(v.abs()));
            let len = want[i].len() / images;
            let each = got[i].chunks_exact(len).zip(want[i].chunks_exact(len));
            let mut errors: Vec<f64> = each.map(|(got, want)| largest(got, want) / scale).collect();
            errors.sort_by(f64::total_cmp);
            if i == 0 { errors[images - 1] } else { errors[images / 2] }
        })
    };
    let direct = errors(VectorPath::Portable);
    for path in VectorPath::available() {
        let errors = errors(path);
        eprintln!("{path}: logits {:.1e}, gradients {:.1e} of the largest", errors[0], errors[1]);
        for (error, direct) in errors.into_iter().zip(direct) {
            assert!(error <= 3e-6 && error <= 5.0 * direct, "{path}: {error:.1e}, direct sums {direct:.1e}");
        }
    }
}

/// A pruned filter leaves its bias, a pruned channel nothing of its input.
#[test]
fn zero_weights_contribute_nothing() {
    for path in VectorPath::available() {
        let cpu = Cpu::<f32>::with_path(1, path).unwrap();
        let d = dims(5, ((16, 20), (7, 7), 3));
        let [x, mut w, b, dy] = values(&d);
        let filter = 16 * 9;
        w[3 * filter..4 * filter].fill(0.0);
        w.chunks_exact_mut(filter).for_each(|w| w[7 * 9..8 * 9].fill(0.0));
        let passes = |x: &[f32]| {
            let values = [x.to_vec(), w.clone(), b.clone(), dy.clone()];
            let all = outputs(&cpu, &d, &values).into_iter().map(|(_, values)| values);
            <[Vec<f32>; 3]>::try_from(all.collect::<Vec<_>>()).expect("no pooling of seven rows")
        };
        let [y, biased, dx] = passes(&x);
        let plane =
            |values: &[f32], n: usize, channels: usize, c: usize| values[(n * channels + c) * 49..][..49].to_vec();
        for n in 0..5 {
            assert_eq!(plane(&y, n, 20, 3), [0.0; 49], "{path}");
            assert_eq!(plane(&biased, n, 20, 3), [b[3].max(0.0); 49], "{path}");
            assert_eq!(plane(&dx, n, 16, 7), [0.0; 49], "{path}");
        }
        let mut other = x;
        other.chunks_exact_mut(49).skip(7).step_by(16).for_each(|plane| plane.fill(1e3));
        assert_eq!(passes(&other)[0], y, "{path}: the input of a pruned channel");
    }
}

#[test]
fn nan_reaches_every_output_of_its_window() {
    for path in VectorPath::available() {
        let cpu = Cpu::<f32>::with_path(1, path).unwrap();
        let d = dims(3, ((16, 16), (6, 5), 3));
        let [mut x, w, b, dy] = values(&d);
        // Second image, channel 4, row 2, column 3.
        x[(16 + 4) * 30 + 2 * 5 + 3] = f32::NAN;
        let (_, y) = &outputs(&cpu, &d, &[x, w, b, dy])[1];
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
