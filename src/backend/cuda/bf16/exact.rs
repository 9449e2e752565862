//! What is done in f32, by the exact backend.

use std::ops::Range;

use super::weights::Weights;
use super::{Buf, Device, Exact, Mixed};
use crate::backend::cuda::Cuda;
use crate::backend::{
    AdamParam, AdamStep, AdmmParam, Apgd, ApgdPoints, ApgdStep, Constraint, Counts, CropFlip, CwL2, Distance, Fab,
    FabStep, Images, Linear, Loss, LossKind, LossOut, Optim, Pgd, PgdParams, Prune, Residuals, Samples,
    SequentialLayer, SgdParam, SgdStep, Square, SquareUpdate,
};
use crate::base::dims::{LinearDims, LogitDims};
use crate::base::rng::Rng;

/// The features of activations are flattened in f32, in PyTorch's order.
impl Linear for Mixed {
    fn linear_fwd(&self, d: &LinearDims, x: &Buf, w: &Buf, b: Option<&Buf>, relu: bool) -> Buf {
        self.exact.linear_fwd(d, &self.in_f32(x), w.f32(), b.map(Buf::f32), relu).into()
    }

    fn linear_bwd_input(&self, d: &LinearDims, dy: &Buf, w: &Buf) -> Buf {
        self.exact.linear_bwd_input(d, dy.f32(), w.f32()).into()
    }

    fn linear_bwd_weight(&self, d: &LinearDims, x: &Buf, dy: &Buf) -> Buf {
        self.exact.linear_bwd_weight(d, &self.in_f32(x), dy.f32()).into()
    }
}

impl Loss for Mixed {
    type Labels = <Cuda as Loss>::Labels;
    type Tally = <Cuda as Loss>::Tally;

    fn labels(&self, labels: &[u8]) -> Self::Labels {
        self.exact.labels(labels)
    }

    fn labels_part(&self, range: Range<usize>, labels: &Self::Labels) -> Self::Labels {
        self.exact.labels_part(range, labels)
    }

    fn loss_fwd(
        &self,
        d: &LogitDims,
        kind: LossKind,
        weight: f32,
        logits: &Buf,
        labels: &Self::Labels,
    ) -> LossOut<Buf> {
        let LossOut { loss, dlogits } = self.exact.loss_fwd(d, kind, weight, logits.f32(), labels);
        LossOut { loss: loss.into(), dlogits: dlogits.into() }
    }

    fn predictions(&self, d: &LogitDims, logits: &Buf) -> Vec<u8> {
        self.exact.predictions(d, logits.f32())
    }

    fn tally_from(&self, counts: &Counts) -> Self::Tally {
        self.exact.tally_from(counts)
    }

    fn tally_add(&self, d: &LogitDims, logits: &Buf, labels: &Self::Labels, tally: &mut Self::Tally) {
        self.exact.tally_add(d, logits.f32(), labels, tally);
    }

    fn tally_read(&self, tally: &Self::Tally) -> Counts {
        self.exact.tally_read(tally)
    }
}

fn constraint<'a>(of: &Constraint<'a, Buf>) -> Constraint<'a, Device<f32>> {
    match *of {
        Constraint::Free => Constraint::Free,
        Constraint::Mask(mask) => Constraint::Mask(mask.f32()),
        Constraint::Penalty { rho, z, u } => Constraint::Penalty { rho, z: z.f32(), u: u.f32() },
    }
}

fn sgd_param<'a>(p: &'a mut SgdParam<'_, Buf>) -> SgdParam<'a, Device<f32>> {
    SgdParam { constraint: constraint(&p.constraint), g: p.g.f32(), v: p.v.f32_mut(), w: p.w.f32_mut() }
}

fn adam_param<'a>(p: &'a mut AdamParam<'_, Buf>) -> AdamParam<'a, Device<f32>> {
    let (m, v, w) = (p.m.f32_mut(), p.v.f32_mut(), p.w.f32_mut());
    AdamParam { constraint: constraint(&p.constraint), g: p.g.f32(), m, v, w }
}

fn admm_param<'a>(p: &'a mut AdmmParam<'_, Buf>) -> AdmmParam<'a, Device<f32>> {
    AdmmParam { mask: p.mask.f32(), w: p.w.f32(), z: p.z.f32_mut(), u: p.u.f32_mut() }
}

/// Weights that have been packed before an update are packed again behind it, all at once.
impl Optim for Mixed {
    fn sgd_step(&self, s: &SgdStep, params: &mut [SgdParam<'_, Buf>]) {
        let packed: Vec<_> = params.iter_mut().map(|p| p.w.take_weights()).collect();
        self.exact.sgd_step(s, &mut params.iter_mut().map(sgd_param).collect::<Vec<_>>());
        self.pack_again(params.iter().map(|p| &*p.w).zip(packed));
    }

    fn adam_step(&self, s: &AdamStep, params: &mut [AdamParam<'_, Buf>]) {
        let packed: Vec<_> = params.iter_mut().map(|p| p.w.take_weights()).collect();
        self.exact.adam_step(s, &mut params.iter_mut().map(adam_param).collect::<Vec<_>>());
        self.pack_again(params.iter().map(|p| &*p.w).zip(packed));
    }
}

impl Mixed {
    fn pack_again<'a>(&self, weights: impl Iterator<Item = (&'a Buf, Option<Weights>)>) {
        let packed: Vec<(&Exact, Weights)> =
            weights.filter_map(|(w, packed)| packed.map(|packed| (w.exact(), packed))).collect();
        self.pack(&packed.iter().map(|(w, packed)| (&*w.data, packed)).collect::<Vec<_>>());
        for (w, packed) in packed {
            w.weights.get_or_init(|| packed);
        }
    }
}

impl Prune for Mixed {
    fn row_norms(&self, rows: usize, members: &[&Buf]) -> Buf {
        self.exact.row_norms(rows, &members.iter().map(|x| x.f32()).collect::<Vec<_>>()).into()
    }

    fn column_norms(&self, cols: usize, x: &Buf) -> Buf {
        self.exact.column_norms(cols, x.f32()).into()
    }

    fn top_k_masks(&self, selections: &[(usize, &Buf)]) -> Vec<Option<Buf>> {
        let exact: Vec<_> = selections.iter().map(|&(k, x)| (k, x.f32())).collect();
        self.exact.top_k_masks(&exact).into_iter().map(|mask| mask.map(Buf::from)).collect()
    }

    fn spread_rows(&self, rows: usize, cols: usize, mask: &Buf) -> Buf {
        self.exact.spread_rows(rows, cols, mask.f32()).into()
    }

    fn spread_columns(&self, rows: usize, cols: usize, mask: &Buf) -> Buf {
        self.exact.spread_columns(rows, cols, mask.f32()).into()
    }

    fn masked_copy(&self, mask: &Buf, x: &Buf) -> Buf {
        self.exact.masked_copy(mask.f32(), x.f32()).into()
    }

    fn apply_mask(&self, mask: &Buf, x: &mut Buf) {
        self.exact.apply_mask(mask.f32(), x.f32_mut());
    }

    fn admm_update(&self, params: &mut [AdmmParam<'_, Buf>]) -> Vec<Residuals> {
        self.exact.admm_update(&mut params.iter_mut().map(admm_param).collect::<Vec<_>>())
    }
}

impl Pgd for Mixed {
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &Buf) -> Buf {
        self.exact.random_start(n, features, eps, rng, first, clean.f32()).into()
    }

    fn pgd_step(&self, n: usize, eps: f32, step: f32, clean: &Buf, dx: &Buf, x: &mut Buf, tally: &mut Self::Tally) {
        self.exact.pgd_step(n, eps, step, clean.f32(), dx.f32(), x.f32_mut(), tally);
    }

    fn fused_pgd(
        &self,
        network: &[SequentialLayer<'_, Buf>],
        params: &PgdParams<'_>,
        clean: &Buf,
        labels: &Self::Labels,
        tally: &mut Self::Tally,
    ) -> Option<Buf> {
        let network: Vec<_> = network.iter().map(|layer| layer.map_params(Buf::f32)).collect();
        self.exact.fused_pgd(&network, params, clean.f32(), labels, tally).map(Buf::from)
    }
}

impl Apgd for Mixed {
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        steps: &[ApgdStep],
        clean: &Buf,
        dx: &Buf,
        points: ApgdPoints<'_, Buf>,
    ) {
        let ApgdPoints { x, previous, best, best_dx } = points;
        let [x, previous, best, best_dx] = [x, previous, best, best_dx].map(Buf::f32_mut);
        self.exact.apgd_step(eps, momentum, steps, clean.f32(), dx.f32(), ApgdPoints { x, previous, best, best_dx });
    }
}

impl Fab for Mixed {
    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &Buf, dx: &Buf, x: &mut Buf) {
        self.exact.fab_step(step, values, clean.f32(), dx.f32(), x.f32_mut());
    }

    fn interpolate(&self, t: &[f32], clean: &Buf, x: &mut Buf) {
        self.exact.interpolate(t, clean.f32(), x.f32_mut());
    }
}

impl Square for Mixed {
    fn square_update(&self, shape: [usize; 3], eps: f32, updates: &[SquareUpdate], clean: &Buf, x: &Buf) -> Buf {
        self.exact.square_update(shape, eps, updates, clean.f32(), x.f32()).into()
    }
}

impl Samples for Mixed {
    fn copy_samples(&self, chosen: &[bool], from: &Buf, to: &mut Buf) {
        self.exact.copy_samples(chosen, from.f32(), to.f32_mut());
    }

    fn distances(&self, n: usize, distance: Distance, a: &Buf, b: &Buf) -> Vec<f64> {
        self.exact.distances(n, distance, a.f32(), b.f32())
    }
}

impl CwL2 for Mixed {
    fn tanh_space(&self, x: &Buf) -> Buf {
        self.exact.tanh_space(x.f32()).into()
    }

    fn tanh_image(&self, w: &Buf) -> Buf {
        self.exact.tanh_image(w.f32()).into()
    }

    fn tanh_image_bwd(&self, clean: &Buf, x: &Buf, dx: &Buf) -> Buf {
        self.exact.tanh_image_bwd(clean.f32(), x.f32(), dx.f32()).into()
    }
}

impl Images for Mixed {
    type Resident<'a> = <Cuda as Images>::Resident<'a>;

    fn resident<'a>(&self, shape: [usize; 3], images: &'a [u8]) -> Self::Resident<'a> {
        self.exact.resident(shape, images)
    }

    fn gather(&self, images: &Self::Resident<'_>, indices: &[u32], augment: Option<&CropFlip>) -> Buf {
        self.exact.gather(images, indices, augment).into()
    }
}
