//! Convolutions of stride 1 that keep the size of the images, by Winograd's algorithm.

use std::ops::Range;

use super::dispatch::Winograd;
use super::jobs::{Input, Output, WinogradConv, WinogradFilters, WinogradStrips, entry_stride};
use super::layout::arena::Storage;
use super::layout::sizes::Sizes;
use super::pool::MaxIndices;
use super::{Buf, ChannelTasks, Cpu, LANES, Real, Work, blocks, lanes, lanes_mut};
use crate::backend::Activation;
use crate::base::maybe_owned::MaybeOwned;

/// Least channels of the input, and least product of the channels, from which the transforms cost less than the
/// multiplications they save.
const LEAST_C_IN: usize = 8;
const LEAST_CHANNELS: usize = 64;

/// Bytes of transformed outputs that stay in the second-level cache beside the transformed inputs.
const M_BYTES: usize = 512 << 10;

/// A layer's convolution in one of its directions, with its transformed filters.
pub(super) struct WinogradLayer<'w, T: Real> {
    conv: WinogradConv,
    jobs: Winograd<T>,
    u: MaybeOwned<'w, Storage<T>>,
}

impl<T: Real> WinogradLayer<'_, T> {
    /// Of a batch of `n` images.
    fn work(&self, n: usize) -> Work {
        Work::MultiplyAdds(blocks(n) * self.conv.multiply_adds())
    }
}

impl<T: Real> Cpu<T> {
    /// The convolution `conv` of a layer of sizes `s` and weight `w`, where Winograd's algorithm is faster than the direct sum.
    pub(super) fn winograd<'w>(
        &self,
        conv: Option<WinogradConv>,
        s: &Sizes,
        w: &'w Buf<T>,
    ) -> Option<WinogradLayer<'w, T>> {
        let pays = |conv: &WinogradConv| conv.c_in >= LEAST_C_IN && conv.c_in * conv.c_out >= LEAST_CHANNELS;
        let (conv, jobs) = conv.filter(pays).zip(T::winograd(self.arch))?;
        let prepared = w.prepared();
        let form = if conv.transposed { &prepared.bwd_input_winograd } else { &prepared.fwd_winograd };
        let u = form.get(s, || {
            let panel = conv.panel_len();
            let mut u = self.arena.take(conv.c_out.div_ceil(LANES) * panel);
            self.for_chunks(Work::Elements(w.len() + u.len()), &mut u, panel, |panel, u| {
                (jobs.filters)(self.arch, WinogradFilters { conv, w, panel, u: lanes_mut(u) });
            });
            u
        });
        Some(WinogradLayer { conv, jobs, u })
    }

    /// The convolution of a batch of `n` images, added to `sum` if there is one.
    pub(super) fn winograd_conv(
        &self,
        layer: &WinogradLayer<'_, T>,
        n: usize,
        x: &[T],
        bias: Option<&[T]>,
        activation: Activation,
        sum: Option<Buf<T>>,
    ) -> Buf<T> {
        let WinogradConv { c_in, c_out, h, w, .. } = layer.conv;
        let [input, plane] = [c_in, 1].map(|channels| channels * h * w * LANES);
        // Images smaller than a strip share it with those of the next blocks, unless a thread would go without work.
        let per_thread = (blocks(n) / self.threads()).max(1);
        let together = (layer.conv.strip(usize::MAX) / layer.conv.tiles()).clamp(1, per_thread);
        let tasks = self.winograd_tasks(layer, n);
        let accumulate = sum.is_some();
        let mut y = sum.unwrap_or_else(|| self.alloc(blocks(n) * c_out * plane));
        self.for_chunks(layer.work(n), &mut y, together * tasks.each * plane, |task, y| {
            // Either all channels of some blocks, or some of one.
            let (blocks, (group, channels)) = (y.len().div_ceil(c_out * plane), tasks.of(task));
            let images = Input::Images(lanes(&x[group * together * input..][..blocks * input]));
            let output = Output::Images { y: lanes_mut(y), accumulate };
            self.strips(layer, channels, blocks, (bias, activation), images, output);
        });
        y
    }

    /// How output channels are shared out. Register tiles of one image have sixteen channels, the others four or fewer.
    fn winograd_tasks(&self, layer: &WinogradLayer<'_, T>, n: usize) -> ChannelTasks {
        let group = if layer.conv.tiles() == 1 { LANES } else { 4 };
        self.channel_tasks(n, layer.conv.c_out, group, layer.conv.multiply_adds())
    }

    /// The convolution of a batch of `n` images, through 2×2 pooling.
    pub(super) fn winograd_conv_pool(
        &self,
        layer: &WinogradLayer<'_, T>,
        n: usize,
        x: &[T],
        bias: Option<&[T]>,
        activation: Activation,
    ) -> (Buf<T>, MaxIndices<T>) {
        let WinogradConv { c_in, c_out, h, w, .. } = layer.conv;
        let (input, plane) = (c_in * h * w * LANES, (h / 2) * (w / 2) * LANES);
        let tasks = self.winograd_tasks(layer, n);
        let [mut y, mut indices] = [(); 2].map(|()| self.alloc(blocks(n) * c_out * plane));
        let items = y.chunks_mut(tasks.each * plane).zip(indices.chunks_mut(tasks.each * plane));
        self.for_items(layer.work(n), items, |task, (y, indices)| {
            let (block, channels) = tasks.of(task);
            let images = Input::Images(lanes(&x[block * input..][..input]));
            let pooled = Output::Pooled { y: lanes_mut(y), indices: lanes_mut(indices) };
            self.strips(layer, channels, 1, (bias, activation), images, pooled);
        });
        (y, MaxIndices(indices))
    }

    /// The input gradient from the gradient `g` of pooled outputs.
    pub(super) fn winograd_pool_bwd_input(
        &self,
        layer: &WinogradLayer<'_, T>,
        n: usize,
        indices: &MaxIndices<T>,
        g: &Buf<T>,
    ) -> Buf<T> {
        let WinogradConv { c_in, c_out, h, w, .. } = layer.conv;
        let (input, plane) = (c_in * (h / 2) * (w / 2) * LANES, h * w * LANES);
        let tasks = self.winograd_tasks(layer, n);
        let mut dx = self.alloc(blocks(n) * c_out * plane);
        self.for_chunks(layer.work(n), &mut dx, tasks.each * plane, |task, dx| {
            let (block, channels) = tasks.of(task);
            let [g, indices] = [&g[..], &indices.0[..]].map(|all| lanes(&all[block * input..][..input]));
            let images = Output::Images { y: lanes_mut(dx), accumulate: false };
            self.strips(layer, channels, 1, (None, Activation::Identity), Input::Pooled { g, indices }, images);
        });
        dx
    }

    /// Some output channels of a few blocks of images.
    fn strips(
        &self,
        layer: &WinogradLayer<'_, T>,
        channels: Range<usize>,
        blocks: usize,
        (bias, activation): (Option<&[T]>, Activation),
        input: Input<'_, T>,
        output: Output<'_, T>,
    ) {
        let conv = layer.conv;
        let (strip, entries) = (conv.strip(conv.tiles() * blocks), conv.minimal.entries());
        let panel_bytes = entries * strip * LANES * LANES * size_of::<T>();
        let all = channels.end.div_ceil(LANES) - channels.start / LANES;
        let panels = (M_BYTES / panel_bytes).clamp(1, all);
        let mut zeros = self.alloc(conv.w * LANES);
        zeros.fill(T::zero());
        let mut v = self.alloc(entries * entry_stride(conv.c_in, strip) * LANES);
        let mut m = self.alloc(entries * entry_stride(panels * LANES, strip) * LANES);
        let job = WinogradStrips {
            conv,
            channels,
            blocks,
            bias,
            activation,
            u: lanes(&layer.u),
            zeros: lanes(&zeros),
            input,
            v: lanes_mut(&mut v),
            m: lanes_mut(&mut m),
            output,
            strip,
            panels,
        };
        (layer.jobs.strips)(self.arch, job);
    }
}
