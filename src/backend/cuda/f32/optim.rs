//! Parameter updates, all parameters in one launch.

use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::kernel::{Grid, by_value, kernels};
use crate::backend::cuda::{Context, Cuda, Device, Precision, tuning};
use crate::backend::{AdamParam, AdamStep, Constraint, Optim, SgdParam, SgdStep};
use crate::base::layout::layout;

kernels! { "f32/optim":
    sgd_step(s: SgdStep, count: u32, segments: Segments);
    adam_step(s: AdamRates, count: u32, segments: Segments);
}

/// Parameters of one launch: so many that those of a ResNet-18 fit, and that the table is no larger than the 4 KB that a
/// launch may carry.
const SEGMENTS: usize = 64;

/// A parameter by the addresses of its buffers, 0 for those that it has not.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Segment {
    g: u64,
    m: u64,
    v: u64,
    w: u64,
    /// The mask, or the penalty's z.
    a: u64,
    /// The penalty's u.
    b: u64,
    n: u32,
    rho: f32,
}

/// The parameters of one launch, and the first block of each.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct Segments {
    at: [Segment; SEGMENTS],
    first: [u32; SEGMENTS],
}

/// The constants of an Adam update, as the kernel takes them.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct AdamRates {
    /// Learning rate over the first moment's correction.
    step: f32,
    /// Root of the second moment's correction.
    root: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    eps: f32,
    weight_decay: f32,
}

layout!(Segment { g, m, v, w, a, b, n, rho });
layout!(Segments { at, first });
layout!(AdamRates { step, root, beta2, one_minus_beta1, one_minus_beta2, eps, weight_decay });
by_value!(SgdStep, Segments, AdamRates);

impl AdamRates {
    fn of(s: &AdamStep) -> Self {
        let (step, root) = s.step_and_root();
        AdamRates {
            step: step as f32,
            root: root as f32,
            beta2: s.beta2,
            one_minus_beta1: 1.0 - s.beta1,
            one_minus_beta2: 1.0 - s.beta2,
            eps: s.eps,
            weight_decay: s.weight_decay,
        }
    }
}

impl Segment {
    /// A parameter with gradient `g`, weight `w`, and `state` of as many elements.
    pub(super) fn of<B: PlainBuf>(
        constraint: &Constraint<'_, B>,
        g: &Device<f32>,
        w: &Device<f32>,
        state: [Option<&Device<f32>>; 2],
    ) -> Self {
        let n = w.len();
        let address = |x: &Device<f32>| {
            assert_eq!(x.len(), n, "what belongs to a parameter has its size");
            x.address()
        };
        let [m, v] = state.map(|x| x.map_or(0, address));
        let (a, b, rho) = match constraint {
            Constraint::Free => (0, 0, 0.0),
            Constraint::Mask(mask) => (address(mask.f32()), 0, 0.0),
            Constraint::Penalty { rho, z, u } => (address(z.f32()), address(u.f32()), *rho),
        };
        Segment { g: address(g), m, v, w: address(w), a, b, n: n as u32, rho }
    }
}

/// Calls `launch` for as many parameters at a time as a table holds.
fn for_tables(segments: &[Segment], launch: impl Fn(Grid, u32, Segments)) {
    for chunk in segments.chunks(SEGMENTS) {
        let mut table = Segments { at: [Segment::default(); SEGMENTS], first: [0; SEGMENTS] };
        let mut blocks = 0;
        for (i, segment) in chunk.iter().enumerate() {
            (table.at[i], table.first[i]) = (*segment, blocks);
            blocks += segment.n.div_ceil(tuning::UPDATES);
        }
        if blocks > 0 {
            launch(tuning::blocks(blocks), chunk.len() as u32, table);
        }
    }
}

impl Context {
    /// One step of Adam.
    pub(super) fn adam(&self, s: &AdamStep, segments: &[Segment]) {
        let rates = AdamRates::of(s);
        for_tables(segments, |grid, count, table| {
            // SAFETY: the table's addresses are of buffers of `n` elements each, of which the caller borrows those that are
            // written; the blocks cover each segment once.
            unsafe { launch::adam_step(self, grid, rates, count, table) };
        });
    }
}

impl<P: Precision> Optim for Cuda<P> {
    fn sgd_step(&self, s: &SgdStep, params: &mut [SgdParam<'_, P::Buf>]) {
        let segment = |p: &mut SgdParam<'_, P::Buf>| {
            Segment::of(&p.constraint, p.g.f32(), p.w.in_place(), [None, Some(p.v.f32_mut())])
        };
        let segments: Vec<Segment> = params.iter_mut().map(segment).collect();
        for_tables(&segments, |grid, count, table| {
            // SAFETY: the table's addresses are of buffers of `n` elements each, of which `params` borrows those that are
            // written; the blocks cover each segment once.
            unsafe { launch::sgd_step(self, grid, *s, count, table) };
        });
        P::updated(self, params.iter().map(|p| &*p.w));
    }

    fn adam_step(&self, s: &AdamStep, params: &mut [AdamParam<'_, P::Buf>]) {
        let segment = |p: &mut AdamParam<'_, P::Buf>| {
            Segment::of(&p.constraint, p.g.f32(), p.w.in_place(), [Some(p.m.f32_mut()), Some(p.v.f32_mut())])
        };
        let segments: Vec<Segment> = params.iter_mut().map(segment).collect();
        self.adam(s, &segments);
        P::updated(self, params.iter().map(|p| &*p.w));
    }
}
