//! Max pooling and global average pooling.

use super::jobs::{MaxPool2dBwd, MaxPool2dFwd, Sum};
use super::sums::Plane;
use super::{Buf, Cpu, LANES, Real, Work, blocks, lanes, lanes_mut};
use crate::backend::{Activated, Elementwise, Pool};
use crate::base::dims::{ChannelDims, Pool2dDims};

/// Per output pixel and lane, the index of the maximum in its window, on top of [`super::jobs::FIRST_INDEX`].
pub struct MaxIndices<T: Real>(pub(super) Buf<T>);

impl<T: Real> Pool for Cpu<T> {
    type Indices = MaxIndices<T>;

    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Buf<T>) -> (Buf<T>, MaxIndices<T>) {
        let (h_in, w_in, w_out) = (d.h_in as usize, d.w_in as usize, d.w_out as usize);
        let (k, stride, out) = (d.k as usize, d.stride as usize, (d.h_out * d.w_out) as usize);
        let planes = blocks(d.n as usize) * d.c as usize;
        let mut y = self.alloc(planes * out * LANES);
        let mut indices = self.alloc(planes * out * LANES);
        let items = y.chunks_exact_mut(out * LANES).zip(indices.chunks_exact_mut(out * LANES));
        self.for_items(Work::Elements(x.len() + 2 * planes * out * LANES), items, |plane, (y, indices)| {
            let x = &lanes(x)[plane * h_in * w_in..][..h_in * w_in];
            let (y, indices) = (lanes_mut(y), lanes_mut(indices));
            T::max_pool2d_fwd(self.arch, MaxPool2dFwd { k, stride, w_in, w_out, x, y, indices });
        });
        (y, MaxIndices(indices))
    }

    fn max_pool2d_bwd(
        &self,
        d: &Pool2dDims,
        indices: &MaxIndices<T>,
        activated: Option<Activated<'_, Buf<T>>>,
        dy: &Buf<T>,
    ) -> Buf<T> {
        if let Some(activated) = activated {
            return self.max_pool2d_bwd(d, indices, None, &self.activation_bwd(activated, dy));
        }
        let (h_in, w_in, w_out) = (d.h_in as usize, d.w_in as usize, d.w_out as usize);
        let (k, stride, out) = (d.k as usize, d.stride as usize, (d.h_out * d.w_out) as usize);
        let planes = blocks(d.n as usize) * d.c as usize;
        let mut dx = self.alloc(planes * h_in * w_in * LANES);
        let (dy, indices) = (lanes(dy), lanes(&indices.0));
        let items = dx.chunks_exact_mut(h_in * w_in * LANES);
        self.for_items(Work::Elements(planes * (h_in * w_in + 2 * out) * LANES), items, |plane, dx| {
            let (dy, indices) = (&dy[plane * out..][..out], &indices[plane * out..][..out]);
            dx.fill(T::zero());
            T::max_pool2d_bwd(self.arch, MaxPool2dBwd { k, stride, w_in, w_out, indices, dy, dx: lanes_mut(dx) });
        });
        dx
    }

    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Buf<T>) -> Buf<T> {
        let mut y = self.alloc(x.len() / d.hw as usize);
        let scale = T::one() / T::of(d.hw as f32);
        self.for_items(Work::Elements(x.len()), lanes_mut(&mut y).iter_mut(), |plane, y| {
            *y = T::sum(self.arch, Sum { x: Plane::of(d, plane).pixels(x) }).map(|sum| sum * scale);
        });
        y
    }

    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Buf<T>) -> Buf<T> {
        let hw = d.hw as usize;
        let mut dx = self.alloc(dy.len() * hw);
        let scale = T::one() / T::of(d.hw as f32);
        self.for_items(Work::Elements(dy.len() * hw), lanes_mut(&mut dx).chunks_exact_mut(hw), |plane, dx| {
            dx.fill(lanes(dy)[plane].map(|v| v * scale));
        });
        dx
    }
}
