//! Ops on each element. Those that no network of the tables applies to bf16 activations run in f32.

use super::{Activations, Batch, Bf16, Buf, vec8s};
use crate::backend::cuda::activation::code;
use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::kernel::kernels;
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{Activated, Activation, Elementwise};

kernels! { "bf16/elementwise":
    add_bf16(n: u32, x: &Device<u16>, y: &Device<u16>, sum: &mut Device<u16>);
    activation_bwd_bf16(n: u32, activation: u32, y: &Device<u16>, dy: &Device<u16>, dx: &mut Device<u16>);
}

impl Elementwise for Cuda<Bf16> {
    fn add(&self, a: &Batch, b: &Batch) -> Batch {
        self.precision.f32.add(&Bf16::cast_f32(self, a), &Bf16::cast_f32(self, b)).into()
    }

    fn add_assign(&self, x: &Batch, y: &mut Batch) {
        let y = match y {
            Batch::F32(y) => return self.add_to(&Bf16::cast_f32(self, x), y),
            Batch::Bf16(y) => y,
        };
        // The old values may have other owners.
        let (x, n, mut sum) = (self.cast_bf16(&y.d, x), vec8s(&y.d), self.alloc_activations(&y.d));
        let (terms, grid) = ([self.data(&x), self.data(y)], tuning::elements(n, 1));
        // SAFETY: all three have `n` groups of eight channels.
        unsafe { launch::add_bf16(self, grid, n as u32, terms[0], terms[1], &mut sum) };
        *y = Activations::stored(&y.d, sum);
    }

    fn add_assign_param(&self, x: &Buf, y: &mut Buf) {
        self.add_to(x.f32(), y.f32_mut());
    }

    fn activation_fwd(&self, activation: Activation, x: &Batch) -> Batch {
        self.precision.f32.activation_fwd(activation, &Bf16::cast_f32(self, x)).into()
    }

    fn activation_bwd(&self, Activated { activation, y }: Activated<'_, Batch>, dy: &Batch) -> Batch {
        let y = match y {
            Batch::F32(y) => {
                let activated = Activated { activation, y };
                return self.precision.f32.activation_bwd(activated, &Bf16::cast_f32(self, dy)).into();
            }
            Batch::Bf16(y) => y,
        };
        let (dy, mut dx, n) = (self.cast_bf16(&y.d, dy), self.alloc_activations(&y.d), vec8s(&y.d));
        let grid = tuning::elements(n, 1);
        // SAFETY: all three have `n` groups of eight channels.
        unsafe {
            launch::activation_bwd_bf16(self, grid, n as u32, code(activation), self.data(y), self.data(&dy), &mut dx)
        };
        Activations::stored(&y.d, dx).into()
    }
}
