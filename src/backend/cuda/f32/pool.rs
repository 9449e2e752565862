//! Max pooling and global average pooling.

use crate::backend::cuda::activation::{code, or_identity};
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, F32, Precision, tuning};
use crate::backend::{Activated, Conv, ConvPool, Pool};
use crate::base::dims::{ChannelDims, Pool2dDims};

kernels! { "f32/pool":
    max_pool2d_fwd(d: Pool2dDims, x: &Device<f32>, y: &mut Device<f32>, argmax: &mut Device<u16>);
    max_pool2d_bwd(
        d: Pool2dDims, activation: u32, argmax: &Device<u16>, y: Option<&Device<f32>>, dy: &Device<f32>, dx: &mut Device<f32>,
    );
    avg_pool_fwd(d: ChannelDims, group: u32, x: &Device<f32>, y: &mut Device<f32>);
    avg_pool_bwd(d: ChannelDims, dy: &Device<f32>, dx: &mut Device<f32>);
}

/// Elements of the input and of the output.
fn lengths(d: &Pool2dDims) -> (usize, usize) {
    let planes = d.n as usize * d.c as usize;
    (planes * d.h_in as usize * d.w_in as usize, planes * d.h_out as usize * d.w_out as usize)
}

/// One kernel after the other.
impl<P: Precision> ConvPool for Cuda<P> where Cuda<P>: Conv + Pool {}

impl Pool for Cuda<F32> {
    /// Per output pixel, the index of the largest pixel in its window, counted row by row.
    type Indices = Device<u16>;

    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Device<f32>) -> (Device<f32>, Device<u16>) {
        let (inputs, outputs) = lengths(d);
        assert_eq!(x.len(), inputs);
        assert!(d.k <= 256, "indices in a {0}x{0} window are kept in 16 bits", d.k);
        let (mut y, mut indices) = (self.alloc(outputs), self.alloc(outputs));
        // SAFETY: the lengths are those of `d`, and windows lie within the image.
        unsafe { launch::max_pool2d_fwd(self, tuning::elements(outputs, 1), *d, x, &mut y, &mut indices) };
        (y, indices)
    }

    fn max_pool2d_bwd(
        &self,
        d: &Pool2dDims,
        indices: &Device<u16>,
        activated: Option<Activated<'_, Device<f32>>>,
        dy: &Device<f32>,
    ) -> Device<f32> {
        let (activation, y) = or_identity(activated);
        let (inputs, outputs) = lengths(d);
        assert_eq!((indices.len(), dy.len()), (outputs, outputs));
        assert!(y.is_none_or(|y| y.len() == outputs));
        let mut dx = self.alloc(inputs);
        // SAFETY: the lengths are those of `d`.
        unsafe {
            launch::max_pool2d_bwd(self, tuning::elements(inputs, 4), *d, code(activation), indices, y, dy, &mut dx)
        };
        dx
    }

    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Device<f32>) -> Device<f32> {
        let planes = d.n as usize * d.c as usize;
        assert_eq!(x.len(), planes * d.hw as usize);
        let mut y = self.alloc(planes);
        let (grid, group) = tuning::avg_pool(d);
        // SAFETY: the lengths are those of `d`, and `group` divides a warp.
        unsafe { launch::avg_pool_fwd(self, grid, *d, group, x, &mut y) };
        y
    }

    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Device<f32>) -> Device<f32> {
        assert_eq!(dy.len(), d.n as usize * d.c as usize);
        let mut dx = self.alloc(dy.len() * d.hw as usize);
        // SAFETY: the lengths are those of `d`.
        unsafe { launch::avg_pool_bwd(self, tuning::elements(dx.len(), 4), *d, dy, &mut dx) };
        dx
    }
}
