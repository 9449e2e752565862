//! Attacks on a LeNet in one launch: an image a block, with the weights in its shared memory.

use super::loss::{Labels, Tally, TallyCounts, kind};
use crate::backend::cuda::runtime::kernel::{Arg, Args, kernels};
use crate::backend::cuda::{Context, Device, tuning};
use crate::backend::{Ascent, MARGIN_CONFIDENCE};
use crate::base::dims::LeNetDims;
use crate::base::layout::{Layout, Type, layout};
use crate::base::rng::{Rng, Stream};

kernels! { "f32/lenet":
    lenet_attack(
        d: LeNetDims, a: AscentArgs, rng: Rng, first: u64, w1: &Device<f32>, b1: &Device<f32>, w2: &Device<f32>,
        b2: &Device<f32>, w3: &Device<f32>, b3: &Device<f32>, w4: &Device<f32>, b4: &Device<f32>, clean: &Device<f32>,
        labels: &Device<u8>, attacked: &mut Device<f32>, metrics: &mut Device<TallyCounts>,
    );
}

/// `Ascent` in the kernel.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct AscentArgs {
    eps: f32,
    step: f32,
    confidence: f32,
    steps: u32,
    random_start: u32,
    kind: u32,
}

layout!(AscentArgs { eps, step, confidence, steps, random_start, kind });

impl Arg for AscentArgs {
    const TYPE: &'static Type = <AscentArgs as Layout>::TYPE;

    fn push(self, args: &mut Args) {
        args.push_bytes(bytemuck::bytes_of(&self));
        args.repeat(self.steps);
    }
}

/// [`crate::backend::Attack::attack_lenet`].
pub(super) fn attack(
    cuda: &Context,
    d: &LeNetDims,
    ascent: &Ascent<'_>,
    params: [&Device<f32>; 8],
    clean: &Device<f32>,
    labels: &Labels,
    tally: &mut Tally,
) -> Option<Device<f32>> {
    let grid = tuning::lenet_attack(d, cuda.shared_memory())?;
    let [c1, c2, f1, classes] = [d.c1, d.c2, d.f1, d.classes].map(|size| size as usize);
    let lengths = [25 * c1, c1, 25 * c1 * c2, c2, 49 * c2 * f1, f1, f1 * classes, classes];
    assert_eq!((params.map(Device::len), clean.len()), (lengths, 784 * d.n as usize));
    let labels = labels.of(d.n);
    let (rng, first) = ascent.start.map_or((Rng::new(0, Stream::Init, 0), 0), |(rng, first)| (*rng, first));
    let a = AscentArgs {
        eps: ascent.eps,
        step: ascent.step,
        confidence: MARGIN_CONFIDENCE,
        steps: ascent.steps,
        random_start: ascent.start.is_some().into(),
        kind: kind(ascent.loss),
    };
    let mut attacked = cuda.alloc(clean.len());
    let [w1, b1, w2, b2, w3, b3, w4, b4] = params;
    // SAFETY: just checked: the parameters have the lengths that `d` says, and there are as many images, results and labels
    // as blocks.
    unsafe {
        launch::lenet_attack(
            cuda,
            grid,
            *d,
            a,
            rng,
            first,
            w1,
            b1,
            w2,
            b2,
            w3,
            b3,
            w4,
            b4,
            clean,
            labels,
            &mut attacked,
            &mut tally.0,
        );
    }
    Some(attacked)
}
