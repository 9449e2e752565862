//! The attacks beyond PGD: PyTorch's iterates, what a suite of attacks says of each image, and the checks.

use engine::attack::OnImagePasses;
use engine::attack::apgd::{ApgdConfig, ApgdLoss};
use engine::attack::config::AttackConfig;
use engine::attack::cw_l2::{CwL2Config, Nearest};
use engine::attack::evaluation::Subset;
use engine::attack::fab::FabConfig;
use engine::attack::square::SquareConfig;
use engine::attack::suite::{Assessment, Suite};
use engine::attack::target_model::{ImagePasses, TargetModel};
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Backend, Images, SquareUpdate};
use engine::base::error::Result;
use engine::data::Split;
use engine::nn::models::Model;

use crate::backends::on_every_backend;
use crate::compare::{assert_close, count_apart};
use crate::networks::{labels, recorded};
use crate::oracle::Oracle;
use crate::small_runs::{digits, trained};

mod checks;
mod objectives;
pub mod pixel;
mod points;
mod rounds;
mod runs;
mod state;

on_every_backend! { apgd_is_pytorchs, fab_is_pytorchs, square_is_pytorchs, cw_l2_is_pytorchs }

/// Radius of all recorded attacks.
const EPS: f32 = 0.02;

fn uncounted(_: u64) -> Result<()> {
    Ok(())
}

type F32 = Cpu<f32>;

/// Images that are attacked.
const N: usize = 40;

/// A network with images to attack, and one that a transfer attacks instead.
struct Setting {
    backend: F32,
    model: Model<F32>,
    surrogate: Option<Model<F32>>,
    split: Split,
    /// Those of the split that are attacked.
    indices: Vec<u32>,
}

impl Setting {
    /// A small trained network. Not the first of the test images, and not in order.
    fn new() -> Self {
        let backend = F32::new(2).unwrap();
        let (model, surrogate) = (trained(&backend), Some(trained(&backend)));
        let indices = (30..30 + N as u32).rev().collect();
        Setting { model, surrogate, backend, split: digits(1, 100).test, indices }
    }

    fn with<T>(
        &self,
        attacks: &[AttackConfig],
        on_image_passes: OnImagePasses<'_>,
        f: impl FnOnce(&Suite<'_, '_, '_, F32>) -> T,
    ) -> T {
        let images = self.backend.resident([1, 28, 28], &self.split.images);
        let subset = Subset { images: &images, labels: &self.split.labels, indices: &self.indices };
        let (backend, model, surrogate) = (&self.backend, &self.model, self.surrogate.as_ref());
        f(&Suite { backend, model, surrogate, subset: &subset, attacks, seed: 7, on_image_passes })
    }

    fn assess(&self, attacks: &[AttackConfig]) -> Assessment {
        let mut assessment = Assessment::default();
        self.with(attacks, &uncounted, |suite| suite.run(&mut assessment, &mut |_, _| Ok(()))).unwrap();
        assessment
    }

    /// The images that are attacked, and their classes.
    fn batch(&self) -> (Tensor<F32>, Vec<u8>) {
        let images = self.backend.resident([1, 28, 28], &self.split.images);
        let clean = self.backend.gather(&images, &self.indices, None);
        let labels = self.indices.iter().map(|&i| self.split.labels[i as usize]).collect();
        (Tensor::new(clean, self.model.input(self.indices.len())), labels)
    }
}

/// A recorded attack: the clean images, and the points, one batch after the other.
struct Case<'o, B: Backend> {
    clean: Tensor<B>,
    labels: Vec<u8>,
    points: Vec<&'o [f32]>,
}

impl<'o, B: Backend> Case<'o, B> {
    fn of(backend: &B, oracle: &'o Oracle, name: &str) -> Self {
        let labels = labels(oracle, &format!("{name}.labels"));
        let (shape, values) = oracle.tensor(&format!("{name}.clean"));
        let clean = Tensor::upload(backend, [shape[0], shape[1], shape[2], shape[3]], values);
        let points = oracle.values(&format!("{name}.points")).chunks_exact(values.len()).collect();
        Case { clean, labels, points }
    }

    fn batch(&self, backend: &B, values: &[f32]) -> Tensor<B> {
        Tensor::new(backend.upload_batch(self.labels.len(), values), self.clean.shape().clone())
    }
}

/// Compares points in the order in which they come. A wrong sign is an error of a whole step.
struct Points<'o, 'b, B: Backend> {
    name: &'static str,
    backend: &'b B,
    expected: &'b [&'o [f32]],
    seen: usize,
}

/// All but one pixel in two hundred. Rounding decides no sign of the recorded attacks (`tests/oracle/README.md`), as far as the
/// roundings of the CPU's paths and of host-compiled kernels show; a GPU has others, and what is decided there stays in the
/// points that follow.
fn nearly_all_agree(what: &str, got: &[f32], want: &[f32], rtol: f64) {
    let apart = count_apart(what, got, want, rtol, 0.0);
    assert!(apart <= want.len() / 200, "{what}: {apart} of {} pixels differ", want.len());
}

impl<B: Backend> Points<'_, '_, B> {
    fn compare(&mut self, x: &Tensor<B>) {
        let what = format!("{}: point {}", self.name, self.seen);
        nearly_all_agree(&what, &x.values(self.backend), self.expected[self.seen], 1e-5);
        self.seen += 1;
    }
}

fn apgd_is_pytorchs<B: Backend>(backend: &B) {
    let oracle = Oracle::load("suite");
    let (_, model) = recorded(backend, "lenet");
    for (name, loss) in
        [("apgd_ce", ApgdLoss::CrossEntropy), ("apgd_dlr", ApgdLoss::Dlr), ("apgd_t", ApgdLoss::TargetedDlr)]
    {
        let case = Case::of(backend, &oracle, name);
        let target_model = TargetModel::new(backend, &model, &uncounted);
        // The recorded target is the third likeliest class.
        let targets = target_model.logits(&case.clean).unwrap().ranked(3);
        let config = ApgdConfig { steps: 12, ..ApgdConfig::published(EPS, loss) };
        let start = case.batch(backend, case.points[0]);
        let mut points = Points { name, backend, expected: &case.points[1..], seen: 0 };
        config.attack(&target_model, &case.clean, &case.labels, &targets, start, |x| points.compare(x)).unwrap();
        // It ends where all are misclassified; the recorded attack goes on.
        assert!(points.seen >= 6, "{name}: {} points", points.seen);
        let n = case.labels.len() as u64;
        let passes = points.seen as u64 + 1;
        let gradients = n * passes.min(config.steps as u64);
        assert_eq!(
            target_model.image_passes(),
            ImagePasses { queries: n * (passes + 1), gradients },
            "{name}: one pass is the targets'"
        );
    }
}

fn fab_is_pytorchs<B: Backend>(backend: &B) {
    let oracle = Oracle::load("suite");
    let (_, model) = recorded(backend, "lenet");
    let case = Case::of(backend, &oracle, "fab");
    let target_model = TargetModel::new(backend, &model, &uncounted);
    let targets = target_model.logits(&case.clean).unwrap().ranked(2);
    let config = FabConfig { steps: 8, ..FabConfig::published(EPS) };
    let (last, iterates) = case.points.split_last().unwrap();
    let mut points = Points { name: "fab", backend, expected: iterates, seen: 0 };
    let found = config.attack(&target_model, &case.clean, &case.labels, &targets, |x| points.compare(x)).unwrap();
    assert_eq!(points.seen, 8);
    nearly_all_agree("fab: nearest", &found.values(backend), last, 1e-5);
    assert!(target_model.logits(&found).unwrap().wrong(&case.labels).iter().all(|&wrong| wrong), "both cross");
}

fn square_is_pytorchs<B: Backend>(backend: &B) {
    let oracle = Oracle::load("suite");
    let (_, model) = recorded(backend, "lenet");
    let case = Case::of(backend, &oracle, "square");
    let corners = oracle.integers("square.corners");
    let signs = oracle.values("square.signs");
    let config = SquareConfig { queries: signs.len(), ..SquareConfig::published(EPS) };
    let propose = |query: usize, _| SquareUpdate {
        top: corners[2 * query] as u32,
        left: corners[2 * query + 1] as u32,
        side: config.side(28, 28, query) as u32,
        up: u32::from(signs[query] > 0.0),
    };
    let target_model = TargetModel::new(backend, &model, &uncounted);
    let start = case.batch(backend, case.points[0]);
    let best = config.attack(&target_model, &case.clean, &case.labels, start, propose).unwrap();
    assert_close("square: best", &best.values(backend), case.points[1], 1e-6, 0.0);
    let queries = case.labels.len() as u64 * (1 + signs.len() as u64);
    assert_eq!(target_model.image_passes(), ImagePasses { queries, gradients: 0 });
}

fn cw_l2_is_pytorchs<B: Backend>(backend: &B) {
    let oracle = Oracle::load("suite");
    let (_, model) = recorded(backend, "lenet");
    let case = Case::of(backend, &oracle, "cw_l2");
    let (_, iterates) = case.points.split_last().unwrap();
    let config = CwL2Config { steps: iterates.len(), kappa: 50.0, ..CwL2Config::published(1.0) };
    let target_model = TargetModel::new(backend, &model, &uncounted);
    let mut nearest = Nearest::none(backend, &case.clean);
    let mut seen = 0;
    let weights = vec![100.0; case.labels.len()];
    config
        .descend(&target_model, &case.clean, &case.labels, &weights, &mut nearest, |x| {
            // Adam divides by the gradient: where that is next to nothing, rounding decides. And the recorded attack goes
            // to tanh space without the factor that keeps black and white pixels finite.
            nearly_all_agree(&format!("cw_l2: point {seen}"), &x.values(backend), iterates[seen], 1e-4);
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 20);
}
