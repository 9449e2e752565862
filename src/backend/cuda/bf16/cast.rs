//! Conversions of batches between f32 and bf16.

use super::{Activations, Batch, Bf16, VEC8, vec8s};
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, tuning};
use crate::base::dims::ChannelDims;
use crate::base::maybe_owned::MaybeOwned;

kernels! { "bf16/cast":
    to_bf16(d: ChannelDims, split: u32, x: &Device<f32>, y: &mut Device<u16>);
    to_f32(d: ChannelDims, x: &Device<u16>, y: &mut Device<f32>);
}

impl Cuda<Bf16> {
    /// Activations in f32, NCHW.
    pub(super) fn to_f32(&self, x: &Activations) -> Device<f32> {
        let d = x.d;
        let mut y = self.alloc(d.elements());
        // SAFETY: both have the elements of `d`.
        unsafe { launch::to_f32(self, tuning::elements(vec8s(&d), 1), d, self.data(x), &mut y) };
        y
    }

    /// A batch rounded to bf16; with `split`, of images of at most four channels, four more channels hold the lower halves.
    pub(super) fn to_bf16(&self, d: &ChannelDims, split: bool, x: &Device<f32>) -> Activations {
        assert!(x.len() == d.elements() && !(split && d.c > VEC8 / 2));
        let mut y = self.alloc_activations(d);
        // SAFETY: just checked, and `y` has the elements of `d`.
        unsafe { launch::to_bf16(self, tuning::elements(vec8s(d), 1), *d, split.into(), x, &mut y) };
        Activations::stored(d, y)
    }

    /// A batch of these dims in bf16.
    pub(super) fn cast_bf16<'a>(&self, d: &ChannelDims, x: &'a Batch) -> MaybeOwned<'a, Activations> {
        match x {
            Batch::F32(x) => MaybeOwned::Owned(self.to_bf16(d, false, x)),
            Batch::Bf16(x) => {
                assert_eq!(x.d, *d);
                MaybeOwned::Borrowed(x)
            }
        }
    }

    /// Activations with these values, rounded; in NCHW order.
    pub fn upload_activations(&self, d: &ChannelDims, values: &[f32]) -> Batch {
        self.to_bf16(d, false, &self.upload_slice(values)).into()
    }
}
