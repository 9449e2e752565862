//! Weights of convolutions: packed for tensor cores, and their gradients (`kernels/bf16/weights.cu`).

use super::tiles::{self, WEIGHT_TILES, WeightConfig};
use super::tuned::Pass;
use super::{Bf16, Buf, VEC8};
use crate::backend::Activation;
use crate::backend::cuda::runtime::kernel::{by_value, kernels};
use crate::backend::cuda::{Cuda, Device, tuning};
use crate::base::dims::{ChannelDims, Conv2dDims};
use crate::base::layout::layout;

kernels! { "bf16/weights":
    #[exclusive] pack_weights(packings: Packings);
    conv2d_bwd_weight_bf16[WEIGHT_TILES](d: Conv2dDims, x: &Device<u16>, dy: &Device<u16>, dw: &mut Device<f32>);
}

/// Weights of one launch that packs them.
const MOST_WEIGHTS: usize = 48;

/// Weights to be packed, by their addresses.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Packing {
    w: u64,
    forward: u64,
    backward: u64,
    c_in: u32,
    c_out: u32,
    taps: u32,
    split: u32,
}

#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Packings {
    at: [Packing; MOST_WEIGHTS],
}

layout!(Packing { w, forward, backward, c_in, c_out, taps, split });
layout!(Packings { at });
by_value!(Packings);

/// A convolution's weights in bf16.
pub struct PackedWeights {
    d: [usize; 4],
    /// For images that are split.
    split: bool,
    /// `[tap, c_out, c_in]`, channels padded.
    pub forward: Device<u16>,
    /// `[tap, c_in, c_out]`.
    pub backward: Device<u16>,
}

impl Cuda<Bf16> {
    /// The packed weights of a convolution, with `split` of one whose image is split; packed now if nobody has done it before.
    pub(super) fn weights<'w>(&self, d: &Conv2dDims, split: bool, w: &'w Buf) -> &'w PackedWeights {
        let packed = w.packed.get_or_init(|| {
            let (c_in, c_out) = (d.c_in.next_multiple_of(VEC8), d.c_out.next_multiple_of(VEC8));
            let len = (d.k * d.k * c_in * c_out) as usize;
            let weights = PackedWeights { d: d.w(), split, forward: self.alloc(len), backward: self.alloc(len) };
            self.pack(&[(&w.data, &weights)]);
            weights
        });
        assert_eq!((packed.d, packed.split), (d.w(), split), "one weight for two kinds of convolution");
        packed
    }

    /// Packs the weights of convolutions.
    pub(super) fn pack(&self, of: &[(&Device<f32>, &PackedWeights)]) {
        for chunk in of.chunks(MOST_WEIGHTS) {
            let mut table = Packings { at: [Packing::default(); MOST_WEIGHTS] };
            let mut largest = 0;
            for (packing, (w, PackedWeights { d, split, forward, backward })) in table.at.iter_mut().zip(chunk) {
                let [c_out, c_in, k, _] = d.map(|size| size as u32);
                assert_eq!(w.len(), d.iter().product::<usize>());
                largest = largest.max(forward.len());
                let (w, forward, backward) = (w.address(), forward.address(), backward.address());
                *packing = Packing { w, forward, backward, c_in, c_out, taps: k * k, split: (*split).into() };
            }
            // SAFETY: just checked, and both orders have a place for every padded weight; nobody else has them.
            unsafe { launch::pack_weights(self, tuning::pack_weights(largest, chunk.len()), table) };
        }
    }

    /// `dw` of batches that are in memory.
    pub(super) fn weight_gradient(&self, d: &Conv2dDims, x: &Device<u16>, dy: &Device<u16>) -> Device<f32> {
        let config = self.select(Pass::WeightGradient, d, &tiles::weight_gradient(d), |config| config.tile);
        let WeightConfig { tile, split_k, grid } = config.expect("the smallest tile always fits");
        self.split_k_product(&ChannelDims::new(d.w()), split_k, None, Activation::Identity, |_, _, dw| {
            // SAFETY: batches have the elements of `d`, `dw` those of `split_k` gradients.
            unsafe { launch::conv2d_bwd_weight_bf16(self, tile, grid, *d, x, dy, dw) };
        })
    }
}
