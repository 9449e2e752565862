//! Element by element, and the copies that [`crate::backend::Memory`] asks for.

use crate::backend::Elementwise;
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Buf, Cuda, tuning};

kernels! { "f32/elementwise":
    fill(n: u32, value: f32, y: &mut Device<f32>);
    copy(n: u32, x: &Device<f32>, y: &mut Device<f32>);
    add(n: u32, a: &Device<f32>, b: &Device<f32>, y: &mut Device<f32>);
    axpy(n: u32, a: f32, x: &Device<f32>, y: &mut Device<f32>);
    scale_by(n: u32, s: &Device<f32>, x: &Device<f32>, y: &mut Device<f32>);
    relu_fwd(n: u32, x: &Device<f32>, y: &mut Device<f32>);
    relu_bwd(n: u32, y: &Device<f32>, dy: &Device<f32>, dx: &mut Device<f32>);
}

impl Cuda {
    /// `len` elements of `value`.
    pub(in crate::backend::cuda) fn fill(&self, len: usize, value: f32) -> Buf {
        let mut y = self.alloc(len);
        // SAFETY: `y` has `len` elements.
        unsafe { launch::fill(self, tuning::elements(len, 4), len as u32, value, &mut y) };
        y
    }

    /// A copy of `x`.
    pub(in crate::backend::cuda) fn copy_of(&self, x: &Buf) -> Buf {
        let mut y = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe { launch::copy(self, tuning::elements(x.len(), 4), x.len() as u32, x, &mut y) };
        y
    }
}

impl Elementwise for Cuda {
    fn add(&self, a: &Buf, b: &Buf) -> Buf {
        assert_eq!(a.len(), b.len());
        let mut y = self.alloc(a.len());
        // SAFETY: all three have as many elements.
        unsafe { launch::add(self, tuning::elements(a.len(), 4), a.len() as u32, a, b, &mut y) };
        y
    }

    fn axpy(&self, a: f32, x: &Buf, y: &mut Buf) {
        assert_eq!(x.len(), y.len());
        // SAFETY: both have as many elements.
        unsafe { launch::axpy(self, tuning::elements(x.len(), 4), x.len() as u32, a, x, y) };
    }

    fn scale_by(&self, s: &Buf, x: &Buf) -> Buf {
        assert!(!s.is_empty());
        let mut y = self.alloc(x.len());
        // SAFETY: `x` and `y` have as many elements, `s` has one.
        unsafe { launch::scale_by(self, tuning::elements(x.len(), 4), x.len() as u32, s, x, &mut y) };
        y
    }

    fn relu_fwd(&self, x: &Buf) -> Buf {
        let mut y = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe { launch::relu_fwd(self, tuning::elements(x.len(), 4), x.len() as u32, x, &mut y) };
        y
    }

    fn relu_bwd(&self, y: &Buf, dy: &Buf) -> Buf {
        assert_eq!(y.len(), dy.len());
        let mut dx = self.alloc(y.len());
        // SAFETY: all three have as many elements.
        unsafe { launch::relu_bwd(self, tuning::elements(y.len(), 4), y.len() as u32, y, dy, &mut dx) };
        dx
    }
}
