//! Max pooling and global average pooling of activations.

use super::{Activations, Batch, Bf16, VEC8, vec8s};
use crate::backend::cuda::activation::{code, or_identity};
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, F32, Precision, tuning};
use crate::backend::{Activated, Pool};
use crate::base::dims::{ChannelDims, Pool2dDims};

kernels! { "bf16/pool":
    max_pool2d_fwd_bf16(d: Pool2dDims, x: &Device<u16>, y: &mut Device<u16>, argmax: &mut Device<u8>);
    max_pool2d_bwd_bf16(
        d: Pool2dDims, activation: u32, argmax: &Device<u8>, y: Option<&Device<u16>>, dy: &Device<u16>, dx: &mut Device<u16>,
    );
    avg_pool_fwd_bf16(d: ChannelDims, lanes: u32, x: &Device<u16>, y: &mut Device<f32>);
    avg_pool_bwd_bf16(d: ChannelDims, dy: &Device<f32>, dx: &mut Device<u16>);
}

/// Largest window of a max pooling in bf16: an index in it is kept in a byte.
const LARGEST_WINDOW: u32 = 16;

/// Argmax indices of a max pooling.
pub enum Indices {
    /// Of one in f32.
    F32(<Cuda<F32> as Pool>::Indices),
    /// Per channel of an output pixel, padded ones too, the largest pixel's index in its window, counted row by row.
    Bf16(Device<u8>),
}

/// Dims of a pooling's input and of its output.
fn sides(d: &Pool2dDims) -> [ChannelDims; 2] {
    [d.h_in * d.w_in, d.h_out * d.w_out].map(|hw| ChannelDims { n: d.n, c: d.c, hw })
}

impl Pool for Cuda<Bf16> {
    type Indices = Indices;

    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Batch) -> (Batch, Indices) {
        let x = match x {
            Batch::Bf16(x) if d.k <= LARGEST_WINDOW => x,
            x => {
                let (y, indices) = self.precision.f32.max_pool2d_fwd(d, &Bf16::cast_f32(self, x));
                return (y.into(), Indices::F32(indices));
            }
        };
        let [inputs, outputs] = sides(d);
        assert_eq!(x.d, inputs);
        let mut y = self.alloc_activations(&outputs);
        let mut indices = self.alloc(vec8s(&outputs) * VEC8 as usize);
        let grid = tuning::elements(vec8s(&outputs), 1);
        // SAFETY: the lengths are those of `d`, and windows lie within the image.
        unsafe { launch::max_pool2d_fwd_bf16(self, grid, *d, self.data(x), &mut y, &mut indices) };
        (Activations::stored(&outputs, y).into(), Indices::Bf16(indices))
    }

    fn max_pool2d_bwd(
        &self,
        d: &Pool2dDims,
        indices: &Indices,
        activated: Option<Activated<'_, Batch>>,
        dy: &Batch,
    ) -> Batch {
        let (activation, y) = or_identity(activated);
        let indices = match indices {
            Indices::F32(indices) => {
                let (y, dy) = (y.map(|y| Bf16::cast_f32(self, y)), Bf16::cast_f32(self, dy));
                let activated = y.as_deref().map(|y| Activated { activation, y });
                return self.precision.f32.max_pool2d_bwd(d, indices, activated, &dy).into();
            }
            Indices::Bf16(indices) => indices,
        };
        let [inputs, outputs] = sides(d);
        assert_eq!(indices.len(), vec8s(&outputs) * VEC8 as usize);
        let (dy, mut dx) = (self.cast_bf16(&outputs, dy), self.alloc_activations(&inputs));
        let y = y.map(|y| self.cast_bf16(&outputs, y));
        let y = y.as_deref().map(|y| &**self.data(y));
        let grid = tuning::elements(vec8s(&inputs), 1);
        // SAFETY: the lengths are those of `d`.
        unsafe { launch::max_pool2d_bwd_bf16(self, grid, *d, code(activation), indices, y, self.data(&dy), &mut dx) };
        Activations::stored(&inputs, dx).into()
    }

    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Batch) -> Batch {
        let x = match x {
            Batch::F32(x) => return self.precision.f32.avg_pool_fwd(d, x).into(),
            Batch::Bf16(x) => x,
        };
        assert_eq!(x.d, *d);
        let mut y = self.alloc(d.n as usize * d.c as usize);
        let (grid, lanes) = tuning::avg_pool_bf16(d);
        // SAFETY: the lengths are those of `d`, and `lanes` divide a warp.
        unsafe { launch::avg_pool_fwd_bf16(self, grid, *d, lanes, self.data(x), &mut y) };
        y.into()
    }

    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Batch) -> Batch {
        let dy = &*Bf16::cast_f32(self, dy);
        assert_eq!(dy.len(), d.n as usize * d.c as usize);
        let mut dx = self.alloc_activations(d);
        // SAFETY: the lengths are those of `d`.
        unsafe { launch::avg_pool_bwd_bf16(self, tuning::elements(vec8s(d), 1), *d, dy, &mut dx) };
        Activations::stored(d, dx).into()
    }
}
