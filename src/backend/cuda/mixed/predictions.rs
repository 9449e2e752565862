//! What convolutions cut as [`tiles`] says should take on an H200: the tables of `docs/performance.md`.
//!
//!     cargo test --lib -- --ignored --nocapture predictions

use super::tiles::tests::resnet18;
use super::tiles::{Cut, TILES, correlate, weight_gradient};
use crate::dims::Conv2dDims;

/// The floors' throughput and bandwidth, per microsecond.
const FLOP: f64 = 780e6;
const BYTES: f64 = 4.3e6;
const PROCESSORS: f64 = 132.0;
/// Multiply-adds that `mma.sync` does on a multiprocessor in a microsecond.
const PRODUCTS: f64 = 1270.0 * 1750.0;
/// Microseconds from a block's first look at its input to its last store, and for a second count of blocks; of any other short
/// kernel; of a launch that overlaps with the one before it.
const BLOCK: f64 = 3300.0 / 1750.0;
const COUNT: f64 = 900.0 / 1750.0;
const SHORT: f64 = 2.0;
const LAUNCH: f64 = 0.5;
/// Launches of a pass forwards and back that are no convolutions.
const OTHERS: f64 = 13.0;

fn bytes(dims: [usize; 4]) -> f64 {
    let [n, c, h, w] = dims;
    (2 * n * c.next_multiple_of(8) * h * w) as f64
}

fn products(d: &Conv2dDims) -> f64 {
    d.y().iter().product::<usize>() as f64 * f64::from(d.c_in * d.k * d.k)
}

/// Floor and prediction. Forwards the image is read and the result written; backwards the gradient and the input of the
/// normalisation behind it are read, the result is written and what it is masked and summed with is read.
fn correlation(d: &Conv2dDims, gradient: bool) -> (Cut, f64, f64) {
    let cut = correlate(d, gradient, gradient, 227 << 10)[0];
    let moved = if gradient { 2.0 } else { 1.0 } * (bytes(d.x()) + bytes(d.y())) / BYTES;
    let tile = &TILES[cut.tile];
    let blocks = f64::from(cut.grid.blocks[0] * cut.grid.blocks[1]);
    let of_a_block = products(d) / blocks / PRODUCTS;
    let resident = f64::from(tile.resident(cut.grid.shared));
    let length = BLOCK + if cut.parts > tile.group() + 1 { COUNT } else { 0.0 };
    let rounds = (blocks / PROCESSORS / resident).max(1.0);
    let predicted = moved.max((blocks / PROCESSORS).ceil() * of_a_block).max(rounds * length);
    (cut, moved.max(2.0 * products(d) / FLOP), predicted)
}

#[test]
#[ignore = "prints predictions"]
fn predictions() {
    println!(
        "| layer | forward: tile, blocks, shared | floor | predicted | gradient | floor | predicted |\n|---|---|---|---|---|---|---|"
    );
    let mut steps = String::new();
    for (w, n) in [(16, 128), (16, 512), (8, 128), (4, 128), (2, 128), (1, 128)] {
        let convolutions = resnet18(w, n);
        // Of a pass, and what the update does beside its own.
        let (mut pass, mut update) = (OTHERS * (SHORT + LAUNCH), 0.0);
        let mut shown = Vec::new();
        for d in &convolutions {
            let passes = [false, true].map(|gradient| correlation(d, gradient));
            pass += passes.iter().map(|(_, _, predicted)| predicted + LAUNCH).sum::<f64>();
            // Both operands are written, and then multiplied; the sums of parts are short.
            let operands = [d.x(), d.y()].map(|dims| (3.0 * bytes(dims) / BYTES).max(SHORT) + LAUNCH);
            let parts = if weight_gradient(d)[0].parts > 1 { SHORT + LAUNCH } else { 0.0 };
            update += operands.iter().sum::<f64>() + (products(d) / PROCESSORS / PRODUCTS).max(SHORT) + LAUNCH + parts;
            if n > 128 || shown.contains(&d) || ![16, 1].contains(&w) {
                continue;
            }
            shown.push(d);
            let stride = if d.stride > 1 { format!(" /{}", d.stride) } else { String::new() };
            print!("| w = {w}: {}→{}, {k}×{k}{stride}, {}² ", d.c_in, d.c_out, d.h_in, k = d.k);
            for (cut, floor, predicted) in passes {
                let blocks = cut.grid.blocks[0] * cut.grid.blocks[1];
                print!(
                    "| {} {blocks} blocks {}KB | {floor:.1} | {predicted:.1} ",
                    TILES[cut.tile],
                    cut.grid.shared >> 10
                );
            }
            println!("|");
        }
        steps += &format!("| {w} | {n} | {:.2} |\n", 1e-3 * (11.0 * pass + update));
    }
    println!("\n| w | batch | predicted, ms |\n|---|---|---|\n{steps}");
}
