//! Projected gradient descent: PyTorch's iterates, its cost, and that it attacks.
//!
//! - `evaluation`: natural and adversarial accuracy by their definition

use std::sync::atomic::{AtomicU64, Ordering};

use engine::attack::evaluation::{EvalReport, Subset, evaluate, image_passes};
use engine::attack::pgd;
use engine::attack::pgd::{PgdAttack, Start};
use engine::attack::{AttackLoss, BnMode, PgdConfig};
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::{Cpu, Kernel};
use engine::backend::{Backend, Images, Loss, Memory, Metrics};
use engine::base::error::Error;
use engine::base::rng::{Rng, Stream};
use engine::nn::models::{Mode, Model, Network};

use crate::backends::{labels, on_every_backend, uniform};
use crate::compare::{assert_close, count_apart};
use crate::networks::{self, recorded, zeros};
use crate::oracle::Oracle;
use crate::small_runs::{attack, digits, trained};

mod evaluation;

on_every_backend! {
    iterates_are_pytorchs, parts_of_a_batch_are_attacked_alike, dead_networks_have_no_gradient, a_weak_step_is_short,
    a_weak_attack_begins_in_its_ball,
}

/// Pixels of the ten iterates of a case that may differ, less than one of each image in each step. The recorded networks and
/// images are such that rounding decides no sign (`tests/oracle/README.md`), as far as the roundings of the CPU's paths and
/// of host-compiled kernels show; a GPU has others.
const FLIPS: usize = 8;

/// Ten steps, each from the iterate recorded before it, and compared with the next; the zeros counted are the recorded ones.
fn iterates_are_pytorchs<B: Backend>(backend: &B) {
    let oracle = Oracle::load("pgd");
    for (case, constants) in oracle.metadata("cases").as_object().expect("cases by name") {
        let text = |key: &str| constants[key].as_str().unwrap_or_else(|| panic!("{case}: no {key}"));
        let number = |key: &str| constants[key].as_f64().unwrap_or_else(|| panic!("{case}: no {key}")) as f32;
        let (_, model) = recorded(backend, text("network"));
        let before = model.state(backend);
        let mode = if text("bn") == "train" { Mode::Train } else { Mode::Eval };
        let loss: AttackLoss = text("loss").parse().unwrap();
        let config = PgdConfig { eps: number("eps"), step_size: number("step_size"), loss, ..attack(1) };
        let labels = networks::labels(&oracle, &format!("{case}.labels"));
        let n = labels.len();
        let values = |of: &str| oracle.values(&format!("{case}.{of}"));
        let images = |values| Tensor::new(backend.upload_batch(n, values), model.input(n));
        let clean = pgd::Batch { images: images(values("clean")), labels: &backend.labels(&labels) };
        let mut from = values("start");
        let mut flips = 0;
        for step in 0..10 {
            let pgd = PgdAttack { backend, model: &model, mode, config: &config };
            let mut metrics = backend.metrics();
            let x = pgd.ascend(&clean, images(from), &mut metrics, drop).unwrap().values(backend);
            let counts = backend.metrics_read(&metrics);
            let want = values(&format!("step{step}.x"));
            let what = format!("{case}: x after step {step}");
            // A wrong sign is an error of up to twice the step size, 0.01 or more.
            flips += count_apart(&what, &x, want, 1e-6, 0.0);
            assert_close(&what, &x, want, 1e-6, 2.0 * f64::from(config.step_size));
            let signs = values(&format!("step{step}.sign"));
            let zeros = signs.iter().filter(|&&sign| sign == 0.0).count() as u64;
            assert_eq!(counts.gradients, signs.len() as u64, "{what}");
            assert!(counts.zero_gradients.abs_diff(zeros) <= flips as u64, "{what}: {counts:?}, zeros {zeros}");
            from = want;
        }
        assert!(flips <= FLIPS, "{case}: {flips} pixels differ");
        assert_eq!(model.state(backend), before, "{case}: an attack moves nothing");
    }
}

/// The images and labels of an attack on random pixels, and its random numbers.
struct Batch {
    n: usize,
    images: Vec<f32>,
    labels: Vec<u8>,
    rng: Rng,
}

impl Batch {
    fn new(n: usize) -> Self {
        let (images, labels) = (uniform(1, n * 784), labels(2, n, 10));
        Batch { n, images, labels, rng: Rng::new(3, Stream::TrainAttack, 0) }
    }

    fn start(&self) -> Start<'_> {
        Start { rng: &self.rng, first: 40 }
    }

    /// Adversarial images and counts at half the strength, of the batch as a whole.
    fn attack<B: Backend>(&self, backend: &B, model: &Model<B>, config: &PgdConfig) -> (Vec<f32>, Metrics) {
        let pgd = PgdAttack { backend, model, mode: Mode::Train, config: &config.scaled(0.5) };
        self.run(backend, model, |batch, metrics| pgd.attack(self.start(), batch, metrics, drop))
    }

    /// The same in parts.
    fn attack_in_parts<B: Backend>(&self, backend: &B, model: &Model<B>, config: &PgdConfig) -> (Vec<f32>, Metrics) {
        let pgd = PgdAttack { backend, model, mode: Mode::Train, config: &config.scaled(0.5) };
        self.run(backend, model, |batch, metrics| pgd.attack_in_parts(self.start(), batch, metrics))
    }

    fn run<B: Backend>(
        &self,
        backend: &B,
        model: &Model<B>,
        attack: impl FnOnce(&pgd::Batch<'_, B>, &mut B::MetricsBuf) -> Result<Tensor<B>, Error>,
    ) -> (Vec<f32>, Metrics) {
        let images = Tensor::new(backend.upload_batch(self.n, &self.images), model.input(self.n));
        let mut metrics = backend.metrics();
        let batch = pgd::Batch { images, labels: &backend.labels(&self.labels) };
        let attacked = attack(&batch, &mut metrics).unwrap();
        (attacked.values(backend), backend.metrics_read(&metrics))
    }
}

fn parts_of_a_batch_are_attacked_alike<B: Backend>(backend: &B) {
    let (_, model) = recorded(backend, "lenet");
    for n in [3, 8, 21] {
        let batch = Batch::new(n);
        let whole = batch.attack(backend, &model, &attack(4));
        assert_eq!(batch.attack_in_parts(backend, &model, &attack(4)), whole, "batch of {n}");
        let furthest = whole.0.iter().zip(&batch.images).map(|(x, clean)| (x - clean).abs()).fold(0.0, f32::max);
        assert!((0.149..0.150_001).contains(&furthest), "half of eps, the strength: {furthest}");
    }
}

fn dead_networks_have_no_gradient<B: Backend>(backend: &B) {
    let (dead, batch) = (zeros(backend, Network::LeNet), Batch::new(9));
    let config = PgdConfig { random_start: false, ..attack(3) };
    let (x, counts) = batch.attack(backend, &dead, &config);
    assert_eq!(x, batch.images, "sign(0) = 0: nothing moves");
    assert_eq!((counts.gradients, counts.zero_gradient()), (3 * 9 * 784, 1.0));
    let (_, alive) = recorded(backend, "lenet");
    assert!(batch.attack(backend, &alive, &config).1.zero_gradient() < 0.5);
}

/// The strength of a training schedule is of the step, too.
fn a_weak_step_is_short<B: Backend>(backend: &B) {
    let ((_, model), batch) = (recorded(backend, "lenet"), Batch::new(9));
    let config = PgdConfig { step_size: 0.07, random_start: false, ..attack(1) };
    let (x, counts) = batch.attack(backend, &model, &config);
    let mut moved = 0;
    for (i, (x, clean)) in x.iter().zip(&batch.images).enumerate() {
        let steps = [0.0, -0.035, 0.035].map(|step: f32| (clean + step).clamp(0.0, 1.0));
        assert!(steps.iter().any(|step| (step - x).abs() < 1e-6), "pixel {i}: {clean} becomes {x}");
        moved += u64::from(x != clean);
    }
    assert!(moved.abs_diff(counts.gradients - counts.zero_gradients) <= counts.gradients / 1000, "{moved}: {counts:?}");
}

/// Drawn from the small ball, not from the large one and cut off.
fn a_weak_attack_begins_in_its_ball<B: Backend>(backend: &B) {
    let ((_, model), batch) = (recorded(backend, "lenet"), Batch::new(9));
    let (x, _) = batch.attack(backend, &model, &PgdConfig { step_size: 0.0, ..attack(1) });
    let clean = backend.upload_batch(9, &batch.images);
    let start = backend.random_start(9, 784, 0.15, &batch.rng, 40, &clean);
    assert_close("start", &x, &backend.download_batch(9, &start), 1e-6, 0.0);
}

/// Batch statistics are those of the whole batch: it must not be cut up.
#[test]
fn images_that_depend_on_each_other_are_attacked_together() {
    let backend = Cpu::<f32>::new(2).unwrap();
    let (_, model) = recorded(&backend, "resnet18");
    let (n, config) = (19, attack(2));
    let (pixels, labels, rng) = (uniform(4, n * 3072), labels(5, n, 10), Rng::new(6, Stream::TrainAttack, 0));
    let images = Tensor::new(backend.upload_batch(n, &pixels), model.input(n));
    let batch = pgd::Batch { images, labels: &backend.labels(&labels) };
    let start = Start { rng: &rng, first: 7 };
    let attacked = [Mode::Train, Mode::Eval].map(|mode| {
        let pgd = PgdAttack { backend: &backend, model: &model, mode, config: &config };
        let whole = pgd.attack(start, &batch, &mut backend.metrics(), drop).unwrap().values(&backend);
        let parts = pgd.attack_in_parts(start, &batch, &mut backend.metrics()).unwrap().values(&backend);
        assert_eq!(whole, parts, "{mode:?}");
        whole
    });
    assert_ne!(attacked[0], attacked[1]);
}

#[test]
fn threads_do_not_change_a_bit() {
    let attacked = |threads: usize| {
        let backend = Cpu::<f32>::new(threads).unwrap();
        let (_, model) = recorded(&backend, "lenet");
        Batch::new(37).attack_in_parts(&backend, &model, &attack(5))
    };
    assert_eq!(attacked(1), attacked(2));
}

#[test]
fn a_step_computes_no_weight_gradient() {
    let backend = Cpu::<f32>::new(2).unwrap();
    let (_, model) = recorded(&backend, "lenet");
    let calls = || Kernel::ALL.iter().map(|&kernel| (kernel.name(), backend.calls(kernel))).collect::<Vec<_>>();
    assert!(calls().iter().all(|(_, calls)| *calls == 0));
    Batch::new(8).attack(&backend, &model, &attack(5));
    for (kernel, calls) in calls() {
        let expected = match kernel {
            "conv2d_fwd" | "conv2d_bwd_input" | "linear_fwd" | "linear_bwd_input" => 2 * 5,
            "pgd_step" => 5,
            _ => 0,
        };
        assert_eq!(calls, expected, "{kernel}");
    }
}

#[test]
fn moving_statistics_are_handed_out_and_move_only_then() {
    let backend = Cpu::<f32>::new(2).unwrap();
    let (_, mut model) = recorded(&backend, "resnet18");
    let before = model.state(&backend);
    let (images, labels, rng) = (uniform(4, 5 * 3072), labels(5, 5, 10), Rng::new(6, Stream::TrainAttack, 0));
    let images = Tensor::new(backend.upload_batch(5, &images), model.input(5));
    let batch = pgd::Batch { images, labels: &backend.labels(&labels) };
    let start = Start { rng: &rng, first: 0 };
    for (mode, moves) in [(Mode::Eval, false), (Mode::Train, true)] {
        let mut met = Vec::new();
        let config = PgdConfig { bn: BnMode::TrainMoving, ..attack(3) };
        let pgd = PgdAttack { backend: &backend, model: &model, mode, config: &config };
        pgd.attack(start, &batch, &mut backend.metrics(), |stats| met.push(stats)).unwrap();
        assert_eq!(met.len(), 3, "one for each pass");
        assert_eq!(model.state(&backend), before);
        met.into_iter().for_each(|stats| model.update_running_stats(&backend, stats).unwrap());
        assert_eq!(model.state(&backend) != before, moves);
    }
}

/// Accuracy on the first 100 test images of the sample.
fn accuracy(backend: &Cpu<f32>, model: &Model<Cpu<f32>>, config: Option<&PgdConfig>) -> EvalReport {
    let data = digits(1, 100);
    let images = backend.resident(data.shape, &data.test.images);
    let indices: Vec<u32> = (0..100).collect();
    let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
    evaluate(backend, model, &subset, config, 7, &|_| Ok(())).unwrap()
}

#[test]
fn stronger_attacks_leave_less_accuracy() {
    let backend = Cpu::<f32>::new(2).unwrap();
    let model = trained(&backend);
    let clean = accuracy(&backend, &model, None);
    assert!(clean.natural > 70.0 && clean.constant_prediction.is_none(), "{clean:?}");
    assert_eq!((clean.adversarial, clean.adversarial_loss), (clean.natural, clean.natural_loss));

    for loss in [AttackLoss::CrossEntropy, AttackLoss::Margin] {
        let at = |eps: f32| {
            let config = PgdConfig { eps, step_size: 0.05, loss, ..attack(40) };
            accuracy(&backend, &model, Some(&config))
        };
        let reports = [0.0, 0.05, 0.1, 1.0].map(at);
        assert_eq!(reports[0].adversarial, clean.natural, "{loss}: no radius, no attack");
        for pair in reports.windows(2) {
            assert!(pair[1].adversarial < pair[0].adversarial, "{loss}: {pair:?}");
            assert!(pair[1].adversarial_loss > pair[0].adversarial_loss, "{loss}: {pair:?}");
            assert_eq!(pair[1].natural, clean.natural);
        }
        assert!(reports[3].adversarial < 3.0, "{loss}: every image is in the ball: {:?}", reports[3]);
    }
}

#[test]
fn restarts_never_raise_accuracy() {
    let backend = Cpu::<f32>::new(2).unwrap();
    let model = trained(&backend);
    let with = |restarts: usize| {
        // One short step from a random point: what is found depends on the point.
        let config = PgdConfig { eps: 0.1, step_size: 0.02, restarts, ..attack(1) };
        accuracy(&backend, &model, Some(&config)).adversarial
    };
    let accuracies: Vec<f64> = (1..=6).map(with).collect();
    assert!(accuracies.windows(2).all(|pair| pair[1] <= pair[0]), "{accuracies:?}");
    assert!(accuracies[5] < accuracies[0], "six starts find more than one: {accuracies:?}");
}

#[test]
fn image_passes_add_up() {
    let backend = Cpu::<f32>::new(2).unwrap();
    let model = trained(&backend);
    let data = digits(1, 100);
    let images = backend.resident(data.shape, &data.test.images);
    let indices: Vec<u32> = (30..90).collect();
    let subset = Subset { images: &images, labels: &data.test.labels, indices: &indices };
    let config = PgdConfig { restarts: 4, ..attack(2) };
    let ticked = AtomicU64::new(0);
    let count = |n: u64| {
        ticked.fetch_add(n, Ordering::Relaxed);
        Ok(())
    };
    evaluate(&backend, &model, &subset, Some(&config), 7, &count).unwrap();
    assert_eq!(ticked.into_inner(), image_passes(60, Some(&config)));
}

#[test]
fn an_evaluation_ends_with_the_error_of_its_counter() {
    let backend = Cpu::<f32>::new(1).unwrap();
    let model = trained(&backend);
    let data = digits(1, 10);
    let images = backend.resident(data.shape, &data.test.images);
    let subset = Subset { images: &images, labels: &data.test.labels, indices: &[0, 1, 2] };
    // After the clean images, inside the attack, and after it.
    for last in 1..=4 {
        let ticks = AtomicU64::new(0);
        let count = |_| match ticks.fetch_add(1, Ordering::Relaxed) + 1 {
            n if n >= last => Err(Error::Interrupted),
            _ => Ok(()),
        };
        let outcome = evaluate(&backend, &model, &subset, Some(&attack(2)), 7, &count);
        assert!(matches!(outcome, Err(Error::Interrupted)), "{last}: {outcome:?}");
        assert_eq!(ticks.into_inner(), last, "no pass after the error");
    }
}
