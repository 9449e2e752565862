//! Launch sizes of every kernel but the convolutions in bf16 (`bf16/tiles.rs`). Tiles of products come from
//! `kernels/f32/gemm_tiles.cuh`; other sizes that a kernel's text fixes (`__launch_bounds__`) are repeated here and must agree with
//! it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::thread::LocalKey;

use crate::backend::cuda::runtime::kernel::Grid;
use crate::base::dims::{ChannelDims, Conv2dDims, LinearDims, LogitDims};

/// Threads of a block of kernels that go over elements.
const ELEMENTS: u32 = 256;
/// Most blocks of such a kernel: enough to fill any GPU; each block goes on to further elements.
const ELEMENT_BLOCKS: u32 = 2048;

/// For a kernel of which each thread handles `per_thread` of `n` elements at a time.
pub fn elements(n: usize, per_thread: usize) -> Grid {
    let blocks = n.div_ceil(ELEMENTS as usize * per_thread).clamp(1, ELEMENT_BLOCKS as usize);
    Grid::line(blocks as u32, ELEMENTS)
}

// ---- optim, attacks, prune and images

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

/// A block for each of the `n` images of an attack in one launch on a LeNet with `sizes`: filters of conv1 and of conv2, hidden
/// units, classes. `None` where what a block keeps does not fit in `shared` bytes, the gradient of conv2's input has more 2×2
/// windows than the block has threads, or there are more classes than lanes in a warp.
pub fn lenet_attack(n: u32, sizes: [u32; 4], shared: u32) -> Option<Grid> {
    let [c1, c2, f1, classes] = sizes.map(u64::from);
    // A filter's 25 weights take 28 places.
    let weights = 28 * c1 + c1 + 28 * c1 * c2 + c2 + 49 * c2 * f1 + f1 + f1 * classes + classes;
    // The padded image, room for scattered gradients, activations; the argmax indices of the poolings are bytes.
    let activations = 32 * 32 + 2 * 32 * 32 + 18 * 18 * c1 + 49 * c2 + f1 + 2 * classes;
    let bytes = 4 * (weights + activations) + 196 * c1 + 49 * c2;
    // Beside it there is what the kernel declares.
    let fits = bytes + 1024 <= u64::from(shared) && 49 * c1 <= u64::from(ELEMENTS) && classes <= 32;
    fits.then(|| Grid { shared: bytes as u32, ..Grid::line(n, ELEMENTS) })
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
/// is one; the others are split as finely as it takes for 256 blocks.
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
/// blocks on each multiprocessor, because each leaves partial sums.
pub fn pixels_bf16(d: &ChannelDims) -> Grid {
    let (vec8s, threads) = (d.c.div_ceil(8), CHANNEL as u32);
    let at_once = threads / vec8s.min(threads);
    let blocks = (d.n * d.hw).div_ceil(4 * at_once).min(4 * PROCESSORS as u32);
    Grid { blocks: [blocks, vec8s.div_ceil(threads), 1], threads, shared: 0 }
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
pub fn metrics() -> Grid {
    Grid::line(1, 32)
}

// ---- conv and linear

/// Multiprocessors of the GPU that tiles are chosen for. On another one they give the same results, a little later.
pub const PROCESSORS: usize = 132;
/// Clock cycles that a k-slice takes at least beside its instructions, and those that it takes to add up the partial sums of a
/// split-K product.
const SLICE_LATENCY: usize = 250;
const SUM_LATENCY: usize = 5000;
/// Bytes that a GPU's memory moves in a cycle.
const BYTES_A_CYCLE: usize = 2500;
/// Longest sum of f32 products in a row; rounding errors grow with it.
const LONGEST_SUM: usize = 2560;
/// Most blocks that share a sum.
const MOST_SPLITS: usize = 4096;

/// A tile of a matrix product: a row of `kernels/f32/gemm_tiles.cuh`.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// The end of its kernel's name.
    pub name: &'static str,
    /// The kernel size of the convolutions that it is for; 0 for any, and for what is no convolution.
    kernel_size: u32,
    rows: usize,
    cols: usize,
    /// Terms of the sum that lie in shared memory at a time.
    depth: usize,
    threads: u32,
    /// Cycles of a multiprocessor that is full of such blocks, for a k-slice of one of them.
    cycles: usize,
}

/// A row of a list of tiles; launch bounds and registers concern the kernels only.
#[allow(clippy::too_many_arguments)]
const fn tile(
    name: &'static str,
    rows: usize,
    cols: usize,
    depth: usize,
    thread_rows: usize,
    thread_cols: usize,
    _min_blocks: u32,
    _registers: u32,
    cycles: usize,
) -> Tile {
    let threads = ((rows / thread_rows) * (cols / thread_cols)) as u32;
    Tile { name, kernel_size: 0, rows, cols, depth, threads, cycles }
}

/// Reads a list of tiles as the build script has written it: an array of calls of `tile`.
macro_rules! tiles {
    ($list:literal) => {
        &include!(concat!(env!("OUT_DIR"), "/", $list, ".rs"))
    };
}
pub(in crate::backend::cuda) use tiles;

/// Tiles of channels by pixels, forwards and in an input gradient.
pub const CONV_TILES: &[Tile] = {
    #[allow(clippy::too_many_arguments)]
    const fn tile(
        name: &'static str,
        kernel_size: u32,
        rows: usize,
        cols: usize,
        depth: usize,
        thread_rows: usize,
        thread_cols: usize,
        min_blocks: u32,
        registers: u32,
        cycles: usize,
    ) -> Tile {
        let tile =
            super::tuning::tile(name, rows, cols, depth, thread_rows, thread_cols, min_blocks, registers, cycles);
        Tile { kernel_size, ..tile }
    }
    tiles!("f32_conv_tiles")
};
/// Of filters by their weights.
pub const CONV_BWD_WEIGHT_TILES: &[Tile] = tiles!("f32_conv_bwd_weight_tiles");
/// Of samples by outputs.
pub const LINEAR_FWD_TILES: &[Tile] = tiles!("f32_linear_fwd_tiles");
/// Of samples by inputs.
pub const LINEAR_BWD_INPUT_TILES: &[Tile] = tiles!("f32_linear_bwd_input_tiles");
/// Of outputs by inputs.
pub const LINEAR_BWD_WEIGHT_TILES: &[Tile] = tiles!("f32_linear_bwd_weight_tiles");

/// How the blocks of a launch share a product of `rows` by `cols` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileConfig {
    /// Which of the list's tiles.
    pub tile: usize,
    /// Blocks that share a sum. If there is more than one, the kernel's result is that many partial sums, one after the
    /// other.
    pub split_k: u32,
    pub grid: Grid,
}

/// Results that a thread keeps.
pub type Remembered<K, V> = RefCell<HashMap<K, V>>;

/// The result of `f`, computed once for each `key`: every step asks the same for every layer.
pub fn remembered<K: Eq + Hash, V: Clone>(
    before: &'static LocalKey<Remembered<K, V>>,
    key: K,
    f: impl FnOnce() -> V,
) -> V {
    before.with_borrow_mut(|before| before.entry(key).or_insert_with(f).clone())
}

/// Size of a matrix product, of which `repeats` run side by side: `rows` by `cols` sums of `terms` terms.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Product {
    rows: usize,
    cols: usize,
    terms: usize,
    repeats: usize,
}

/// The fastest way to compute a product with one of the tiles for this kernel size.
fn config(tiles: &'static [Tile], kernel_size: u32, product: Product) -> TileConfig {
    thread_local! { static CONFIGS: Remembered<(*const Tile, u32, Product), TileConfig> = RefCell::default(); }
    remembered(&CONFIGS, (tiles.as_ptr(), kernel_size, product), || {
        let mut best: Option<(usize, TileConfig)> = None;
        for (index, tile) in tiles.iter().enumerate().filter(|(_, tile)| tile.kernel_size == kernel_size) {
            for wanted in (0..=12).flat_map(|log| [1 << log, 3 << log]) {
                let (cost, split_k, grid) = cost(tile, product, wanted);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, TileConfig { tile: index, split_k, grid }));
                }
            }
        }
        best.expect("a list has tiles for every kernel size").1
    })
}

/// What a tile costs if about `wanted` blocks share a sum, how many then do, and its launch. It is a rough model: a block alone
/// waits for memory at every k-slice, several on one multiprocessor share its instructions, and adding up partial sums is a
/// launch more.
fn cost(tile: &Tile, product: Product, wanted: usize) -> (usize, u32, Grid) {
    let Product { rows, cols, terms, repeats } = product;
    let blocks = rows.div_ceil(tile.rows) * cols.div_ceil(tile.cols);
    let slices = terms.div_ceil(tile.depth).max(1);
    // As many blocks as have k-slices.
    let each = slices.div_ceil(wanted).min(LONGEST_SUM / tile.depth).max(slices.div_ceil(MOST_SPLITS));
    let split_k = slices.div_ceil(each);
    let together = (blocks * split_k * repeats).div_ceil(PROCESSORS);
    let sum = match split_k {
        1 => 0,
        _ => SUM_LATENCY + 4 * (split_k + 1) * rows * cols * repeats / BYTES_A_CYCLE + 6 * split_k,
    };
    let cost = each * (SLICE_LATENCY + tile.cycles).max(together * tile.cycles) + sum;
    let grid = Grid { blocks: [blocks as u32, (split_k * repeats) as u32, 1], threads: tile.threads, shared: 0 };
    (cost, split_k as u32, grid)
}

/// The kernel size whose tiles a convolution takes: its own, or 0 where there are none for it.
fn kernel_size_of_tiles(k: u32) -> u32 {
    if CONV_TILES.iter().any(|tile| tile.kernel_size == k) { k } else { 0 }
}

/// Terms of a sum over `channels` and `taps`, with those that only fill a k-slice of channels of one tap.
fn conv_terms(kernel_size: u32, channels: u32, taps: u32) -> usize {
    let channels = if kernel_size == 0 { channels.next_multiple_of(16) } else { channels };
    channels as usize * taps as usize
}

/// Channels by pixels.
pub fn conv2d_fwd(d: &Conv2dDims) -> TileConfig {
    let size = kernel_size_of_tiles(d.k);
    let cols = d.n as usize * d.h_out as usize * d.w_out as usize;
    let terms = conv_terms(size, d.c_in, d.k * d.k);
    config(CONV_TILES, size, Product { rows: d.c_out as usize, cols, terms, repeats: 1 })
}

/// Channels by the pixels of a phase, for each of stride² phases.
pub fn conv2d_bwd_input(d: &Conv2dDims) -> TileConfig {
    let size = if d.stride == 1 { kernel_size_of_tiles(d.k) } else { 0 };
    let cols = d.n as usize * d.h_in.div_ceil(d.stride) as usize * d.w_in.div_ceil(d.stride) as usize;
    let terms = conv_terms(size, d.c_out, d.k.div_ceil(d.stride).pow(2));
    config(CONV_TILES, size, Product { rows: d.c_in as usize, cols, terms, repeats: d.stride.pow(2) as usize })
}

/// Filters by their weights.
pub fn conv2d_bwd_weight(d: &Conv2dDims) -> TileConfig {
    let (cols, terms) = (d.c_in * d.k * d.k, d.n as usize * d.h_out as usize * d.w_out as usize);
    let product = Product { rows: d.c_out as usize, cols: cols as usize, terms, repeats: 1 };
    config(CONV_BWD_WEIGHT_TILES, 0, product)
}

fn linear(tiles: &'static [Tile], rows: u32, cols: u32, terms: u32) -> TileConfig {
    config(tiles, 0, Product { rows: rows as usize, cols: cols as usize, terms: terms as usize, repeats: 1 })
}

/// Samples by outputs.
pub fn linear_fwd(d: &LinearDims) -> TileConfig {
    linear(LINEAR_FWD_TILES, d.n, d.f_out, d.f_in)
}

/// Samples by inputs.
pub fn linear_bwd_input(d: &LinearDims) -> TileConfig {
    linear(LINEAR_BWD_INPUT_TILES, d.n, d.f_in, d.f_out)
}

/// Outputs by inputs.
pub fn linear_bwd_weight(d: &LinearDims) -> TileConfig {
    linear(LINEAR_BWD_WEIGHT_TILES, d.f_out, d.f_in, d.n)
}

/// For adding up `split_k` partial sums of `len` elements; and how many threads share an element.
pub fn sum_partials(len: usize, split_k: u32) -> (Grid, u32) {
    let threads = 256;
    // Few elements of many partial sums would keep few threads busy for long.
    let groups = (split_k / 4).min((131_072 / len.max(1)) as u32).clamp(1, 32);
    let groups = 1 << groups.ilog2();
    let blocks = len.div_ceil((threads / groups) as usize).clamp(1, ELEMENT_BLOCKS as usize);
    (Grid::line(blocks as u32, threads), groups)
}

/// How blocks share the sums of a bias's gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasConfig {
    /// Channels of one element, 32 a block.
    Columns(Grid),
    /// A block for each channel and for each of `splits` shares of its images; so many threads share a row of pixels.
    Rows { grid: Grid, lanes: u32, splits: u32 },
}

/// About 1024 blocks, if each has 2048 elements to add.
pub fn bias_bwd(d: &ChannelDims) -> BiasConfig {
    if d.hw == 1 {
        return BiasConfig::Columns(Grid::line(d.c.div_ceil(32), 1024));
    }
    let most = (u64::from(d.n) * u64::from(d.hw) / 2048).clamp(1, u64::from(d.n)) as u32;
    let splits = (1024 / d.c).clamp(1, most);
    let lanes = if d.hw.is_multiple_of(4) { d.hw / 4 } else { d.hw }.next_power_of_two().min(256);
    BiasConfig::Rows { grid: Grid { blocks: [d.c, splits, 1], threads: 256, shared: 0 }, lanes, splits }
}

/// A thread for each channel.
pub fn bias_bwd_finish(c: u32) -> Grid {
    Grid::line(c.div_ceil(128), 128)
}

/// The convolutions of a ResNet-18 whose first stage has `c` channels, for a batch of `n`; each stage has a shortcut.
#[cfg(test)]
pub fn resnet18_convolutions(n: usize, c: usize) -> Vec<Conv2dDims> {
    let conv = |c_in, side, c_out, k: usize, stride| {
        Conv2dDims::new([n, c_in, side, side], c_out, k, stride, k / 2).expect("fits")
    };
    let mut all = vec![conv(3, 32, c, 3, 1)];
    for (stage, side) in [32, 32, 16, 8].into_iter().enumerate() {
        let (c_in, c_out) = (c << stage.saturating_sub(1), c << stage);
        let stride = if stage == 0 { 1 } else { 2 };
        let within = conv(c_out, side / stride, c_out, 3, 1);
        all.extend([conv(c_in, side, c_out, 3, stride), conv(c_in, side, c_out, 1, stride), within]);
    }
    all
}
