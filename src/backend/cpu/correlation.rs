//! Convolutions tap by tap, forward and input gradient. Both are cross-correlations of a padded input, and differ in their taps.

use super::jobs::{Conv2dPoolFwd, Correlate, PANEL, Packing};
use super::layout::arena::Storage;
use super::layout::sizes::{Padding, Sizes};
use super::pool::MaxIndices;
use super::{Buf, Cpu, LANES, Real, Work, blocks, lanes, lanes_mut};
use crate::backend::Activation;
use crate::base::maybe_owned::MaybeOwned;

/// Bytes of the padded rows that are copied at a time, in f32: they stay in the second-level cache while all channels use them.
const PIECE_BYTES: usize = 256 << 10;

/// Least rows of outputs of a piece: neighbouring pieces copy the same rows of the input.
const PIECE_ROWS: usize = 2;

/// A tap: where it falls in the padded input, and its weight for output channel 0.
struct Tap {
    channel: usize,
    row: usize,
    col: usize,
    w: usize,
}

/// The outputs `(row, col)`, `(row + stride, col)`, `(row, col + stride)` and so on, and the taps that reach them.
pub(super) struct Phase<T: Real> {
    row: usize,
    col: usize,
    /// Offsets of the taps into a piece.
    taps: Vec<u32>,
    /// Their weights, in panels of output channels.
    w: Storage<T>,
}

/// The plan of a layer's convolution in one of its directions, with the weights in the order in which it reads them.
pub(super) struct Correlation<T: Real> {
    input: Input,
    /// Output rows of a phase that a piece has the inputs of.
    pub(super) rows: usize,
    /// Output channels, and the size of an image of them.
    channels: usize,
    h: usize,
    w: usize,
    /// Outputs from one of a phase to the next.
    stride: usize,
    phases: Vec<Phase<T>>,
}

/// The input of a correlation, and how it lies in a piece: `[channels][rows][phases][cols]`. A phase has the columns that are `step`
/// apart, so that those of neighbouring outputs are neighbours. Rows and columns that no tap reaches are left out.
#[derive(Clone, Copy)]
struct Input {
    channels: usize,
    h: usize,
    w: usize,
    padding: [Padding; 2],
    /// Pixels from the input of an output to that of the next.
    step: usize,
    /// Rows that an output reaches, and columns where `step` is more than one.
    extent: usize,
    /// Rows of a piece.
    rows: usize,
}

impl Input {
    /// Of `step` neighbouring rows or columns, those that a tap reaches.
    fn reached(&self) -> usize {
        self.step.min(self.extent)
    }

    /// Columns of a phase.
    fn cols(&self) -> usize {
        (self.w + self.padding[1].before + self.padding[1].after).div_ceil(self.step)
    }

    /// Pixels of a row of a piece.
    fn width(&self) -> usize {
        self.reached() * self.cols()
    }

    /// Pixels of a piece.
    fn len(&self) -> usize {
        self.channels * self.rows * self.width()
    }

    /// Rows of a piece for so many rows of outputs.
    fn rows_for(&self, outputs: usize) -> usize {
        (outputs - 1) * self.reached() + self.extent
    }

    /// Whether a piece is the image itself.
    fn is_whole(&self) -> bool {
        self.step == 1 && self.padding == [Padding { before: 0, after: 0 }; 2]
    }

    fn offset(&self, tap: &Tap) -> u32 {
        let col = tap.col % self.step * self.cols() + tap.col / self.step;
        ((tap.channel * self.rows + tap.row) * self.width() + col) as u32
    }

    /// Copies the rows of `x`, an image, that the outputs from row `first` on need.
    fn fill<T: Real>(&self, x: &[[T; LANES]], first: usize, piece: &mut [[T; LANES]]) {
        let [rows, cols] = self.padding;
        for (i, to) in piece.chunks_exact_mut(self.width()).enumerate() {
            let (channel, row) = (i / self.rows, i % self.rows);
            let row = (first + row / self.reached()) * self.step + row % self.reached();
            if row < rows.before || row >= rows.before + self.h {
                to.fill([T::zero(); LANES]);
                continue;
            }
            let x = &x[(channel * self.h + row - rows.before) * self.w..][..self.w];
            for (phase, to) in to.chunks_exact_mut(self.cols()).enumerate() {
                // The first of the columns that lies in the image.
                let zeros = cols.before.saturating_sub(phase).div_ceil(self.step);
                let x = x.get(zeros * self.step + phase - cols.before..).unwrap_or_default();
                let (left, rest) = to.split_at_mut(zeros);
                let (middle, right) = rest.split_at_mut(x.len().div_ceil(self.step));
                left.fill([T::zero(); LANES]);
                if self.step == 1 {
                    middle.copy_from_slice(x);
                } else {
                    middle.iter_mut().zip(x.iter().step_by(self.step)).for_each(|(to, x)| *to = *x);
                }
                right.fill([T::zero(); LANES]);
            }
        }
    }
}

impl Sizes {
    /// The padding of the input and the taps of the forward pass in weight order.
    fn fwd_taps(&self) -> Vec<Tap> {
        let kk = self.k * self.k;
        let tap = |w: usize| Tap { channel: w / kk, row: w % kk / self.k, col: w % self.k, w };
        (0..self.c_in * kk).map(tap).collect()
    }

    /// The taps of the input gradient that reach the input pixel `(row, col)`, both less than the stride.
    fn bwd_input_taps(&self, row: usize, col: usize) -> Vec<Tap> {
        let [rows, cols] = self.dy_padding();
        let shift = |at: usize, before: usize, k: usize| {
            let distance = at + self.pad + before * self.stride;
            (distance >= k && (distance - k).is_multiple_of(self.stride)).then(|| (distance - k) / self.stride)
        };
        let mut taps = Vec::new();
        for channel in 0..self.c_out {
            for kh in 0..self.k {
                for kw in 0..self.k {
                    if let (Some(row), Some(col)) = (shift(row, rows.before, kh), shift(col, cols.before, kw)) {
                        taps.push(Tap { channel, row, col, w: (channel * self.c_in * self.k + kh) * self.k + kw });
                    }
                }
            }
        }
        taps
    }
}

impl<T: Real> Cpu<T> {
    /// The forward pass of a layer.
    pub(super) fn fwd_correlation<'w>(&self, s: &Sizes, w: &'w Buf<T>) -> MaybeOwned<'w, Correlation<T>> {
        w.prepared().fwd_correlation.get(s, || {
            let padding = [Padding { before: s.pad, after: s.pad }; 2];
            let input = Input { channels: s.c_in, h: s.h_in, w: s.w_in, padding, step: s.stride, extent: s.k, rows: 0 };
            let taps = vec![(0, 0, s.fwd_taps())];
            self.correlation(input, [s.c_out, s.h_out, s.w_out], 1, taps, w, s.c_in * s.k * s.k)
        })
    }

    /// The input gradient of a layer.
    ///
    /// Input pixels whose row and column leave the same remainder modulo the stride are reached by the same taps, so the
    /// gradient is one dense correlation of `dy` per pair of remainders.
    pub(super) fn bwd_input_correlation<'w>(&self, s: &Sizes, w: &'w Buf<T>) -> MaybeOwned<'w, Correlation<T>> {
        w.prepared().bwd_input_correlation.get(s, || {
            let pixels = (0..s.stride.min(s.h_in)).flat_map(|row| (0..s.stride.min(s.w_in)).map(move |col| (row, col)));
            let taps: Vec<_> = pixels.map(|(row, col)| (row, col, s.bwd_input_taps(row, col))).collect();
            let extent = taps.iter().flat_map(|(_, _, taps)| taps).map(|tap| tap.row + 1).max().unwrap_or(1);
            let padding = s.dy_padding();
            let input = Input { channels: s.c_out, h: s.h_out, w: s.w_out, padding, step: 1, extent, rows: 0 };
            self.correlation(input, [s.c_in, s.h_in, s.w_in], s.stride, taps, w, s.k * s.k)
        })
    }

    /// The correlation of an input whose rows of a piece are still open to `[channels, h, w]` outputs; `taps` are those of each
    /// phase, and the weights of neighbouring output channels are `w_channel` elements apart.
    fn correlation(
        &self,
        mut input: Input,
        [channels, h, w]: [usize; 3],
        stride: usize,
        taps: Vec<(usize, usize, Vec<Tap>)>,
        weights: &[T],
        w_channel: usize,
    ) -> Correlation<T> {
        let all = h.div_ceil(stride);
        let affordable = PIECE_BYTES / (LANES * size_of::<f32>() * input.channels * input.width());
        let rows = if input.is_whole() { all } else { (affordable / input.reached()).max(PIECE_ROWS).min(all) };
        input.rows = if input.is_whole() { input.h } else { input.rows_for(rows) };
        let phases = taps.into_iter().map(|(row, col, taps)| {
            let packing = Packing::whole(channels, taps.len());
            let mut packed = self.arena.take(packing.len());
            packing.pack(&mut packed, |channel, tap| weights[channel * w_channel + taps[tap].w]);
            Phase { row, col, taps: taps.iter().map(|tap| input.offset(tap)).collect(), w: packed }
        });
        Correlation { phases: phases.collect(), input, rows, channels, h, w, stride }
    }

    /// The outputs of a batch.
    pub(super) fn correlate(
        &self,
        plan: &Correlation<T>,
        n: usize,
        x: &[T],
        bias: Option<&[T]>,
        activation: Activation,
    ) -> Buf<T> {
        let plane = plan.h * plan.w;
        // Register tiles of one column have sixteen channels, the others eight or fewer.
        let group = if plan.w == 1 { PANEL } else { 8 };
        let tasks = self.channel_tasks(n, plan.channels, group, plan.multiply_adds());
        let mut y = self.alloc(blocks(n) * plan.channels * plane * LANES);
        self.for_chunks(plan.work(n), &mut y, tasks.each * plane * LANES, |task, y| {
            let (y, (block, channels)) = (lanes_mut(y), tasks.of(task));
            self.pieces(plan, plan.rows, x, block, |first, piece| {
                for Phase { row, col, taps, w } in &plan.phases {
                    let cols = (plan.w - col).div_ceil(plan.stride);
                    let rows = (plan.h - row).div_ceil(plan.stride).saturating_sub(first).min(plan.rows);
                    let job = Correlate {
                        taps,
                        x: piece,
                        x_row: plan.input.reached() * plan.input.width(),
                        w: w.as_chunks::<PANEL>().0,
                        bias,
                        activation,
                        channels: channels.clone(),
                        rows,
                        cols,
                        y_first: (first * plan.stride + row) * plan.w + col,
                        y_channel: plane,
                        y_row: plan.stride * plan.w,
                        y_col: plan.stride,
                        y: &mut *y,
                    };
                    T::correlate(self.arch, job);
                }
            });
        });
        y
    }

    /// The outputs of a forward pass of stride 1 through 2×2 pooling, and which they are. A piece has two rows or more.
    pub(super) fn correlate_pool(
        &self,
        plan: &Correlation<T>,
        n: usize,
        x: &[T],
        bias: Option<&[T]>,
        activation: Activation,
    ) -> (Buf<T>, MaxIndices<T>) {
        let [Phase { taps, w, .. }] = &plan.phases[..] else { unreachable!("a forward pass has one phase") };
        let (h, cols) = (plan.h / 2, plan.w / 2);
        let tasks = self.channel_tasks(n, plan.channels, 1, plan.multiply_adds());
        let len = tasks.each * h * cols * LANES;
        let [mut y, mut indices] = [(); 2].map(|()| self.alloc(blocks(n) * plan.channels * h * cols * LANES));
        let items = y.chunks_mut(len).zip(indices.chunks_mut(len));
        self.for_items(plan.work(n), items, |task, (y, indices)| {
            let (y, indices) = (lanes_mut(y), lanes_mut(indices));
            let (block, channels) = tasks.of(task);
            let windows = plan.rows / 2;
            self.pieces(plan, 2 * windows, x, block, |first, piece| {
                for row in (first / 2..h).take(windows) {
                    let job = Conv2dPoolFwd {
                        taps,
                        k: plan.input.extent,
                        x: &piece[(2 * row - first) * plan.input.width()..],
                        x_row: plan.input.width(),
                        w: w.as_chunks::<PANEL>().0,
                        bias,
                        activation,
                        channels: channels.clone(),
                        cols,
                        y_channel: h * cols,
                        y: &mut y[row * cols..],
                        indices: &mut indices[row * cols..],
                    };
                    T::conv2d_pool_fwd(self.arch, job);
                }
            });
        });
        (y, MaxIndices(indices))
    }

    /// Calls `f` with the padded inputs of `plan.rows` output rows of a block of images at a time, and the first of these rows, which
    /// are `advance` rows apart.
    fn pieces(
        &self,
        plan: &Correlation<T>,
        advance: usize,
        x: &[T],
        block: usize,
        mut f: impl FnMut(usize, &[[T; LANES]]),
    ) {
        let Input { channels, h, w, .. } = plan.input;
        let x = &lanes(x)[block * channels * h * w..][..channels * h * w];
        if plan.input.is_whole() {
            return f(0, x);
        }
        let mut piece = self.alloc(plan.input.len() * LANES);
        for first in (0..plan.h.div_ceil(plan.stride)).step_by(advance) {
            plan.input.fill(x, first, lanes_mut(&mut piece));
            f(first, lanes(&piece));
        }
    }
}

impl<T: Real> Correlation<T> {
    /// Multiply-adds of vectors for one block of images.
    fn multiply_adds(&self) -> usize {
        let taps = self.phases.iter().map(|phase| phase.taps.len()).sum::<usize>();
        self.channels * self.h * self.w * taps / self.phases.len().max(1)
    }

    /// Of a batch of `n` images.
    fn work(&self, n: usize) -> Work {
        Work::MultiplyAdds(blocks(n) * self.multiply_adds())
    }
}
