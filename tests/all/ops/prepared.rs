//! What a layer prepares of its weight on the CPU is that of the weight as it is now, and of the sizes it is asked for.

use engine::backend::cpu::{Buf, Cpu, VectorPath};
use engine::backend::{Activation, Constraint, Conv, ConvPool, Linear, Memory, Optim, Prune, SgdParam, SgdStep};
use engine::base::dims::{Conv2dDims, LinearDims, Pool2dDims};

use crate::backends::{normal, relu_output};

/// The shape of a weight, `[c_out, c_in, k, k]`.
type Shape = [usize; 4];
/// Every pass of a layer that reads its weight, for images whose side is the given one, as values.
type Passes = fn(&Cpu<f32>, Shape, usize, &Buf<f32>) -> Vec<Vec<f32>>;

const N: usize = 5;

/// Convolutions with and without pooling, with channels enough for Winograd's algorithm and tap by tap, and a linear layer.
const CASES: [(Shape, Passes); 5] = [
    ([16, 16, 3, 3], conv),
    ([3, 2, 5, 5], conv),
    ([16, 16, 5, 5], conv_pool),
    ([3, 2, 5, 5], conv_pool),
    ([7, 9, 1, 1], linear),
];

fn dims([c_out, c_in, k, _]: Shape, side: usize) -> Conv2dDims {
    Conv2dDims::new([N, c_in, side, side], c_out, k, 1, k / 2).unwrap()
}

fn batch(cpu: &Cpu<f32>, seed: u64, shape: [usize; 4]) -> Buf<f32> {
    cpu.upload_batch(N, &normal(seed, shape.iter().product()))
}

fn conv(cpu: &Cpu<f32>, shape: Shape, side: usize, w: &Buf<f32>) -> Vec<Vec<f32>> {
    let d = dims(shape, side);
    let (x, dy) = (batch(cpu, 1, d.x()), batch(cpu, 2, d.y()));
    let passes = [cpu.conv2d_fwd(&d, &x, w, None, Activation::Identity), cpu.conv2d_bwd_input(&d, &x, &dy, w)];
    passes.map(|values| cpu.download_batch(N, &values)).to_vec()
}

fn conv_pool(cpu: &Cpu<f32>, shape: Shape, side: usize, w: &Buf<f32>) -> Vec<Vec<f32>> {
    let d = dims(shape, side);
    let p = Pool2dDims::new(d.y(), 2, 2).unwrap();
    let (x, dy) = (batch(cpu, 1, d.x()), batch(cpu, 2, p.y()));
    let (y, indices) = cpu.conv2d_pool_fwd(&d, &p, &x, w, None, Activation::Relu);
    let dx = cpu.conv2d_pool_bwd_input(&d, &p, &indices, &x, relu_output(&y), &dy, w);
    [y, dx].map(|values| cpu.download_batch(N, &values)).to_vec()
}

fn linear(cpu: &Cpu<f32>, [f_out, f_in, ..]: Shape, _: usize, w: &Buf<f32>) -> Vec<Vec<f32>> {
    let d = LinearDims { n: N as u32, f_in: f_in as u32, f_out: f_out as u32 };
    let (x, dy) = (batch(cpu, 1, [N, f_in, 1, 1]), batch(cpu, 2, [N, f_out, 1, 1]));
    let passes = [cpu.linear_fwd(&d, &x, w, None, Activation::Identity), cpu.linear_bwd_input(&d, &dy, w)];
    passes.map(|values| cpu.download_batch(N, &values)).to_vec()
}

/// Calls `check` for every case on every vector path, with a weight and a function that gives the passes of a weight at
/// images whose side is the given one.
fn each(check: impl Fn(&Cpu<f32>, Buf<f32>, &dyn Fn(usize, &Buf<f32>) -> Vec<Vec<f32>>, &str)) {
    for path in VectorPath::available() {
        let cpu = Cpu::<f32>::with_path(2, path).unwrap();
        for (shape, passes) in CASES {
            let w = cpu.upload(&normal(3, shape.iter().product()));
            check(&cpu, w, &|side, w| passes(&cpu, shape, side, w), &format!("{shape:?} on {path}"));
        }
    }
}

/// A change of a weight, of which everything is prepared, gives the passes of the new weight.
fn is_seen(change: impl Fn(&Cpu<f32>, &mut Buf<f32>)) {
    each(|cpu, mut w, passes, case| {
        let before = passes(8, &w);
        change(cpu, &mut w);
        let after = passes(8, &w);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{case}");
        assert_eq!(after, passes(8, &cpu.upload(&cpu.download(&w))), "{case}");
    });
}

#[test]
fn a_step_of_the_optimizer_is_seen() {
    is_seen(|cpu, w| {
        let (g, mut v) = (cpu.upload(&normal(4, w.len())), cpu.zeros(w.len()));
        let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.0 };
        cpu.sgd_step(&step, &mut [SgdParam { constraint: Constraint::Free, g: &g, v: &mut v, w }]);
    });
}

#[test]
fn a_mask_is_seen() {
    is_seen(|cpu, w| {
        let mask: Vec<f32> = (0..w.len()).map(|i| f32::from(u8::from(i % 3 == 0))).collect();
        cpu.apply_mask(&cpu.upload(&mask), w);
    });
}

#[test]
fn images_of_another_size_are_seen() {
    each(|cpu, w, passes, case| {
        for side in [8, 12, 8, 6] {
            assert_eq!(passes(side, &w), passes(side, &cpu.upload(&cpu.download(&w))), "{case}, {side} × {side}");
        }
    });
}
