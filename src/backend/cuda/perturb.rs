use super::{Buf, Cuda};
use crate::backend::{ApgdMove, ApgdPoints, Distance, FabStep, Perturb, Window};
impl Perturb for Cuda {
    fn apgd_step(&self, _: f32, _: f32, _: &[ApgdMove], _: &Buf, _: &Buf, _: ApgdPoints<'_, Buf>) {
        todo!()
    }
    fn fab_step(&self, _: &FabStep, _: &[f32], _: &Buf, _: &Buf, _: &mut Buf) {
        todo!()
    }
    fn windows(&self, _: [usize; 3], _: f32, _: &[Window], _: &Buf, _: &Buf) -> Buf {
        todo!()
    }
    fn copy_samples(&self, _: &[bool], _: &Buf, _: &mut Buf) {
        todo!()
    }
    fn towards(&self, _: &[f32], _: &Buf, _: &mut Buf) {
        todo!()
    }
    fn distances(&self, _: usize, _: Distance, _: &Buf, _: &Buf) -> Vec<f64> {
        todo!()
    }
    fn to_tanh_space(&self, _: &Buf) -> Buf {
        todo!()
    }
    fn from_tanh_space(&self, _: &Buf) -> Buf {
        todo!()
    }
    fn tanh_space_bwd(&self, _: &Buf, _: &Buf, _: &Buf) -> Buf {
        todo!()
    }
}
