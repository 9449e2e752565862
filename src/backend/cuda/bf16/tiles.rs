//! Which tiles the blocks of a convolution on tensor cores take: the kernels are those of `kernels/bf16/conv_tiles.cuh`.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::rc::Rc;

use super::VEC8;
use crate::backend::cuda::runtime::kernel::Grid;
use crate::backend::cuda::tuning::{self, Remembered, remembered, tiles};
use crate::base::dims::Conv2dDims;

/// Threads of a block of a weight gradient.
const THREADS: u32 = 128;
/// Counters for blocks and groups of blocks.
pub const ARRIVALS: u32 = 1 << 16;
/// Taps that a convolution can have: `MOST_TAPS` in `kernels/bf16/conv_params.cuh`.
const MOST_TAPS: u32 = 32;
/// Multiprocessors that tiles are chosen for.
const PROCESSORS: u32 = tuning::PROCESSORS as u32;
/// Shared memory of a multiprocessor, and what a block takes of it beside what its launch brings along: what the kernel declares,
/// and what CUDA keeps for itself.
const SHARED: u32 = 228 << 10;
const DECLARED: u32 = 1 << 10;
const RESERVED: u32 = 1 << 10;

/// A tile of a forward pass or an input gradient.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// The end of its kernel's name.
    pub name: &'static str,
    /// Input channels that lie in shared memory at a time.
    depth: u32,
    /// Channels and pixels of the result.
    channels: u32,
    pixels: u32,
    /// Taps of a stage of weights, and how many stages there are at a time.
    taps: u32,
    stages: u32,
    /// Whether a warpgroup, four warps, multiplies together where the GPU can (compute capability 9.0).
    warpgroup: bool,
    threads: u32,
    /// Blocks that a multiprocessor has registers for.
    min_blocks: u32,
}

/// Tiles of forward passes and input gradients.
pub const TILES: &[Tile] = {
    #[allow(clippy::too_many_arguments)]
    const fn tile(
        name: &'static str,
        depth: u32,
        warp_pixels: u32,
        warp_channels: u32,
        warps_down: u32,
        warps_across: u32,
        taps: u32,
        stages: u32,
        warpgroup: bool,
        min_blocks: u32,
    ) -> Tile {
        let (pixels, channels) = (warp_pixels * warps_down, warp_channels * warps_across);
        let threads = 32 * warps_down * warps_across;
        Tile { name, depth, channels, pixels, taps, stages, warpgroup, threads, min_blocks }
    }
    tiles!("bf16_conv_tiles")
};

impl Tile {
    /// Blocks whose partial sums the last of them adds up: `GROUP` in `kernels/bf16/conv_params.cuh`.
    fn group(&self) -> u32 {
        if self.channels <= 16 { 512 } else { 64 }
    }

    /// Blocks that a multiprocessor has room for: registers and shared memory.
    fn resident(&self, shared: u32) -> u32 {
        self.min_blocks.min(SHARED / (shared + DECLARED + RESERVED))
    }
}

/// A convolution or its input gradient, as `kernels/primitives/conv_geometry.cuh` has it; of a gradient the first phase, which
/// has the most pixels and taps.
#[derive(Clone, Copy)]
struct ConvGeometry {
    n: u32,
    /// Channels, rows and columns of the image that is read.
    channels: u32,
    h: u32,
    w: u32,
    /// Channels, rows and columns of the result.
    results: u32,
    rows: u32,
    cols: u32,
    /// Pixels of the image from one pixel of the result to the next.
    step: u32,
    /// Phases in each direction: the stride for a gradient, else 1.
    phases: u32,
    k: u32,
    stride: u32,
    pad: u32,
    gradient: bool,
}

impl ConvGeometry {
    fn of(d: &Conv2dDims, gradient: bool) -> Self {
        let Conv2dDims { n, k, stride, pad, .. } = *d;
        let side = |pixels: u32| if gradient { pixels.div_ceil(stride) } else { pixels };
        let (image, result) = ([d.c_in, d.h_in, d.w_in], [d.c_out, d.h_out, d.w_out]);
        let ([channels, h, w], [results, rows, cols]) = if gradient { (result, image) } else { (image, result) };
        let phases = if gradient { stride } else { 1 };
        let step = if gradient { 1 } else { stride };
        ConvGeometry {
            n,
            channels,
            h,
            w,
            results,
            rows: side(rows),
            cols: side(cols),
            step,
            phases,
            k,
            stride,
            pad,
            gradient,
        }
    }

    fn pixels(&self) -> u32 {
        self.n * self.rows * self.cols
    }

    /// First row of the image that a phase's first pixel reaches, which may be above it, and the rows of its taps.
    fn reach(&self, phase: u32) -> (i64, u32) {
        if !self.gradient {
            return (-i64::from(self.pad), self.k);
        }
        let first = (phase + self.pad) % self.stride;
        let taps = if first < self.k { (self.k - 1 - first) / self.stride + 1 } else { 0 };
        (i64::from((phase + self.pad) / self.stride) - i64::from(taps) + 1, taps)
    }

    /// Most pixels of the image that a tile of so many pixels, a power of two, reaches: whole rows. Tiles repeat where one
    /// begins with an image.
    fn input_tile(&self, size: u32) -> u32 {
        let (plane, h) = (self.rows * self.cols, i64::from(self.h));
        let period = plane >> plane.trailing_zeros().min(size.trailing_zeros());
        let tiles = self.pixels().div_ceil(size).min(period);
        let rows = (0..self.phases).flat_map(|phase| {
            let (first, taps) = self.reach(phase);
            (0..tiles).map(move |tile| {
                let row = |pixel: u32, tap: i64| {
                    let top = i64::from(pixel % plane / self.cols * self.step) + first + tap;
                    i64::from(pixel / plane) * h + top.clamp(0, h - 1)
                };
                let begin = tile * size;
                let last = (begin + size - 1).min(self.pixels() - 1);
                row(last, i64::from(taps) - 1) + 1 - row(begin, 0)
            })
        });
        rows.max().unwrap_or(0).max(0) as u32 * self.w
    }
}

/// How the blocks of a launch share a forward pass or an input gradient.
#[derive(Clone, Copy, Debug)]
pub struct TileConfig {
    /// Which of [`TILES`].
    pub tile: usize,
    /// Pixels of an input tile, and how many input tiles lie in shared memory: two if there are more channels than one holds.
    pub input_pixels: u32,
    pub input_tiles: u32,
    /// Partial sums of a channel, pairs of numbers, that blocks and groups of blocks leave behind.
    pub partials: u32,
    pub grid: Grid,
}

/// Limits of a block on a GPU: bytes of shared memory, and whether its warpgroups multiply together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    pub shared: u32,
    pub warpgroups: bool,
}

/// Every tile that fits the forward pass or the input gradient of a convolution whose input is one batch or the sum of
/// `two_inputs`, what should be fastest first; none if no input tile fits a block.
pub fn convolution(d: &Conv2dDims, gradient: bool, two_inputs: bool, block: Block) -> Rc<[TileConfig]> {
    type Key = (Conv2dDims, bool, bool, Block);
    thread_local! { static CONFIGS: Remembered<Key, Rc<[TileConfig]>> = RefCell::default(); }
    remembered(&CONFIGS, (*d, gradient, two_inputs, block), || configs(d, gradient, two_inputs, block).into())
}

/// The launch with a tile; `None` if its input tile does not fit a block or there are too few counters.
fn config(tile: usize, g: &ConvGeometry, two_inputs: bool, block: Block) -> Option<TileConfig> {
    let Tile { depth, channels, pixels, taps, stages, threads, .. } = TILES[tile];
    let results = g.results.next_multiple_of(VEC8);
    // Rows that are swizzled together begin at a multiple of eight.
    let input_pixels = g.input_tile(pixels).next_multiple_of(8);
    let input_tiles = g.channels.div_ceil(depth).min(2);
    // The input tiles and a row of zeros, the second input, the stages of weights; in their place, at the end, the result and sums.
    let rows = (input_tiles + u32::from(two_inputs)) * input_pixels + 8 + stages * taps * channels;
    let tables = (MOST_TAPS * 8 + g.channels.next_multiple_of(VEC8) * 16).next_multiple_of(1024);
    let end = pixels * channels * 2 + ((threads / 32 + 1) * channels * 4).max(threads * 8);
    let shared = tables + (rows * depth * 2).max(end);
    let tiles = g.pixels().div_ceil(pixels);
    let blocks = [tiles * results.div_ceil(channels), g.phases * g.phases, 1];
    let blocks_a_channel = tiles * g.phases * g.phases;
    let groups = blocks_a_channel.div_ceil(TILES[tile].group());
    let fits = shared + DECLARED <= block.shared && results.div_ceil(channels) * (groups + 1) <= ARRIVALS;
    let (partials, grid) = (blocks_a_channel + groups, Grid { blocks, threads, shared });
    fits.then_some(TileConfig { tile, input_pixels, input_tiles, partials, grid })
}

fn configs(d: &Conv2dDims, gradient: bool, two_inputs: bool, block: Block) -> Vec<TileConfig> {
    if d.k * d.k > MOST_TAPS {
        return Vec::new();
    }
    let g = ConvGeometry::of(d, gradient);
    let narrow = |size: u32, most: u32| size.next_power_of_two().clamp(VEC8, most);
    let (depth, channels) = (narrow(g.channels, 64), narrow(g.results.next_multiple_of(VEC8), 128));
    // As deep as the image and as wide as the result, but so that nearly every multiprocessor gets a block, and room for two; with
    // more pixels only if that means fewer rounds of blocks. Warpgroups were faster in every layer that was measured on an H100
    // and is wide enough for them; where they do not multiply together their tiles only have smaller fragments.
    let wanted = |config: &TileConfig| {
        let (tile, blocks) = (&TILES[config.tile], config.grid.blocks[0] * config.grid.blocks[1]);
        let resident = tile.resident(config.grid.shared);
        let rounds = blocks.div_ceil(PROCESSORS * resident);
        (
            block.warpgroups || !tile.warpgroup,
            resident > 1,
            blocks >= PROCESSORS - PROCESSORS / 8 || tile.channels <= 32,
            tile.channels,
            tile.depth,
            tile.warpgroup,
            Reverse((rounds, tile.pixels)),
        )
    };
    let narrow_enough = |&tile: &usize| TILES[tile].depth <= depth && TILES[tile].channels <= channels;
    let fitting = (0..TILES.len()).filter(narrow_enough).filter_map(|tile| config(tile, &g, two_inputs, block));
    let mut configs: Vec<TileConfig> = fitting.collect();
    configs.sort_by_key(|config| Reverse(wanted(config)));
    configs
}

/// A tile of a weight gradient.
#[derive(Clone, Copy, Debug)]
pub struct WeightTile {
    /// The end of its kernel's name.
    pub name: &'static str,
    filters: u32,
    /// Input channels.
    channels: u32,
}

/// Tiles of weight gradients.
pub const WEIGHT_TILES: &[WeightTile] = {
    /// Warps in the third direction share a tile's pixels.
    const fn tile(
        name: &'static str,
        warp_filters: u32,
        warp_channels: u32,
        warps_down: u32,
        warps_across: u32,
        _warps_deep: u32,
        _registers: u32,
    ) -> WeightTile {
        WeightTile { name, filters: warp_filters * warps_down, channels: warp_channels * warps_across }
    }
    tiles!("bf16_conv_bwd_weight_tiles")
};

/// Pixels of a stage of a weight gradient: `PIXELS` in `kernels/bf16/weights.cu`.
const STAGE: u32 = 64;
/// The most pixels that a block adds up, because errors of the sum grow with them.
const LONGEST_SUM: u32 = 4096;

/// How the blocks of a launch share a weight gradient: which of [`WEIGHT_TILES`], and how many blocks share the pixels.
#[derive(Clone, Copy, Debug)]
pub struct WeightConfig {
    pub tile: usize,
    pub split_k: u32,
    pub grid: Grid,
}

/// Every tile that fits a weight gradient, what should be fastest first.
pub fn weight_gradient(d: &Conv2dDims) -> Vec<WeightConfig> {
    let (c_in, c_out) = (d.c_in.next_multiple_of(VEC8), d.c_out.next_multiple_of(VEC8));
    // A tile that is half empty does as many products as two of half its size.
    let fits =
        |tile: &WeightTile| tile.filters <= c_out.next_power_of_two() && tile.channels <= c_in.next_power_of_two();
    let config = |tile: usize| {
        let WeightTile { filters, channels, .. } = WEIGHT_TILES[tile];
        let (blocks, taps) = (c_in.div_ceil(channels) * c_out.div_ceil(filters), d.k * d.k);
        let pixels = d.n * d.h_out * d.w_out;
        let stages = pixels.div_ceil(STAGE);
        let wanted = (4 * PROCESSORS).div_ceil(blocks * taps).max(pixels.div_ceil(LONGEST_SUM));
        // As many blocks as have stages.
        let split_k = stages.div_ceil(stages.div_ceil(wanted));
        WeightConfig { tile, split_k, grid: Grid { blocks: [blocks, taps, split_k], threads: THREADS, shared: 0 } }
    };
    (0..WEIGHT_TILES.len()).rev().filter(|&tile| tile == 0 || fits(&WEIGHT_TILES[tile])).map(config).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::tuning::resnet18_convolutions;

    /// On a Hopper, but without its warpgroups.
    const BLOCK: Block = Block { shared: 227 << 10, warpgroups: false };
    /// Pixels of the smaller tiles.
    const PIXELS: u32 = 128;

    /// Those of networks of width `w` for a batch of `n`: a LeNet for either size of images, a VGG-16 and a ResNet-18.
    fn convolutions(w: usize, n: usize) -> Vec<Conv2dDims> {
        let conv = |c_in, side, c_out, k| Conv2dDims::new([n, c_in, side, side], c_out, k, 1, k / 2).unwrap();
        let lenet = |c, side| [conv(c, side, 2 * w, 5), conv(2 * w, side / 2, 4 * w, 5)];
        let mut all = resnet18_convolutions(n, 4 * w);
        all.extend(lenet(1, 28).into_iter().chain(lenet(3, 32)));
        all.push(conv(3, 32, 4 * w, 3));
        for (group, (side, repeats)) in [(32, 1), (16, 1), (8, 2), (4, 2), (2, 2)].into_iter().enumerate() {
            let channels = |group: usize| (4 * w) << group.min(3);
            if group > 0 {
                all.push(conv(channels(group - 1), side, channels(group), 3));
            }
            all.extend(vec![conv(channels(group), side, channels(group), 3); repeats]);
        }
        all
    }

    #[test]
    fn every_convolution_of_the_networks_fits_a_tile() {
        let mut used = std::collections::BTreeSet::new();
        for (w, n) in [(1, 128), (2, 50), (4, 128), (8, 512), (16, 128), (16, 1)] {
            for d in convolutions(w, n) {
                for (gradient, two_inputs) in [(false, false), (false, true), (true, true)] {
                    let configs = convolution(&d, gradient, two_inputs, BLOCK);
                    assert!(
                        !configs.is_empty() && configs.iter().all(|c| c.grid.shared + DECLARED <= BLOCK.shared),
                        "{d:?}"
                    );
                    used.insert(configs[0].tile);
                    used.insert(convolution(&d, gradient, two_inputs, Block { warpgroups: true, ..BLOCK })[0].tile);
                }
                let pixels = d.n * d.h_out * d.w_out;
                for WeightConfig { split_k, grid, .. } in weight_gradient(&d) {
                    assert!(
                        grid.blocks[2] <= 65_535 && pixels.div_ceil(split_k) <= LONGEST_SUM + STAGE,
                        "{d:?}: {grid:?}"
                    );
                }
            }
        }
        // 64 channels to 16 happen in networks that were shrunk.
        assert!(used.len() + 1 >= TILES.len(), "tiles that no network uses: only {used:?} are");
    }

    /// In the wide layers of a wide network two blocks share a multiprocessor.
    #[test]
    fn wide_layers_leave_room_for_two_blocks() {
        for d in resnet18_convolutions(128, 64) {
            for (gradient, warpgroups) in [(false, false), (true, false), (false, true), (true, true)] {
                let config = convolution(&d, gradient, true, Block { warpgroups, ..BLOCK })[0];
                assert!(2 * (config.grid.shared + DECLARED + RESERVED) <= SHARED, "{d:?}: {config:?}");
            }
        }
    }

    #[test]
    fn an_input_tile_holds_what_any_tile_reaches() {
        for (shape, k, stride, pad) in [
            ([3, 8, 9, 7], 3, 1, 1),
            ([5, 8, 5, 5], 5, 2, 2),
            ([2, 8, 40, 33], 3, 3, 0),
            ([40, 8, 2, 2], 1, 1, 0),
            ([2, 8, 12, 30], 3, 1, 2),
        ] {
            let d = Conv2dDims::new(shape, 8, k, stride, pad).unwrap();
            let c = ConvGeometry::of(&d, false);
            for size in [PIXELS, 2 * PIXELS] {
                let largest = (0..c.pixels().div_ceil(size)).map(|tile| {
                    let pixels = tile * size..((tile + 1) * size).min(c.pixels());
                    let rows: Vec<u32> = pixels
                        .flat_map(|pixel| {
                            let (image, top) =
                                (pixel / (c.rows * c.cols), pixel % (c.rows * c.cols) / c.cols * d.stride);
                            (0..d.k).filter_map(move |tap| {
                                let row = (top + tap).checked_sub(d.pad).filter(|row| *row < d.h_in)?;
                                Some(image * d.h_in + row)
                            })
                        })
                        .collect();
                    rows.iter().max().unwrap() + 1 - rows.iter().min().unwrap()
                });
                let needed = largest.max().unwrap() * d.w_in;
                let reached = c.input_tile(size);
                assert!((needed..=needed + 2 * d.w_in).contains(&reached), "{d:?}: {reached} of {needed}");
            }
        }
    }
}
