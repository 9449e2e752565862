//! Element by element, and the buffers that [`crate::backend::Memory`] fills and copies.

use crate::backend::cuda::activation::code;
use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Context, Cuda, F32, tuning};
use crate::backend::{Activated, Activation, Elementwise};

kernels! { "f32/elementwise":
    fill(n: u32, value: f32, y: &mut Device<f32>);
    copy(n: u32, x: &Device<f32>, y: &mut Device<f32>);
    add(n: u32, a: &Device<f32>, b: &Device<f32>, y: &mut Device<f32>);
    add_assign(n: u32, x: &Device<f32>, y: &mut Device<f32>);
    activation_fwd(n: u32, activation: u32, x: &Device<f32>, y: &mut Device<f32>);
    activation_bwd(n: u32, activation: u32, y: &Device<f32>, dy: &Device<f32>, dx: &mut Device<f32>);
}

impl Context {
    /// `len` elements of `value`.
    pub(in crate::backend::cuda) fn fill(&self, len: usize, value: f32) -> Device<f32> {
        let mut y = self.alloc(len);
        // SAFETY: `y` has `len` elements.
        unsafe { launch::fill(self, tuning::elements(len, 4), len as u32, value, &mut y) };
        y
    }

    /// A copy of `x`.
    pub(in crate::backend::cuda) fn copy_of(&self, x: &Device<f32>) -> Device<f32> {
        let mut y = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe { launch::copy(self, tuning::elements(x.len(), 4), x.len() as u32, x, &mut y) };
        y
    }

    /// `y += x`.
    pub(in crate::backend::cuda) fn add_to(&self, x: &Device<f32>, y: &mut Device<f32>) {
        assert_eq!(x.len(), y.len());
        // SAFETY: both have as many elements.
        unsafe { launch::add_assign(self, tuning::elements(x.len(), 4), x.len() as u32, x, y) };
    }
}

impl Elementwise for Cuda<F32> {
    fn add(&self, a: &Device<f32>, b: &Device<f32>) -> Device<f32> {
        assert_eq!(a.len(), b.len());
        let mut y = self.alloc(a.len());
        // SAFETY: all three have as many elements.
        unsafe { launch::add(self, tuning::elements(a.len(), 4), a.len() as u32, a, b, &mut y) };
        y
    }

    fn add_assign(&self, x: &Device<f32>, y: &mut Device<f32>) {
        self.add_to(x, y);
    }

    fn add_assign_param(&self, x: &Device<f32>, y: &mut Device<f32>) {
        self.add_to(x, y);
    }

    fn activation_fwd(&self, activation: Activation, x: &Device<f32>) -> Device<f32> {
        let mut y = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe {
            launch::activation_fwd(self, tuning::elements(x.len(), 4), x.len() as u32, code(activation), x, &mut y)
        };
        y
    }

    fn activation_bwd(&self, Activated { activation, y }: Activated<'_, Device<f32>>, dy: &Device<f32>) -> Device<f32> {
        assert_eq!(y.len(), dy.len());
        let mut dx = self.alloc(y.len());
        // SAFETY: all three have as many elements.
        unsafe {
            launch::activation_bwd(self, tuning::elements(y.len(), 4), y.len() as u32, code(activation), y, dy, &mut dx)
        };
        dx
    }
}
