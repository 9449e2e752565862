//! The attack on a LeNet by one kernel against the same attack op by op.

use std::sync::Arc;

use engine::attack::pgd::{Batch, Pgd, Start};
use engine::attack::{AttackLoss, PgdConfig};
use engine::backend::{Ascent, Backend, Counts, LossKind};
use engine::dims::LeNetDims;
use engine::init::{Init, initial_values};
use engine::models::{Architecture, Mode, Model, Network};
use engine::rng::{Rng, Stream};
use engine::tensor::Tensor;

use crate::backends::{labels, on_cuda, uniform};
use crate::small_runs::attack;

on_cuda! { the_same_images, no_steps, what_does_not_fit_goes_op_by_op, nan_stays_where_it_is }

const N: usize = 5;

fn model<B: Backend>(backend: &B, architecture: Architecture) -> Model<B> {
    let values = initial_values(&architecture, Init::KaimingNormal, 5);
    Model::new(backend, Arc::new(architecture), &values).unwrap()
}

/// LeNets of the paper, a shrunk one with odd sizes, and one with as many classes as there may be.
fn networks() -> [Architecture; 4] {
    [
        Architecture::new(Network::LeNet, 1, 10).unwrap(),
        Architecture::new(Network::LeNet, 2, 10).unwrap(),
        Architecture::shrunk(Network::LeNet, 4, vec![5, 3, 17], 10).unwrap(),
        Architecture::new(Network::LeNet, 1, 32).unwrap(),
    ]
}

/// The adversarial images and what was counted; `whole` as one kernel.
fn attacked<B: Backend>(backend: &B, model: &Model<B>, config: &PgdConfig, whole: bool) -> (Vec<f32>, Counts) {
    let rng = Rng::new(9, Stream::Init, 4);
    let start = Start { rng: &rng, first: 3, strength: 0.75 };
    let clean = uniform(1, N * 784);
    let images = Tensor::batch(backend, [N, 1, 28, 28], &clean);
    let labels = backend.labels(&labels(2, N, model.architecture().classes as u32));
    let (batch, mut tally) = (Batch { images, labels: &labels }, backend.tally());
    let pgd = Pgd { backend, model, mode: Mode::Train, config };
    let x = if whole {
        let mut passes = 0;
        let x = pgd.attack(start, &batch, &mut tally, |_| passes += 1).unwrap();
        assert_eq!(passes, config.steps);
        x
    } else {
        let eps = start.strength * config.eps;
        let x = match config.random_start {
            true => backend.random_start(N, 784, eps, &rng, start.first, batch.images.buf()),
            false => backend.copy(batch.images.buf()),
        };
        let x = Tensor::new(x, batch.images.shape().clone());
        pgd.ascend(start.strength, &batch, x, &mut tally, drop).unwrap()
    };
    (x.values(backend), backend.tally_read(&tally))
}

pub fn the_same_images<B: Backend>(backend: &B) {
    for architecture in networks() {
        let model = model(backend, architecture);
        for (loss, random_start) in [(AttackLoss::CrossEntropy, true), (AttackLoss::Margin, false)] {
            let config = PgdConfig { loss, random_start, ..attack(3) };
            let (got, counts) = attacked(backend, &model, &config, true);
            let (want, wanted) = attacked(backend, &model, &config, false);
            let near = |(a, b): &(&f32, &f32)| (*a - *b).abs() <= 1e-6;
            let different = want.len() - got.iter().zip(&want).filter(near).count();
            // The sign of a gradient that is zero but for rounding is a coin toss.
            assert!(different <= want.len() / 1000, "{loss:?}: {different} of {} pixels differ", want.len());
            assert_eq!(counts.gradients, (3 * N * 784) as u64);
            assert!(counts.zero_gradients.abs_diff(wanted.zero_gradients) <= 20, "{counts:?}, {wanted:?}");
            assert!(counts.zero_gradients < counts.gradients / 2, "{counts:?}");
        }
    }
}

fn no_steps<B: Backend>(backend: &B) {
    let model = model(backend, Architecture::new(Network::LeNet, 1, 10).unwrap());
    let config = attack(0);
    let (got, want) = (attacked(backend, &model, &config, true), attacked(backend, &model, &config, false));
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!((bits(&got.0), got.1), (bits(&want.0), want.1), "random starts");
}

/// Whether one kernel does it.
fn fits<B: Backend>(backend: &B, architecture: Architecture) -> bool {
    let d = architecture.lenet(1).unwrap();
    let model = model(backend, architecture);
    let params: Vec<&B::Buf> = model.params().iter().map(Tensor::buf).collect();
    let clean = backend.upload_batch(1, &uniform(1, 784));
    let ascent = Ascent { eps: 0.3, step: 0.1, steps: 1, loss: LossKind::CrossEntropy, start: None };
    let (labels, mut tally) = (backend.labels(&[3]), backend.tally());
    backend.attack_lenet(&d, &ascent, params.try_into().ok().unwrap(), &clean, &labels, &mut tally).is_some()
}

fn what_does_not_fit_goes_op_by_op<B: Backend>(backend: &B) {
    assert!(networks().into_iter().all(|network| fits(backend, network)));
    assert!(!fits(backend, Architecture::new(Network::LeNet, 4, 10).unwrap()));
    assert!(!fits(backend, Architecture::new(Network::LeNet, 1, 33).unwrap()));
    assert!(!fits(backend, Architecture::shrunk(Network::LeNet, 4, vec![6, 1, 1], 10).unwrap()));
    assert_eq!(Architecture::new(Network::LeNetCifar, 1, 10).unwrap().lenet(1), None);
    let d = Architecture::shrunk(Network::LeNet, 4, vec![6, 1, 2], 10).unwrap().lenet(7);
    assert_eq!(d, Some(LeNetDims { n: 7, c1: 6, c2: 1, f1: 2, classes: 10 }));
}

/// A NaN in the weights reaches every pixel's gradient, which has no sign: no pixel moves, and none is counted as zero.
fn nan_stays_where_it_is<B: Backend>(backend: &B) {
    let architecture = Architecture::new(Network::LeNet, 1, 10).unwrap();
    let mut values = initial_values(&architecture, Init::KaimingNormal, 5);
    // The classifier's bias.
    values[7][0] = f32::NAN;
    let model = Model::new(backend, Arc::new(architecture), &values).unwrap();
    let config = attack(1);
    let (got, want) = (attacked(backend, &model, &config, true), attacked(backend, &model, &config, false));
    assert_eq!(got, want);
}
