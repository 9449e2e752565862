//! How long steps of training should take on an H200 and on an H100, with convolutions cut as [`tiles`](super::tiles) says: the
//! tables of `docs/performance.md`, and the CSV that `benches/gpu-page.py` puts beside what was measured.
//!
//!     cargo test --lib -- --ignored --nocapture predictions

use super::tiles::tests::resnet18;
use super::tiles::{Block, Cut, TILES, correlate, weight_gradient};
use crate::base::dims::Conv2dDims;

/// The bandwidth, in bytes a microsecond, read and written, in which the two differ. Processors and clocks are the same.
const GPUS: [(&str, f64); 2] = [("H200", 4.3e6), ("H100", 3.0e6)];
/// Operations that matrix products in bf16 reach, and the data sheet's in f32, in a microsecond.
const FLOP_BF16: f64 = 780e6;
const FLOP_F32: f64 = 67e6;
const PROCESSORS: f64 = 132.0;
/// Cycles in a microsecond.
const CLOCK: f64 = 1750.0;
/// Multiply-adds that `mma.sync` does on a multiprocessor in a microsecond.
const PRODUCTS: f64 = 1270.0 * CLOCK;
/// Microseconds from a block's first look at its input to its last store, and for a second count of blocks; of any other short
/// kernel; of a launch that overlaps with the one before it.
const BLOCK: f64 = 3300.0 / CLOCK;
const COUNT: f64 = 900.0 / CLOCK;
const SHORT: f64 = 2.0;
const LAUNCH: f64 = 0.5;
/// Launches of a pass forwards and back that are no convolutions.
const OTHERS: f64 = 13.0;

/// Microseconds of a step of the attack on a LeNet with a batch of 64, by width and precision. At w = 1 one kernel does 40 steps
/// in 100 to 200 µs; at w = 4 and 8 nothing counts but the launches, 19 in f32 and 21 in bf16; at w = 16 the products do.
const LENET: [(usize, &str, f64); 7] = [
    (1, "f32", 150.0 / 40.0),
    (4, "f32", 19.0 * (SHORT + LAUNCH)),
    (4, "bf16", 21.0 * (SHORT + LAUNCH)),
    (8, "f32", 19.0 * (SHORT + LAUNCH)),
    (8, "bf16", 21.0 * (SHORT + LAUNCH)),
    (16, "f32", 150.0),
    (16, "bf16", 80.0),
];
/// Of its update: 28 launches that overlap.
const LENET_UPDATE: f64 = 30.0;

/// Bytes of a batch whose elements have `size` bytes; in bf16 its channels are padded.
fn bytes(dims: [usize; 4], size: usize) -> f64 {
    let [n, c, h, w] = dims;
    let channels = if size == 2 { c.next_multiple_of(8) } else { c };
    (size * n * channels * h * w) as f64
}

fn products(d: &Conv2dDims) -> f64 {
    d.y().iter().product::<usize>() as f64 * f64::from(d.c_in * d.k * d.k)
}

/// Microseconds that one pass over memory and the arithmetic take at least. Forwards the image is read and the result written;
/// backwards the gradient and the input of the normalisation behind it are read, the result is written and what it is masked
/// and summed with is read.
fn floor(d: &Conv2dDims, gradient: bool, size: usize, flop: f64, bandwidth: f64) -> f64 {
    let moved = if gradient { 2.0 } else { 1.0 } * (bytes(d.x(), size) + bytes(d.y(), size)) / bandwidth;
    moved.max(2.0 * products(d) / flop)
}

/// Of a convolution in bf16 or of its input gradient.
struct Prediction {
    cut: Cut,
    floor: f64,
    predicted: f64,
}

fn correlation(d: &Conv2dDims, gradient: bool, bandwidth: f64) -> Prediction {
    let cut = correlate(d, gradient, gradient, Block { shared: 227 << 10, warpgroups: false })[0];
    // Without operations only the passes over memory are left.
    let moved = floor(d, gradient, 2, f64::INFINITY, bandwidth);
    let tile = &TILES[cut.tile];
    let blocks = f64::from(cut.grid.blocks[0] * cut.grid.blocks[1]);
    let of_a_block = products(d) / blocks / PRODUCTS;
    let resident = f64::from(tile.resident(cut.grid.shared));
    let length = BLOCK + if cut.parts > tile.group() + 1 { COUNT } else { 0.0 };
    let rounds = (blocks / PROCESSORS / resident).max(1.0);
    let predicted = moved.max((blocks / PROCESSORS).ceil() * of_a_block).max(rounds * length);
    Prediction { cut, floor: floor(d, gradient, 2, FLOP_BF16, bandwidth), predicted }
}

/// Milliseconds of a step of PGD-10 adversarial training of ResNet-18: eleven passes forwards and back, and the update.
fn resnet18_step(convolutions: &[Conv2dDims], bandwidth: f64) -> f64 {
    let (mut pass, mut update) = (OTHERS * (SHORT + LAUNCH), 0.0);
    for d in convolutions {
        pass +=
            [false, true].map(|gradient| correlation(d, gradient, bandwidth).predicted + LAUNCH).iter().sum::<f64>();
        // Both operands are written, and then multiplied; the sums of parts are short.
        let operands = [d.x(), d.y()].map(|dims| (3.0 * bytes(dims, 2) / bandwidth).max(SHORT) + LAUNCH);
        let parts = if weight_gradient(d)[0].parts > 1 { SHORT + LAUNCH } else { 0.0 };
        update += operands.iter().sum::<f64>() + (products(d) / PROCESSORS / PRODUCTS).max(SHORT) + LAUNCH + parts;
    }
    1e-3 * (11.0 * pass + update)
}

/// The least of the same: the floors of all passes, and of the weight gradients, which read what two passes read.
fn resnet18_floor(convolutions: &[Conv2dDims], size: usize, flop: f64, bandwidth: f64) -> f64 {
    let of = |d: &Conv2dDims| {
        let [forward, gradient] = [false, true].map(|gradient| floor(d, gradient, size, flop, bandwidth));
        11.0 * (forward + gradient) + forward
    };
    1e-3 * convolutions.iter().map(of).sum::<f64>()
}

/// Multiply-adds of a forward pass of a LeNet on an image: two convolutions, two linear layers.
fn lenet_products(w: usize) -> f64 {
    (28 * 28 * 25 * 2 * w + 14 * 14 * 25 * 2 * w * 4 * w + 196 * w * 64 * w + 64 * w * 10) as f64
}

/// Milliseconds that the arithmetic of a step of PGD-40 adversarial training of a LeNet takes at least: 41 passes forwards and
/// back, and the weight gradients. Its memory traffic is nothing beside that.
fn lenet_floor(w: usize, n: usize, flop: f64) -> f64 {
    1e-3 * 2.0 * lenet_products(w) * n as f64 * (2.0 * 41.0 + 1.0) / flop
}

/// Predictions for every layer of a ResNet-18 of width `w` and a batch of 128.
fn show_layers(w: usize, bandwidth: f64) {
    println!(
        "| layer | forward: tile, blocks, shared | floor | predicted | gradient | floor | predicted |\n|---|---|---|---|---|---|---|"
    );
    let mut shown = Vec::new();
    for d in resnet18(w, 128) {
        if shown.contains(&d) {
            continue;
        }
        let stride = if d.stride > 1 { format!(" /{}", d.stride) } else { String::new() };
        print!("| {}→{}, {k}×{k}{stride}, {}² ", d.c_in, d.c_out, d.h_in, k = d.k);
        for gradient in [false, true] {
            let Prediction { cut, floor, predicted } = correlation(&d, gradient, bandwidth);
            let (tile, blocks) = (TILES[cut.tile], cut.grid.blocks[0] * cut.grid.blocks[1]);
            print!("| {tile} {blocks} blocks {}KB | {floor:.1} | {predicted:.1} ", cut.grid.shared >> 10);
        }
        println!("|");
        shown.push(d);
    }
    println!();
}

#[test]
#[ignore = "prints predictions"]
fn predictions() {
    for (gpu, bandwidth) in GPUS {
        for w in [16, 1] {
            println!("ResNet-18, w = {w}, batch 128, {gpu}, in µs\n");
            show_layers(w, bandwidth);
        }
    }
    println!("gpu,network,width,batch,attack_steps,precision,floor_ms,predicted_ms");
    for (gpu, bandwidth) in GPUS {
        for (w, n) in [(16, 128), (16, 512), (8, 128), (4, 128), (2, 128), (1, 128)] {
            let convolutions = resnet18(w, n);
            let floor = |size, flop| resnet18_floor(&convolutions, size, flop, bandwidth);
            let predicted = resnet18_step(&convolutions, bandwidth);
            println!("{gpu},resnet18,{w},{n},10,bf16,{:.2},{predicted:.2}", floor(2, FLOP_BF16));
            // For f32 there is a floor, and no model of a step.
            println!("{gpu},resnet18,{w},{n},10,f32,{:.2},", floor(4, FLOP_F32));
        }
        for (w, precision, attack_step) in LENET {
            let flop = if precision == "bf16" { FLOP_BF16 } else { FLOP_F32 };
            let predicted = 1e-3 * (40.0 * attack_step + LENET_UPDATE);
            println!("{gpu},lenet,{w},64,40,{precision},{:.3},{predicted:.2}", lenet_floor(w, 64, flop));
        }
    }
}
