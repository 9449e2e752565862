//! The change of variables of Carlini & Wagner's l2 attack.

use super::optim::Segment;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{AdamStep, Constraint, CwL2};

kernels! { "f32/cw_l2":
    tanh_space(n: u32, x: &Device<f32>, w: &mut Device<f32>);
    tanh_image(n: u32, w: &Device<f32>, x: &mut Device<f32>);
    tanh_image_bwd(n: u32, clean: &Device<f32>, x: &Device<f32>, dx: &Device<f32>, dw: &mut Device<f32>);
}

impl<P: Precision> CwL2 for Cuda<P> {
    fn tanh_space(&self, x: &P::Batch) -> P::Batch {
        let x = &*P::cast_f32(self, x);
        let mut w = self.alloc(x.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_space(self, tuning::elements(x.len(), 4), x.len() as u32, x, &mut w) };
        w.into()
    }

    fn tanh_image(&self, w: &P::Batch) -> P::Batch {
        let w = &*P::cast_f32(self, w);
        let mut x = self.alloc(w.len());
        // SAFETY: both have as many elements.
        unsafe { launch::tanh_image(self, tuning::elements(w.len(), 4), w.len() as u32, w, &mut x) };
        x.into()
    }

    fn adam_step_batch(&self, s: &AdamStep, g: &P::Batch, m: &mut P::Batch, v: &mut P::Batch, w: &mut P::Batch) {
        let g = &*P::cast_f32(self, g);
        let [m, v, w] = [m, v, w].map(|batch| P::f32_mut(self, batch));
        self.adam(s, &[Segment::of::<P::Buf>(&Constraint::Free, g, w, [Some(m), Some(v)])]);
    }

    fn tanh_image_bwd(&self, clean: &P::Batch, x: &P::Batch, dx: &P::Batch) -> P::Batch {
        let clean = &*P::cast_f32(self, clean);
        let x = &*P::cast_f32(self, x);
        let dx = &*P::cast_f32(self, dx);
        let n = x.len();
        assert!(clean.len() == n && dx.len() == n);
        let mut dw = self.alloc(n);
        // SAFETY: all four have n elements.
        unsafe { launch::tanh_image_bwd(self, tuning::elements(n, 4), n as u32, clean, x, dx, &mut dw) };
        dw.into()
    }
}
