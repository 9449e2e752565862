//! Launch sizes of every kernel. What is fixed in a kernel's text (tiles, `__launch_bounds__`) is repeated here and must
//! agree with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::thread::LocalKey;

use crate::backend::cuda::runtime::kernel::Grid;
use crate::base::dims::{ChannelDims, Conv2dDims, LeNetDims, LinearDims, LogitDims};

/// Threads of a block of kernels that go over elements.
const ELEMENTS: u32 = 256;
/// Most blocks of such a kernel: enough to fill any GPU; each block goes on to further elements.
const ELEMENT_BLOCKS: u32 = 2048;

/// For a kernel of which each thread handles `per_thread` of `n` elements at a time.
pub fn elements(n: usize, per_thread: usize) -> Grid {
    let blocks = n.div_ceil(ELEMENTS as usize * per_thread).clamp(1, ELEMENT_BLOCKS as usize);
    Grid::line(blocks as u32, ELEMENTS)
}

// ---- optim, perturb, prune and images

/// Elements of a parameter that a block of an optimiser's step updates.
pub const UPDATES: u32 = 4 * ELEMENTS;

/// For so many blocks of an optimiser's step, or of a selection.
pub fn blocks(count: u32) -> Grid {
    Grid::line(count, ELEMENTS)
}

/// For kernels that gather `n` images: a row of blocks of 1024 pixels for each.
pub fn images(n: usize, features: usize) -> Grid {
    Grid { blocks: [n as u32, features.div_ceil(1024) as u32, 1], threads: ELEMENTS, shared: 0 }
}

/// For kernels that go over the pixels of `n` images: blocks of 1024 pixels for each, as many as CUDA allows.
pub fn pixels(n: usize, features: usize) -> Grid {
    Grid { blocks: [n as u32, features.div_ceil(1024).min(65_535) as u32, 1], threads: ELEMENTS, shared: 0 }
}

/// A block for each image.
pub fn whole_images(n: usize) -> Grid {
    Grid::line(n as u32, ELEMENTS)
}

/// A block for each row.
pub fn row_norms(rows: usize) -> Grid {
    Grid::line(rows as u32, ELEMENTS)
}

/// A block for 32 columns.
pub fn column_norms(cols: usize) -> Grid {
    Grid::line(cols.div_ceil(32) as u32, ELEMENTS)
}

/// Blocks that share a tensor of `n` elements in a selection, 16384 each, and at least one: a block that counts more of them has
/// fewer bins to add to the others'.
pub fn selection_shares(n: usize) -> u32 {
    n.div_ceil(16_384).max(1) as u32
}

/// A block for each of the three norms of an ADMM update.
pub fn admm_norms() -> Grid {
    Grid::line(3, ELEMENTS)
}

/// A block for each image of an attack in one launch; `None` where what a block keeps does not fit in `shared` bytes, the
/// gradient of conv2's input has more pieces than the block has threads, or there are more classes than lanes in a warp.
pub fn lenet_attack(d: &LeNetDims, shared: u32) -> Option<Grid> {
    let [c1, c2, f1, classes] = [d.c1, d.c2, d.f1, d.classes].map(u64::from);
    // A filter's 25 weights take 28 places.
    let weights = 28 * c1 + c1 + 28 * c1 * c2 + c2 + 49 * c2 * f1 + f1 + f1 * classes + classes;
    // The padded image, room for spread gradients, activations; the winners of the poolings are bytes.
    let activations = 32 * 32 + 2 * 32 * 32 + 18 * 18 * c1 + 49 * c2 + f1 + 2 * classes;
    let bytes = 4 * (weights + activations) + 196 * c1 + 49 * c2;
    // Beside it there is what the kernel declares.
    let fits = bytes + 1024 <= u64::from(shared) && 49 * c1 <= u64::from(ELEMENTS) && classes <= 32;
    fits.then(|| Grid { shared: bytes as u32, ..Grid::line(d.n, ELEMENTS) })
}

// ---- norm, pool and loss

/// Threads of a block of the normalisation's kernels.
const CHANNEL: usize = 256;
/// Threads of a block of `channel_stats`, and the most values that one keeps.
const STATS: (usize, usize) = (512, 16);
/// Threads of a block of the losses, which is alone.
const LOSS: u32 = 1024;

/// Pixels of a channel, and how many of them a kernel of normalisation takes at a time.
fn channel(d: &ChannelDims) -> (usize, usize) {
    (d.n as usize * d.hw as usize, if d.hw.is_multiple_of(4) { 4 } else { 1 })
}

/// Blocks in x for each channel in y: up to 16 pixels a thread, but fewer as long as there are less than 1024 blocks.
pub fn channels(d: &ChannelDims) -> Grid {
    let (pixels, width) = channel(d);
    let rounds = pixels.div_ceil(CHANNEL * width);
    let per_thread = (rounds * d.c as usize / 1024).clamp(1, 16 / width);
    Grid { blocks: [rounds.div_ceil(per_thread) as u32, d.c, 1], threads: CHANNEL as u32, shared: 0 }
}

/// The same for `channel_stats`, and the values that a thread keeps, a multiple of four. A channel that fits in a block
/// is one; the others are cut as finely as it takes for 256 blocks.
pub fn channel_stats(d: &ChannelDims) -> (Grid, u32) {
    let (threads, most) = STATS;
    let (pixels, _) = channel(d);
    let whole = pixels.div_ceil(threads).next_multiple_of(4);
    let fine = pixels * d.c as usize / (256 * threads) / 4 * 4;
    let values = if whole <= most { whole } else { fine.clamp(4, most) };
    let grid = Grid { blocks: [pixels.div_ceil(threads * values) as u32, d.c, 1], threads: threads as u32, shared: 0 };
    (grid, values as u32)
}

/// A warp per channel.
pub fn channel_warps(c: u32) -> Grid {
    Grid::line(c.div_ceil(128 / 32), 128)
}

/// Threads that share a plane: enough for its float4s, at most a warp.
pub fn avg_pool(d: &ChannelDims) -> (Grid, u32) {
    let (_, width) = channel(d);
    let group = (d.hw as usize / width).next_power_of_two().min(32);
    (elements(d.n as usize * d.c as usize * group, 1), group as u32)
}

/// For kernels of which a thread keeps to eight channels of each of its pixels: about four pixels a thread, and at most four
/// blocks on each multiprocessor, because each leaves a part of its sums.
pub fn pixels_bf16(d: &ChannelDims) -> Grid {
    let (pieces, threads) = (d.c.div_ceil(8), CHANNEL as u32);
    let at_once = threads / pieces.min(threads);
    let blocks = (d.n * d.hw).div_ceil(4 * at_once).min(4 * PROCESSORS as u32);
    Grid { blocks: [blocks, pieces.div_ceil(threads), 1], threads, shared: 0 }
}

/// For packing `count` weights, the largest of which has `len` elements in either order.
pub fn pack_weights(len: usize, count: usize) -> Grid {
    let blocks = len.div_ceil(4 * CHANNEL).clamp(1, 4 * PROCESSORS);
    Grid { blocks: [blocks as u32, count as u32, 1], threads: CHANNEL as u32, shared: 0 }
}

/// Threads that share a plane of eight channels.
pub fn avg_pool_bf16(d: &ChannelDims) -> (Grid, u32) {
    let (lanes, threads) = (d.hw.next_power_of_two().min(32), CHANNEL as u32);
    (Grid { blocks: [d.n, d.c.div_ceil(8).div_ceil(threads / lanes), 1], threads, shared: 0 }, lanes)
}

/// One block: it adds up a batch.
pub fn loss() -> Grid {
    Grid::line(1, LOSS)
}

/// A warp per sample.
pub fn predictions(d: &LogitDims) -> Grid {
    elements(d.n as usize * 32, 1)
}

/// One thread of one warp.
pub fn tally() -> Grid {
    Grid::line(1, 32)
}

// ---- conv and linear

/// Multiprocessors of the GPU that the products are cut for. On another one they give the same results, a little later.
const PROCESSORS: usize = 132;
/// Clock cycles that a slab takes at least beside its instructions, and those that it takes to add up parts of a sum.
const SLAB_LATENCY: usize = 250;
const SUM_LATENCY: usize = 5000;
/// Bytes that a GPU's memory moves in a cycle.
const BYTES_A_CYCLE: usize = 2500;
/// Longest sum of f32 products in a row; rounding errors grow with it.
const LONGEST_SUM: usize = 2560;
/// Most parts of a sum.
const MOST_PARTS: usize = 4096;

/// A tile of a product in `kernels/`: the smallest piece that a block computes.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    rows: usize,
    cols: usize,
    /// Terms of the sum that lie in shared memory at a time.
    slab: usize,
    threads: u32,
    /// Cycles of a multiprocessor that is full of such blocks, for a slab of one of them: instructions of the inner loop
    /// times warps, by four.
    cycles: usize,
}

const fn tile(rows: usize, cols: usize, slab: usize, threads: u32, cycles: usize) -> Tile {
    Tile { rows, cols, slab, threads, cycles }
}

/// How a product of `rows` by `cols` elements is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which of the tiles.
    pub tile: usize,
    /// Blocks that share a sum. If there is more than one, the kernel's result are the parts, one after the other.
    pub parts: u32,
    pub grid: Grid,
}

/// What a thread has found out before.
pub type Remembered<K, V> = RefCell<HashMap<K, V>>;

/// What `f` says, found out once for each `key`: every step asks the same for every layer.
pub fn remembered<K: Eq + Hash, V: Clone>(
    before: &'static LocalKey<Remembered<K, V>>,
    key: K,
    f: impl FnOnce() -> V,
) -> V {
    before.with_borrow_mut(|before| before.entry(key).or_insert_with(f).clone())
}

/// The fastest cut of sums of `terms` terms; `repeats` of the product run side by side.
fn cut(tiles: &'static [Tile], rows: usize, cols: usize, terms: usize, repeats: usize) -> Cut {
    thread_local! { static CUTS: Remembered<(*const Tile, [usize; 4]), Cut> = RefCell::default(); }
    let key = (tiles.as_ptr(), [rows, cols, terms, repeats]);
    remembered(&CUTS, key, || fastest(tiles, rows, cols, terms, repeats))
}

/// By a rough model: a block alone waits for memory at every slab, several on one multiprocessor share its instructions, and
/// adding up parts is a launch more.
fn fastest(tiles: &[Tile], rows: usize, cols: usize, terms: usize, repeats: usize) -> Cut {
    let cost_of = |index: usize, wanted: usize| {
        let tile = &tiles[index];
        let blocks = rows.div_ceil(tile.rows) * cols.div_ceil(tile.cols);
        let slabs = terms.div_ceil(tile.slab).max(1);
        // As many parts as have slabs.
        let each = slabs.div_ceil(wanted).min(LONGEST_SUM / tile.slab).max(slabs.div_ceil(MOST_PARTS));
        let parts = slabs.div_ceil(each);
        let together = (blocks * parts * repeats).div_ceil(PROCESSORS);
        let sum = match parts {
            1 => 0,
            _ => SUM_LATENCY + 4 * (parts + 1) * rows * cols * repeats / BYTES_A_CYCLE + 6 * parts,
        };
        let cost = each * (SLAB_LATENCY + tile.cycles).max(together * tile.cycles) + sum;
        let grid = Grid { blocks: [blocks as u32, (parts * repeats) as u32, 1], threads: tile.threads, shared: 0 };
        (cost, Cut { tile: index, parts: parts as u32, grid })
    };
    let mut best = cost_of(0, 1);
    for index in 0..tiles.len() {
        for wanted in (0..=12).flat_map(|log| [1 << log, 3 << log]) {
            let other = cost_of(index, wanted);
            if other.0 < best.0 {
                best = other;
            }
        }
    }
    best.1
}

/// Which kernels of a convolution: those for 3×3 and 5×5 taps, or those for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taps {
    K3,
    K5,
    Any,
}

impl Taps {
    /// Tiles of channels by pixels, in the order of the kernels.
    const fn tiles(self) -> &'static [Tile] {
        const K3: &[Tile] = &[
            tile(8, 128, 18, 128, 285),
            tile(16, 128, 18, 128, 433),
            tile(32, 128, 18, 128, 768),
            tile(64, 128, 18, 128, 1374),
        ];
        const K5: &[Tile] = &[tile(8, 128, 25, 128, 358), tile(32, 128, 25, 128, 1034), tile(64, 128, 25, 128, 1880)];
        const ANY: &[Tile] = &[tile(8, 128, 16, 128, 277), tile(32, 128, 16, 128, 714), tile(64, 128, 16, 128, 1250)];
        match self {
            Taps::K3 => K3,
            Taps::K5 => K5,
            Taps::Any => ANY,
        }
    }

    fn of(k: u32) -> Self {
        match k {
            3 => Taps::K3,
            5 => Taps::K5,
            _ => Taps::Any,
        }
    }

    /// Terms of a sum over `channels` and `taps`, with those that only fill slabs.
    fn terms(self, channels: u32, taps: u32) -> usize {
        let channels = if self == Taps::Any { channels.next_multiple_of(16) } else { channels };
        channels as usize * taps as usize
    }
}

/// Channels by pixels.
pub fn conv2d_fwd(d: &Conv2dDims) -> (Taps, Cut) {
    let taps = Taps::of(d.k);
    let pixels = d.n as usize * d.h_out as usize * d.w_out as usize;
    (taps, cut(taps.tiles(), d.c_out as usize, pixels, taps.terms(d.c_in, d.k * d.k), 1))
}

/// Channels by the pixels of a phase, for each of stride² phases.
pub fn conv2d_bwd_input(d: &Conv2dDims) -> (Taps, Cut) {
    let taps = if d.stride == 1 { Taps::of(d.k) } else { Taps::Any };
    let pixels = d.n as usize * d.h_in.div_ceil(d.stride) as usize * d.w_in.div_ceil(d.stride) as usize;
    let terms = taps.terms(d.c_out, d.k.div_ceil(d.stride).pow(2));
    (taps, cut(taps.tiles(), d.c_in as usize, pixels, terms, d.stride.pow(2) as usize))
}

/// Filters by their weights.
pub fn conv2d_bwd_weight(d: &Conv2dDims) -> Cut {
    const TILES: &[Tile] = &[tile(8, 64, 32, 64, 408), tile(32, 64, 16, 128, 497), tile(64, 128, 8, 128, 724)];
    let (weights, pixels) = (d.c_in * d.k * d.k, d.n as usize * d.h_out as usize * d.w_out as usize);
    cut(TILES, d.c_out as usize, weights as usize, pixels, 1)
}

/// Samples by outputs.
pub fn linear_fwd(d: &LinearDims) -> Cut {
    const TILES: &[Tile] = &[tile(32, 16, 16, 128, 168), tile(64, 64, 16, 128, 662)];
    cut(TILES, d.n as usize, d.f_out as usize, d.f_in as usize, 1)
}

/// Samples by inputs.
pub fn linear_bwd_input(d: &LinearDims) -> Cut {
    const TILES: &[Tile] = &[tile(32, 32, 16, 128, 227), tile(64, 64, 16, 128, 671)];
    cut(TILES, d.n as usize, d.f_in as usize, d.f_out as usize, 1)
}

/// Outputs by inputs.
pub fn linear_bwd_weight(d: &LinearDims) -> Cut {
    const TILES: &[Tile] = &[tile(16, 64, 16, 128, 251), tile(64, 64, 16, 128, 658)];
    cut(TILES, d.f_out as usize, d.f_in as usize, d.n as usize, 1)
}

/// For adding up `parts` of `len` elements; and how many threads share an element.
pub fn sum_partials(len: usize, parts: u32) -> (Grid, u32) {
    let threads = 256;
    // Few elements of many parts would keep few threads busy for long.
    let groups = (parts / 4).min((131_072 / len.max(1)) as u32).clamp(1, 32);
    let groups = 1 << groups.ilog2();
    let blocks = len.div_ceil((threads / groups) as usize).clamp(1, ELEMENT_BLOCKS as usize);
    (Grid::line(blocks as u32, threads), groups)
}

/// How the sums of a bias's gradient are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasCut {
    /// Channels of one element, 32 a block.
    Columns(Grid),
    /// A block for a channel, or for each of `parts` of its images; so many threads share a row of pixels.
    Rows { grid: Grid, lanes: u32, parts: u32 },
}

/// About 1024 blocks, if each has 2048 elements to add.
pub fn bias_bwd(d: &ChannelDims) -> BiasCut {
    if d.hw == 1 {
        return BiasCut::Columns(Grid::line(d.c.div_ceil(32), 1024));
    }
    let most = (u64::from(d.n) * u64::from(d.hw) / 2048).clamp(1, u64::from(d.n)) as u32;
    let parts = (1024 / d.c).clamp(1, most);
    let lanes = if d.hw.is_multiple_of(4) { d.hw / 4 } else { d.hw }.next_power_of_two().min(256);
    BiasCut::Rows { grid: Grid { blocks: [d.c, parts, 1], threads: 256, shared: 0 }, lanes, parts }
}

/// A thread for each channel.
pub fn bias_bwd_finish(c: u32) -> Grid {
    Grid::line(c.div_ceil(128), 128)
}
