//! The attack on a LeNet by one kernel against the same attack op by op: nearly the same images where sums are rounded, the same
//! bits where they are exact.

use std::sync::Arc;

use engine::attack::pgd;
use engine::attack::pgd::{PgdAttack, Start};
use engine::attack::{AttackLoss, PgdConfig};
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Activation, Backend, Conv, LossKind, Memory, Metrics, PgdParams, Pool};
use engine::base::dims::{Conv2dDims, Pool2dDims};
use engine::base::rng::{Rng, Stream};
use engine::nn::init::{Init, initial_values};
use engine::nn::models::{Architecture, Mode, Model, Network};

use crate::backends::{labels, on_cuda, uniform};
use crate::compare::{bits, count_apart};
use crate::small_runs::attack;

on_cuda! { the_same_images, the_same_bits, no_steps, what_does_not_fit_goes_op_by_op, nan_stays_where_it_is }

const N: usize = 5;

fn model<B: Backend>(backend: &B, architecture: Architecture) -> Model<B> {
    let values = initial_values(&architecture, Init::KaimingNormal, 5);
    Model::new(backend, Arc::new(architecture), &values).unwrap()
}

/// LeNets of the paper, a shrunk one with odd sizes, one with as many classes as there may be, and ones with more of conv2's
/// channels and of hidden units than the block takes at a time.
fn networks() -> [Architecture; 6] {
    [
        Architecture::new(Network::LeNet, 1, 10).unwrap(),
        Architecture::new(Network::LeNet, 2, 10).unwrap(),
        Architecture::shrunk(Network::LeNet, 4, vec![5, 3, 17], 10).unwrap(),
        Architecture::new(Network::LeNet, 1, 32).unwrap(),
        Architecture::shrunk(Network::LeNet, 4, vec![3, 11, 17], 10).unwrap(),
        Architecture::shrunk(Network::LeNet, 8, vec![2, 2, 257], 10).unwrap(),
    ]
}

/// Images and their labels.
struct Batch {
    clean: Vec<f32>,
    labels: Vec<u8>,
}

impl Batch {
    fn random(classes: usize) -> Self {
        Batch { clean: uniform(1, N * 784), labels: labels(2, N, classes as u32) }
    }
}

/// The adversarial images and what was counted; `whole` as one kernel.
fn attacked<B: Backend>(
    backend: &B,
    model: &Model<B>,
    config: &PgdConfig,
    batch: &Batch,
    whole: bool,
) -> (Vec<f32>, Metrics) {
    let rng = Rng::new(9, Stream::Init, 4);
    let start = Start { rng: &rng, first: 3 };
    let config = &config.scaled(0.75);
    let images = Tensor::upload(backend, [N, 1, 28, 28], &batch.clean);
    let labels = backend.labels(&batch.labels);
    let (batch, mut metrics) = (pgd::Batch { images, labels: &labels }, backend.metrics());
    let pgd = PgdAttack { backend, model, mode: Mode::Train, config };
    let x = if whole {
        let mut passes = 0;
        let x = pgd.attack(start, &batch, &mut metrics, |_| passes += 1).unwrap();
        assert_eq!(passes, config.steps);
        x
    } else {
        let x = match config.random_start {
            true => backend.random_start(N, 784, config.eps, &rng, start.first, batch.images.buf()),
            false => backend.copy_batch(batch.images.buf()),
        };
        let x = Tensor::new(x, batch.images.shape().clone());
        pgd.ascend(&batch, x, &mut metrics, drop).unwrap()
    };
    (x.values(backend), backend.metrics_read(&metrics))
}

fn the_same_images<B: Backend>(backend: &B) {
    for architecture in networks() {
        let batch = Batch::random(architecture.classes);
        let model = model(backend, architecture);
        for (loss, random_start) in [(AttackLoss::CrossEntropy, true), (AttackLoss::Margin, false)] {
            let config = PgdConfig { loss, random_start, ..attack(3) };
            let (got, counts) = attacked(backend, &model, &config, &batch, true);
            let (want, wanted) = attacked(backend, &model, &config, &batch, false);
            let different = count_apart("pixels", &got, &want, 0.0, 1e-6);
            // Rounding decides the sign of a gradient that is next to nothing and the argmax of a window whose pixels are next
            // to equal. Either is seen once in some attacks; then the next step's gradients are others, and some more signs.
            assert!(different <= want.len() / 100, "{loss:?}: {different} of {} pixels differ", want.len());
            assert_eq!(counts.gradients, (3 * N * 784) as u64);
            assert!(counts.zero_gradients.abs_diff(wanted.zero_gradients) <= 40, "{counts:?}, {wanted:?}");
            assert!(counts.zero_gradients < counts.gradients / 2, "{counts:?}");
        }
    }
}

/// Weights are -1, 0 or 1, pixels and steps multiples of a quarter, and the margin's gradient is -1, 0 or 1: every sum is exact in
/// whatever order, so that no bit may differ. In many windows two pixels or more are the largest, and the gradient goes to
/// the first of them.
pub fn the_same_bits<B: Backend>(backend: &B) {
    const LABEL: u8 = 3;
    let cpu = Cpu::<f64>::new(2).unwrap();
    let config = PgdConfig { eps: 1.0, step_size: 0.5, loss: AttackLoss::Margin, random_start: false, ..attack(3) };
    // Squares of 4 x 4 equal pixels.
    let squares = uniform(1, N * 49);
    let square = |i: usize| squares[i / 784 * 49 + i / 28 % 28 / 4 * 7 + i % 28 / 4];
    let clean = (0..N * 784).map(|i| (3.0 * square(i)).floor() / 2.0).collect();
    let batch = Batch { clean, labels: vec![LABEL; N] };
    for architecture in networks() {
        let channels = [0, 2].map(|weight| architecture.params[weight].shape[0]);
        let values = small_integers(&architecture, LABEL);
        let ties = ties(channels, &values, &batch.clean);
        assert!(ties[0] > 100 && ties[1] > 5, "{channels:?}: {ties:?} windows have more than one maximum");

        let architecture = Arc::new(architecture);
        let exact = Model::new(&cpu, architecture.clone(), &values).unwrap();
        let want = attacked(&cpu, &exact, &config, &batch, false);
        assert!(want.1.zero_gradients < want.1.gradients / 2, "{:?}", want.1);
        let model = Model::new(backend, architecture, &values).unwrap();
        for whole in [true, false] {
            let got = attacked(backend, &model, &config, &batch, whole);
            let different = count_apart("pixels", &got.0, &want.0, 0.0, 0.0);
            assert_eq!((different, got.1), (0, want.1), "{channels:?}, as one kernel: {whole}; pixels that differ");
        }
    }
}

/// Weights of -1, 0 and 1, most of conv2's 0 so that its sums are equal more often. `label` is so far ahead that the attack never
/// gets there: a margin below zero has no gradient.
fn small_integers(architecture: &Architecture, label: u8) -> Vec<Vec<f32>> {
    let mut values: Vec<Vec<f32>> = Vec::new();
    for (i, param) in architecture.params.iter().enumerate() {
        let kinds = if i == 2 { 10.0 } else { 3.0 };
        let integer = |u: &f32| match (kinds * u) as u32 {
            0 => -1.0,
            1 => 1.0,
            _ => 0.0,
        };
        values.push(uniform(5 + i as u64, param.len()).iter().map(integer).collect());
    }
    values[7][usize::from(label)] = 10_000.0;
    values
}

/// In how many windows of each pooling more than one pixel has the largest value, and it is positive.
fn ties([c1, c2]: [usize; 2], values: &[Vec<f32>], clean: &[f32]) -> [usize; 2] {
    let cpu = Cpu::<f64>::new(2).unwrap();
    let mut x = cpu.upload_batch(N, clean);
    [(1, 28, c1, 0), (c1, 14, c2, 2)].map(|(c_in, side, c_out, weight)| {
        let d = Conv2dDims::new([N, c_in, side, side], c_out, 5, 1, 2).unwrap();
        let [w, b] = [weight, weight + 1].map(|i| cpu.upload(&values[i]));
        let y = cpu.conv2d_fwd(&d, &x, &w, Some(&b), Activation::Relu);
        x = cpu.max_pool2d_fwd(&Pool2dDims::new(d.y(), 2, 2).unwrap(), &y).0;
        let pixels = cpu.download_batch(N, &y);
        let tied = |window: &usize| {
            let at = window / (side / 2) * 2 * side + window % (side / 2) * 2;
            let four = [at, at + 1, at + side, at + side + 1].map(|i| pixels[i]);
            let largest = four.into_iter().fold(0.0, f32::max);
            largest > 0.0 && four.iter().filter(|&&pixel| pixel == largest).count() > 1
        };
        (0..pixels.len() / 4).filter(tied).count()
    })
}

fn no_steps<B: Backend>(backend: &B) {
    let model = model(backend, Architecture::new(Network::LeNet, 1, 10).unwrap());
    let (config, batch) = (attack(0), Batch::random(10));
    let [got, want] = [true, false].map(|whole| attacked(backend, &model, &config, &batch, whole));
    assert_eq!((bits(&got.0), got.1), (bits(&want.0), want.1), "random starts");
}

/// Whether one kernel does it.
fn fits<B: Backend>(backend: &B, architecture: Architecture) -> bool {
    let model = model(backend, architecture);
    let network = model.sequential(1).unwrap();
    let clean = backend.upload_batch(1, &uniform(1, 784));
    let pgd = PgdParams { eps: 0.3, step_size: 0.1, steps: 1, loss: LossKind::CrossEntropy, start: None };
    let (labels, mut metrics) = (backend.labels(&[3]), backend.metrics());
    backend.fused_pgd(&network, &pgd, &clean, &labels, &mut metrics).is_some()
}

fn what_does_not_fit_goes_op_by_op<B: Backend>(backend: &B) {
    assert!(networks().into_iter().all(|network| fits(backend, network)));
    assert!(!fits(backend, Architecture::new(Network::LeNet, 4, 10).unwrap()));
    assert!(!fits(backend, Architecture::new(Network::LeNet, 1, 33).unwrap()));
    assert!(!fits(backend, Architecture::shrunk(Network::LeNet, 4, vec![6, 1, 1], 10).unwrap()));
    assert!(!fits(backend, Architecture::new(Network::LeNetCifar, 1, 10).unwrap()));
}

/// A NaN in the weights reaches every pixel's gradient, which has no sign: no pixel moves, and none is counted as zero.
fn nan_stays_where_it_is<B: Backend>(backend: &B) {
    let architecture = Architecture::new(Network::LeNet, 1, 10).unwrap();
    let mut values = initial_values(&architecture, Init::KaimingNormal, 5);
    // The classifier's bias.
    values[7][0] = f32::NAN;
    let model = Model::new(backend, Arc::new(architecture), &values).unwrap();
    let (config, batch) = (attack(1), Batch::random(10));
    let [got, want] = [true, false].map(|whole| attacked(backend, &model, &config, &batch, whole));
    assert_eq!(got, want);
}
