//! Conversions, arithmetic and pooling of activations.

use super::{Batch, Buf, Device, Made, Mixed, PIECE, pieces};
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, tuning};
use crate::backend::{ConvPool, Elementwise, Pool};
use crate::base::dims::{ChannelDims, Pool2dDims};

kernels! { "bf16/pool":
    to_bf16(d: ChannelDims, split: u32, x: &Device<f32>, y: &mut Device<u16>);
    to_f32(d: ChannelDims, x: &Device<u16>, y: &mut Device<f32>);
    axpy_bf16(n: u32, a: f32, x: &Device<u16>, y: &Device<u16>, sum: &mut Device<u16>);
    relu_bwd_bf16(n: u32, y: &Device<u16>, dy: &Device<u16>, dx: &mut Device<u16>);
    max_pool2d_fwd_bf16(d: Pool2dDims, x: &Device<u16>, y: &mut Device<u16>, argmax: &mut Device<u8>);
    max_pool2d_bwd_bf16(
        d: Pool2dDims, argmax: &Device<u8>, relu: Option<&Device<u16>>, dy: &Device<u16>, dx: &mut Device<u16>,
    );
    avg_pool_fwd_bf16(d: ChannelDims, lanes: u32, x: &Device<u16>, y: &mut Device<f32>);
    avg_pool_bwd_bf16(d: ChannelDims, dy: &Device<f32>, dx: &mut Device<u16>);
}

/// Largest window of a max pooling in bf16: places in it are kept in a byte.
const LARGEST_WINDOW: u32 = 16;

impl Mixed {
    /// A batch, or a buffer that is exact anyway, in f32.
    pub(super) fn in_f32<'a>(&self, x: &'a Buf) -> Made<'a, Device<f32>> {
        let x = match x {
            Buf::Exact(x) => return Made::There(&x.data),
            Buf::Batch(x) => x,
        };
        let d = x.d;
        let mut y = self.exact.alloc(d.n as usize * d.c as usize * d.hw as usize);
        // SAFETY: both have the elements of `d`.
        unsafe { launch::to_f32(&self.exact, tuning::elements(pieces(&d), 1), d, self.data(x), &mut y) };
        Made::New(y)
    }

    /// A batch of these dims in bf16.
    pub(super) fn in_bf16<'a>(&self, d: &ChannelDims, x: &'a Buf) -> Made<'a, Batch> {
        match x {
            Buf::Exact(x) => Made::New(self.rounded(d, false, &x.data)),
            Buf::Batch(x) => {
                assert_eq!(x.d, *d);
                Made::There(x)
            }
        }
    }

    /// A batch in bf16; with `split`, of images of at most four channels, whose lower halves are four more channels.
    pub(super) fn rounded(&self, d: &ChannelDims, split: bool, x: &Device<f32>) -> Batch {
        assert!(x.len() == d.n as usize * d.c as usize * d.hw as usize && !(split && d.c > PIECE / 2));
        let mut y = self.alloc(d);
        // SAFETY: just checked, and `y` has the elements of `d`.
        unsafe { launch::to_bf16(&self.exact, tuning::elements(pieces(d), 1), *d, split.into(), x, &mut y) };
        Batch::written(d, y)
    }
}

/// What only other networks than ours do to activations is done in f32.
impl Elementwise for Mixed {
    fn add(&self, a: &Buf, b: &Buf) -> Buf {
        self.exact.add(&self.in_f32(a), &self.in_f32(b)).into()
    }

    fn axpy(&self, a: f32, x: &Buf, y: &mut Buf) {
        let Buf::Batch(y) = y else {
            return self.exact.axpy(a, &self.in_f32(x), y.f32_mut());
        };
        // The old values may have other owners.
        let (x, n, mut sum) = (self.in_bf16(&y.d, x), pieces(&y.d), self.alloc(&y.d));
        let (terms, grid) = ([self.data(&x), self.data(y)], tuning::elements(n, 1));
        // SAFETY: all three have `n` pieces.
        unsafe { launch::axpy_bf16(&self.exact, grid, n as u32, a, terms[0], terms[1], &mut sum) };
        *y = Batch::written(&y.d, sum);
    }

    fn scale_by(&self, s: &Buf, x: &Buf) -> Buf {
        self.exact.scale_by(s.f32(), &self.in_f32(x)).into()
    }

    fn relu_fwd(&self, x: &Buf) -> Buf {
        self.exact.relu_fwd(&self.in_f32(x)).into()
    }

    fn relu_bwd(&self, y: &Buf, dy: &Buf) -> Buf {
        let Buf::Batch(y) = y else {
            return self.exact.relu_bwd(y.f32(), &self.in_f32(dy)).into();
        };
        let (dy, mut dx, n) = (self.in_bf16(&y.d, dy), self.alloc(&y.d), pieces(&y.d));
        // SAFETY: all three have `n` pieces.
        unsafe {
            let grid = tuning::elements(n, 1);
            launch::relu_bwd_bf16(&self.exact, grid, n as u32, self.data(y), self.data(&dy), &mut dx);
        }
        Batch::written(&y.d, dx).into()
    }
}

/// One kernel after the other.
impl ConvPool for Mixed {}

/// Winners of a max pooling.
pub enum Winners {
    /// As the exact backend has them.
    Exact(<Cuda as Pool>::Winners),
    /// Per channel of an output pixel, padded ones too, the winner's place in its window, counted row by row.
    Places(Device<u8>),
}

/// Dims of a pooling's input and of its output.
fn sides(d: &Pool2dDims) -> [ChannelDims; 2] {
    [d.h_in * d.w_in, d.h_out * d.w_out].map(|hw| ChannelDims { n: d.n, c: d.c, hw })
}

impl Pool for Mixed {
    type Winners = Winners;

    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Buf) -> (Buf, Winners) {
        let x = match x {
            Buf::Batch(x) if d.k <= LARGEST_WINDOW => x,
            x => {
                let (y, winners) = self.exact.max_pool2d_fwd(d, &self.in_f32(x));
                return (y.into(), Winners::Exact(winners));
            }
        };
        let [inputs, outputs] = sides(d);
        assert_eq!(x.d, inputs);
        let mut y = self.alloc(&outputs);
        let mut winners = self.exact.alloc(pieces(&outputs) * PIECE as usize);
        let grid = tuning::elements(pieces(&outputs), 1);
        // SAFETY: the lengths are those of `d`, and windows lie within the image.
        unsafe { launch::max_pool2d_fwd_bf16(&self.exact, grid, *d, self.data(x), &mut y, &mut winners) };
        (Batch::written(&outputs, y).into(), Winners::Places(winners))
    }

    fn max_pool2d_bwd(&self, d: &Pool2dDims, winners: &Winners, relu: Option<&Buf>, dy: &Buf) -> Buf {
        let winners = match winners {
            Winners::Exact(winners) => {
                let relu = relu.map(|y| self.in_f32(y));
                return self.exact.max_pool2d_bwd(d, winners, relu.as_deref(), &self.in_f32(dy)).into();
            }
            Winners::Places(winners) => winners,
        };
        let [inputs, outputs] = sides(d);
        assert_eq!(winners.len(), pieces(&outputs) * PIECE as usize);
        let (dy, mut dx) = (self.in_bf16(&outputs, dy), self.alloc(&inputs));
        let relu = relu.map(|y| self.in_bf16(&outputs, y));
        let relu = relu.as_deref().map(|y| &**self.data(y));
        let grid = tuning::elements(pieces(&inputs), 1);
        // SAFETY: the lengths are those of `d`.
        unsafe { launch::max_pool2d_bwd_bf16(&self.exact, grid, *d, winners, relu, self.data(&dy), &mut dx) };
        Batch::written(&inputs, dx).into()
    }

    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Buf) -> Buf {
        let Buf::Batch(x) = x else {
            return self.exact.avg_pool_fwd(d, x.f32()).into();
        };
        assert_eq!(x.d, *d);
        let mut y = self.exact.alloc(d.n as usize * d.c as usize);
        let (grid, lanes) = tuning::avg_pool_bf16(d);
        // SAFETY: the lengths are those of `d`, and `lanes` divide a warp.
        unsafe { launch::avg_pool_fwd_bf16(&self.exact, grid, *d, lanes, self.data(x), &mut y) };
        y.into()
    }

    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Buf) -> Buf {
        assert_eq!(dy.f32().len(), d.n as usize * d.c as usize);
        let mut dx = self.alloc(d);
        // SAFETY: the lengths are those of `d`.
        unsafe { launch::avg_pool_bwd_bf16(&self.exact, tuning::elements(pieces(d), 1), *d, dy.f32(), &mut dx) };
        Batch::written(d, dx).into()
    }
}
