//! 3×3 convolutions of stride 1 that keep the size of the images, by Winograd's algorithm.

use super::dispatch::Winograd;
use super::jobs::{Conv3x3, POINTS, TILES, WinogradFilters, WinogradStrips, transformed_len};
use super::layout::arena::Storage;
use super::layout::sizes::Sizes;
use super::{Buf, Cpu, LANES, Real, blocks, lanes, lanes_mut};
use crate::backend::Activation;

/// Least channels of the input, and least product of the channels, from which the transforms cost less than the
/// multiplications they save. With 8 and 8 channels, both ways are equally fast.
const LEAST_C_IN: usize = 8;
const LEAST_CHANNELS: usize = 128;

impl<T: Real> Cpu<T> {
    /// The filters as the product needs them.
    fn winograd_filters(&self, winograd: &Winograd<T>, conv: Conv3x3, w: &[T]) -> Storage<T> {
        let panel = POINTS * (conv.c_in + 1) * LANES;
        let mut u = self.arena.take(conv.c_out.div_ceil(LANES) * panel);
        self.for_chunks(&mut u, panel, |panel, u| {
            (winograd.filters)(self.arch, WinogradFilters { conv, w, panel, u: lanes_mut(u) });
        });
        u
    }

    /// `conv`, the forward pass or the input gradient of a layer of sizes `s`, of a batch; `None` where the direct sum is as
    /// fast.
    pub(super) fn conv3x3(
        &self,
        s: &Sizes,
        conv: Conv3x3,
        x: &[T],
        w: &Buf<T>,
        bias: Option<&[T]>,
        activation: Activation,
    ) -> Option<Buf<T>> {
        let pays = conv.c_in >= LEAST_C_IN && conv.c_in * conv.c_out >= LEAST_CHANNELS;
        let winograd = T::winograd(self.arch).filter(|_| pays)?;
        let prepared = w.prepared();
        let form = if conv.transposed { &prepared.bwd_input_winograd } else { &prepared.fwd_winograd };
        let u = form.get(s, || self.winograd_filters(&winograd, conv, w));

        // Images smaller than a strip share it with those of the next blocks, unless a thread would go without work.
        let per_thread = (blocks(s.n) / self.threads()).max(1);
        let together = (TILES / conv.tiles()).clamp(1, per_thread);
        let (input, output) = (conv.c_in * conv.h * conv.w * LANES, conv.c_out * conv.h * conv.w * LANES);
        let mut y = self.alloc(blocks(s.n) * output);
        self.for_chunks(&mut y, together * output, |chunk, y| {
            let tiles = if conv.tiles() * (y.len() / output) == 1 { 1 } else { TILES };
            let mut v = self.alloc(transformed_len(conv.c_in, tiles));
            let mut m = self.alloc(transformed_len(conv.c_out, tiles));
            let mut zeros = self.alloc(conv.w * LANES);
            zeros.fill(T::zero());
            let x = &x[chunk * together * input..][..y.len() / output * input];
            let job = WinogradStrips {
                conv,
                bias,
                activation,
                u: lanes(&u),
                zeros: lanes(&zeros),
                x: lanes(x),
                v: lanes_mut(&mut v),
                m: lanes_mut(&mut m),
                y: lanes_mut(y),
                tiles,
            };
            (winograd.strips)(self.arch, job);
        });
        Some(y)
    }
}
