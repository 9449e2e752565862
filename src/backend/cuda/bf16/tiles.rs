//! How convolutions on tensor cores are cut. What is fixed in `kernels/bf16/conv.cu` is repeated here and must agree with it.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::fmt;
use std::rc::Rc;

use super::VEC8;
use crate::backend::cuda::runtime::kernel::Grid;
use crate::backend::cuda::tuning::{Remembered, remembered};
use crate::base::dims::Conv2dDims;

/// Threads of a block of a weight gradient.
const THREADS: u32 = 128;
/// Counters for blocks and groups of blocks.
pub const ARRIVALS: u32 = 1 << 16;
/// Taps that a correlation can have.
const MOST_TAPS: u32 = 32;
/// Multiprocessors that the products are cut for, the shared memory of one, and what a block takes of it beside what its launch
/// brings along: what the kernel declares, and what CUDA keeps for itself.
const PROCESSORS: u32 = 132;
const SHARED: u32 = 228 << 10;
const DECLARED: u32 = 1 << 10;
const RESERVED: u32 = 1 << 10;

/// A kernel of a correlation.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Channels of the image that lie in shared memory at a time.
    pub depth: u32,
    /// Channels of the result.
    pub channels: u32,
    /// Pixels of the result.
    pixels: u32,
    /// Taps of a stage of weights, and how many stages there are at a time.
    taps: u32,
    stages: u32,
    /// Whether a warpgroup, four warps, multiplies together where the GPU can (compute capability 9.0).
    warpgroup: bool,
}

/// As in the name of the kernel: `k64_c128`; `p256` if it has more pixels than others.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tile { depth, channels, pixels, warpgroup, .. } = self;
        write!(f, "k{depth}_c{channels}")?;
        if *pixels != PIXELS {
            write!(f, "_p{pixels}")?;
        }
        f.write_str(if *warpgroup { "_warpgroup" } else { "" })
    }
}

impl Tile {
    /// Threads of a block.
    fn threads(&self) -> u32 {
        if self.warpgroup { 256 } else { 128 }
    }

    /// Blocks that put together what they have of a channel before groups do.
    pub fn group(&self) -> u32 {
        if self.channels <= 16 { 512 } else { 64 }
    }

    /// Blocks that a multiprocessor has room for: registers, as the kernels' launch bounds say, and shared memory.
    pub fn resident(&self, shared: u32) -> u32 {
        let registers = match self {
            Tile { warpgroup: true, .. } | Tile { channels: 128, .. } => 2,
            Tile { channels: 64, .. } => 3,
            Tile { channels: 16, .. } | Tile { depth: 32, channels: 32, .. } => 4,
            Tile { pixels, .. } if *pixels != PIXELS => 4,
            _ => 5,
        };
        registers.min(SHARED / (shared + DECLARED + RESERVED))
    }
}

/// Pixels of most tiles.
const PIXELS: u32 = 128;

const fn tile(depth: u32, channels: u32, taps: u32, stages: u32) -> Tile {
    Tile { depth, channels, pixels: PIXELS, taps, stages, warpgroup: false }
}

/// With twice the pixels.
const fn tall(depth: u32, channels: u32, taps: u32, stages: u32) -> Tile {
    Tile { pixels: 2 * PIXELS, ..tile(depth, channels, taps, stages) }
}

const fn warpgroup(depth: u32, channels: u32, taps: u32, stages: u32) -> Tile {
    Tile { warpgroup: true, ..tile(depth, channels, taps, stages) }
}

/// In the order of the kernels.
pub const TILES: [Tile; 23] = [
    tile(8, 8, 10, 2),
    tile(8, 16, 10, 2),
    tile(8, 32, 10, 2),
    tile(8, 64, 10, 2),
    tile(16, 8, 5, 3),
    tile(16, 16, 5, 3),
    tile(16, 32, 5, 3),
    tile(16, 64, 5, 3),
    tile(32, 8, 3, 3),
    tile(32, 16, 3, 3),
    tile(32, 32, 3, 3),
    tile(32, 64, 3, 3),
    tile(64, 8, 3, 3),
    tile(64, 16, 3, 3),
    tile(64, 32, 1, 4),
    tile(64, 64, 1, 4),
    tile(64, 128, 1, 4),
    tall(8, 8, 10, 2),
    tall(8, 16, 10, 2),
    tall(16, 8, 5, 3),
    tall(16, 16, 5, 3),
    warpgroup(64, 64, 3, 2),
    warpgroup(64, 128, 1, 4),
];

/// A convolution or its input gradient, as `kernels/primitives/conv_geometry.cuh` has it; of a gradient the first phase, which has the
/// most pixels and taps.
#[derive(Clone, Copy)]
struct Correlation {
    n: u32,
    channels: u32,
    h: u32,
    w: u32,
    results: u32,
    rows: u32,
    cols: u32,
    step: u32,
    /// Row of the first tap of the first pixel, for each phase, and how many rows of taps there are.
    phases: u32,
    k: u32,
    stride: u32,
    pad: u32,
    gradient: bool,
}

impl Correlation {
    fn of(d: &Conv2dDims, gradient: bool) -> Self {
        let Conv2dDims { n, k, stride, pad, .. } = *d;
        let side = |pixels: u32| if gradient { pixels.div_ceil(stride) } else { pixels };
        let (image, result) = ([d.c_in, d.h_in, d.w_in], [d.c_out, d.h_out, d.w_out]);
        let ([channels, h, w], [results, rows, cols]) = if gradient { (result, image) } else { (image, result) };
        let phases = if gradient { stride } else { 1 };
        let step = if gradient { 1 } else { stride };
        Correlation {
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
    fn slab(&self, size: u32) -> u32 {
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

/// How a correlation is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Which of [`TILES`].
    pub tile: usize,
    /// Pixels of a slab of the image, and how many slabs lie in shared memory.
    pub slab: u32,
    pub buffers: u32,
    /// Pairs a channel that blocks, and groups of blocks, leave behind.
    pub parts: u32,
    pub grid: Grid,
}

/// What a block of a GPU has: bytes of shared memory, and whether its warpgroups multiply together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    pub shared: u32,
    pub warpgroups: bool,
}

/// Every way to cut the forward pass or the input gradient of what has one or `two_terms`, what should be fastest first; none
/// if no tile's slab fits a block.
pub fn correlate(d: &Conv2dDims, gradient: bool, two_terms: bool, block: Block) -> Rc<[Cut]> {
    thread_local! { static CUTS: Remembered<(Conv2dDims, bool, bool, Block), Rc<[Cut]>> = RefCell::default(); }
    remembered(&CUTS, (*d, gradient, two_terms, block), || cuts(d, gradient, two_terms, block).into())
}

fn cuts(d: &Conv2dDims, gradient: bool, two_terms: bool, block: Block) -> Vec<Cut> {
    if d.k * d.k > MOST_TAPS {
        return Vec::new();
    }
    let c = Correlation::of(d, gradient);
    let results = c.results.next_multiple_of(VEC8);
    let cut = |index: usize, tile: &Tile| {
        // Rows that are swizzled together begin at a multiple of eight.
        let slab = c.slab(tile.pixels).next_multiple_of(8);
        let buffers = c.channels.div_ceil(tile.depth).min(2);
        // The slabs and a row of zeros, the second term, the stages of weights; in their place, at the end, the result and sums.
        let rows = (buffers + u32::from(two_terms)) * slab + 8 + tile.stages * tile.taps * tile.channels;
        let tables = (MOST_TAPS * 8 + c.channels.next_multiple_of(VEC8) * 16).next_multiple_of(1024);
        let threads = tile.threads();
        let end = tile.pixels * tile.channels * 2 + ((threads / 32 + 1) * tile.channels * 4).max(threads * 8);
        let bytes = tables + (rows * tile.depth * 2).max(end);
        let tiles = c.pixels().div_ceil(tile.pixels);
        let blocks = tiles * results.div_ceil(tile.channels);
        let grid = Grid { blocks: [blocks, c.phases * c.phases, 1], threads, shared: bytes };
        let blocks_a_channel = tiles * c.phases * c.phases;
        let groups = blocks_a_channel.div_ceil(tile.group());
        let counted = results.div_ceil(tile.channels) * (groups + 1) <= ARRIVALS;
        let parts = blocks_a_channel + groups;
        (bytes + DECLARED <= block.shared && counted).then_some(Cut { tile: index, slab, buffers, parts, grid })
    };
    let narrow = |size: u32, most: u32| size.next_power_of_two().clamp(VEC8, most);
    // As deep as the image and as wide as the result, but so that nearly every multiprocessor gets a block, and room for two; with
    // more pixels only if that means fewer rounds of blocks. Warpgroups were faster in every layer that was measured on an H100
    // and is wide enough for them; where they do not multiply together their tiles only have smaller fragments.
    let wanted = |cut: &Cut| {
        let (tile, blocks) = (&TILES[cut.tile], cut.grid.blocks[0] * cut.grid.blocks[1]);
        let resident = tile.resident(cut.grid.shared);
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
    let fits = |tile: &Tile| tile.depth <= narrow(c.channels, 64) && tile.channels <= narrow(results, 128);
    let mut cuts: Vec<Cut> =
        TILES.iter().enumerate().filter(|(_, tile)| fits(tile)).filter_map(|(i, tile)| cut(i, tile)).collect();
    cuts.sort_by_key(|cut| Reverse(wanted(cut)));
    cuts
}

/// Filters and channels of the tiles of a weight gradient, in the order of the kernels.
pub const WEIGHT_TILES: [(u32, u32); 3] = [(16, 8), (32, 32), (64, 64)];

/// As in the name of the kernel: `c64`.
pub fn weight_tile_name(tile: usize) -> String {
    format!("c{}", WEIGHT_TILES[tile].1)
}

/// Pixels of a stage of a weight gradient; the most that a block adds up, because errors of the sum grow with it.
const STAGE: u32 = 64;
const LONGEST_SUM: u32 = 4096;

/// How a weight gradient is cut: which of [`WEIGHT_TILES`], and how many blocks share the pixels.
#[derive(Clone, Copy, Debug)]
pub struct WeightCut {
    pub tile: usize,
    pub parts: u32,
    pub grid: Grid,
}

/// Every way to cut a weight gradient, what should be fastest first.
pub fn weight_gradient(d: &Conv2dDims) -> Vec<WeightCut> {
    let (c_in, c_out) = (d.c_in.next_multiple_of(VEC8), d.c_out.next_multiple_of(VEC8));
    // A tile that is half empty does as many products as two of half its size.
    let fits = |&(filters, channels): &(u32, u32)| {
        filters <= c_out.next_power_of_two() && channels <= c_in.next_power_of_two()
    };
    let cut = |tile: usize| {
        let (filters, channels) = WEIGHT_TILES[tile];
        let (blocks, taps) = (c_in.div_ceil(channels) * c_out.div_ceil(filters), d.k * d.k);
        let pixels = d.n * d.h_out * d.w_out;
        let stages = pixels.div_ceil(STAGE);
        let wanted = (4 * PROCESSORS).div_ceil(blocks * taps).max(pixels.div_ceil(LONGEST_SUM));
        // As many as have stages.
        let parts = stages.div_ceil(stages.div_ceil(wanted));
        WeightCut { tile, parts, grid: Grid { blocks: [blocks, taps, parts], threads: THREADS, shared: 0 } }
    };
    (0..WEIGHT_TILES.len()).rev().filter(|&tile| tile == 0 || fits(&WEIGHT_TILES[tile])).map(cut).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::nn::models::{Architecture, Network, Operation};

    /// On a Hopper, but without its warpgroups.
    const BLOCK: Block = Block { shared: 227 << 10, warpgroups: false };

    /// The convolutions of a network for a batch of `n`.
    fn convolutions(network: Network, w: usize, n: usize) -> Vec<Conv2dDims> {
        let architecture = Architecture::new(network, w, 10).unwrap();
        let mut shapes = vec![network.input()];
        let mut found = Vec::new();
        for node in architecture.operations().unwrap() {
            let [c, h, width] = shapes[node.inputs[0]];
            shapes.push(match node.operation {
                Operation::Conv2d { weight, stride, pad, .. } => {
                    let spec = &architecture.params[weight].shape;
                    let d = Conv2dDims::new([n, c, h, width], spec[0], spec[3], stride, pad).unwrap();
                    found.push(d);
                    [spec[0], d.h_out as usize, d.w_out as usize]
                }
                Operation::MaxPool2d { k } => [c, h / k, width / k],
                _ => [c, h, width],
            });
        }
        found
    }

    pub fn resnet18(w: usize, n: usize) -> Vec<Conv2dDims> {
        convolutions(Network::ResNet18, w, n)
    }

    #[test]
    fn every_convolution_of_the_networks_is_cut() {
        let mut used = std::collections::BTreeSet::new();
        for network in [Network::LeNet, Network::LeNetCifar, Network::ResNet18, Network::Vgg16Bn] {
            for (w, n) in [(1, 128), (2, 50), (4, 128), (8, 512), (16, 128), (16, 1)] {
                for d in convolutions(network, w, n) {
                    for (gradient, two_terms) in [(false, false), (false, true), (true, true)] {
                        let cuts = correlate(&d, gradient, two_terms, BLOCK);
                        assert!(
                            !cuts.is_empty() && cuts.iter().all(|c| c.grid.shared + DECLARED <= BLOCK.shared),
                            "{d:?}"
                        );
                        used.insert(cuts[0].tile);
                        used.insert(correlate(&d, gradient, two_terms, Block { warpgroups: true, ..BLOCK })[0].tile);
                    }
                    let pixels = d.n * d.h_out * d.w_out;
                    for WeightCut { parts, grid, .. } in weight_gradient(&d) {
                        assert!(
                            grid.blocks[2] <= 65_535 && pixels.div_ceil(parts) <= LONGEST_SUM + STAGE,
                            "{d:?}: {grid:?}"
                        );
                    }
                }
            }
        }
        // 64 channels to 16 happen in networks that were shrunk.
        assert!(used.len() + 1 >= TILES.len(), "tiles that no network uses: only {used:?} are");
    }

    /// In the wide layers of a wide network two blocks share a multiprocessor.
    #[test]
    fn wide_layers_leave_room_for_two_blocks() {
        for d in resnet18(16, 128) {
            for (gradient, warpgroups) in [(false, false), (true, false), (false, true), (true, true)] {
                let cut = correlate(&d, gradient, true, Block { warpgroups, ..BLOCK })[0];
                assert!(2 * (cut.grid.shared + DECLARED + RESERVED) <= SHARED, "{d:?}: {cut:?}");
            }
        }
    }

    #[test]
    fn a_slab_holds_what_any_tile_reaches() {
        for (shape, k, stride, pad) in [
            ([3, 8, 9, 7], 3, 1, 1),
            ([5, 8, 5, 5], 5, 2, 2),
            ([2, 8, 40, 33], 3, 3, 0),
            ([40, 8, 2, 2], 1, 1, 0),
            ([2, 8, 12, 30], 3, 1, 2),
        ] {
            let d = Conv2dDims::new(shape, 8, k, stride, pad).unwrap();
            let c = Correlation::of(&d, false);
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
                let slab = c.slab(size);
                assert!((needed..=needed + 2 * d.w_in).contains(&slab), "{d:?}: {slab} of {needed}");
            }
        }
    }
}
