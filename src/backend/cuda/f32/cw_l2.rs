//! The change of variables of Carlini & Wagner's l2 attack.

use crate::backend::CwL2;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Buf, Cuda, Device, tuning};

kernels! { "f32/cw_l2":
    tanh_space(n: u32, x: &Device<f32>, w: &mut Device<f32>);
    tanh_image(n: u32, w: &Device<f32>, x: &mut Device<f32>);
    tanh_image_bwd(n: u32, clean: &Device<f32>, x: &Device<f32>, dx: &Device<f32>, dw: &mut Device<f32>);
}

impl CwL2 for Cuda {
    fn tanh_space(&self, x: &Buf) -> Buf {
        let mut w = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_space(self, tuning::elements(x.len(), 4), x.len() as u32, x, &mut w) };
        w
    }

    fn tanh_image(&self, w: &Buf) -> Buf {
        let mut x = self.alloc(w.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_image(self, tuning::elements(w.len(), 4), w.len() as u32, w, &mut x) };
        x
    }

    fn tanh_image_bwd(&self, clean: &Buf, x: &Buf, dx: &Buf) -> Buf {
        let n = x.len();
        assert!(clean.len() == n && dx.len() == n);
        let mut dw = self.alloc(n);
        // SAFETY: all four have n elements.
        unsafe { launch::tanh_image_bwd(self, tuning::elements(n, 4), n as u32, clean, x, dx, &mut dw) };
        dw
    }
}
