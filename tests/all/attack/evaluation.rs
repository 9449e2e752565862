//! Natural and adversarial accuracy, by their definition: all images at once, by the network's running statistics.

use engine::attack::PgdConfig;
use engine::attack::evaluation;
use engine::attack::evaluation::{EvalReport, Subset, evaluate, image_passes};
use engine::attack::pgd::{Batch, PgdAttack, Start};
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::Cpu;
use engine::backend::{Images, Loss, Memory};
use engine::base::rng::{Rng, Stream};
use engine::data::{Dataset, DatasetName, Split};
use engine::nn::models::{Mode, Model};

use crate::compare::assert_close;
use crate::networks::{pass, recorded};
use crate::small_runs::{attack, digits, trained};
use crate::suite::pixel;

type F32 = Cpu<f32>;

const SEED: u64 = 9;

/// Some images of a split, and a network.
struct Setting<'s> {
    backend: &'s F32,
    model: &'s Model<F32>,
    split: &'s Split,
    indices: Vec<u32>,
}

/// What the network makes of all images.
struct Outcome {
    right: Vec<bool>,
    predictions: Vec<usize>,
    loss: f64,
}

impl Setting<'_> {
    fn with<T>(&self, f: impl FnOnce(&Subset<'_, '_, F32>) -> T) -> T {
        let images = self.backend.resident(self.model.architecture().network.input(), &self.split.images);
        f(&Subset { images: &images, labels: &self.split.labels, indices: &self.indices })
    }

    fn evaluate(&self, attack: Option<&PgdConfig>) -> EvalReport {
        self.with(|subset| evaluate(self.backend, self.model, subset, attack, SEED, &|_| Ok(())).unwrap())
    }

    fn labels(&self) -> Vec<u8> {
        self.indices.iter().map(|&i| self.split.labels[i as usize]).collect()
    }

    fn clean(&self) -> Tensor<F32> {
        let bytes = self.indices.iter().flat_map(|&i| self.split.image(i as usize));
        let pixels: Vec<f32> = bytes.map(|&byte| f32::from(byte) / 255.0).collect();
        let n = self.indices.len();
        Tensor::new(self.backend.upload_batch(n, &pixels), self.model.input(n))
    }

    fn logits(&self, x: Tensor<F32>) -> Vec<f32> {
        pass(self.backend, self.model, Mode::Eval, 1.0, x, &self.labels()).logits
    }

    fn outcome(&self, x: Tensor<F32>) -> Outcome {
        let (logits, labels) = (self.logits(x), self.labels());
        let rows = logits.chunks(self.model.architecture().classes);
        let prediction = |z: &[f32]| (0..z.len()).rev().max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
        let predictions: Vec<usize> = rows.clone().map(prediction).collect();
        let right = predictions.iter().zip(&labels).map(|(p, label)| *p == usize::from(*label)).collect();
        let cross_entropy = |(z, label): (&[f32], &u8)| {
            z.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln() - f64::from(z[usize::from(*label)])
        };
        let loss = rows.zip(&labels).map(cross_entropy).sum::<f64>() / labels.len() as f64;
        Outcome { right, predictions, loss }
    }

    /// Start `restart`, whose random numbers are those of the images' places.
    fn attacked(&self, config: &PgdConfig, restart: u32, zeros: &mut Vec<f64>) -> Tensor<F32> {
        let (backend, labels) = (self.backend, self.labels());
        let rng = Rng::new(SEED, Stream::EvalAttack, restart);
        let start = Start { rng: &rng, first: 0 };
        let batch = Batch { images: self.clean(), labels: &backend.labels(&labels) };
        let pgd = PgdAttack { backend, model: self.model, mode: Mode::Eval, config };
        let mut metrics = backend.metrics();
        let x = pgd.attack(start, &batch, &mut metrics, drop).unwrap();
        zeros.push(backend.metrics_read(&metrics).zero_gradient());
        x
    }

    /// Compares the evaluation with the definition. Returns how many images only a later start breaks, and how many only an
    /// earlier one.
    fn check(&self, config: &PgdConfig) -> (usize, usize) {
        let report = self.evaluate(Some(config));
        let clean = self.outcome(self.clean());
        let mut zeros = Vec::new();
        let starts: Vec<Outcome> = (0..config.restarts as u32)
            .map(|restart| self.outcome(self.attacked(config, restart, &mut zeros)))
            .collect();
        let n = self.indices.len();
        let percent = |right: &dyn Fn(usize) -> bool| 100.0 * (0..n).filter(|&i| right(i)).count() as f64 / n as f64;
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let robust = percent(&|i| starts.iter().all(|start| start.right[i]));
        assert_eq!((report.images, report.natural, report.adversarial), (n, percent(&|i| clean.right[i]), robust));
        assert_close("natural loss", &[report.natural_loss], &[clean.loss], 1e-5, 0.0);
        let attacked_loss = mean(starts.iter().map(|start| start.loss).collect());
        assert_close("adversarial loss", &[report.adversarial_loss], &[attacked_loss], 1e-5, 0.0);
        assert_close("zero gradient", &[report.zero_gradient], &[mean(zeros)], 1e-9, 0.0);
        let constant = clean.predictions.iter().all(|p| *p == clean.predictions[0]);
        assert_eq!(report.constant_prediction, constant.then_some(clean.predictions[0] as u8));
        let (first, last) = (&starts[0].right, &starts[starts.len() - 1].right);
        let broken = |by: &[bool], not_by: &[bool]| (0..n).filter(|&i| !by[i] && not_by[i]).count();
        (broken(last, first), broken(first, last))
    }
}

/// More images than are sent at once, the rest of which is no full block either; and as many of each start's images.
#[test]
fn accuracies_and_losses_are_over_all_images_and_starts() {
    let backend = F32::new(2).unwrap();
    let (model, data) = (trained(&backend), digits(1, 700));
    let indices = (0..679).map(|i| i * 37 % 700).collect();
    let setting = Setting { backend: &backend, model: &model, split: &data.test, indices };
    let config = PgdConfig { eps: 0.1, step_size: 0.02, restarts: 3, ..attack(2) };
    let (only_later, only_earlier) = setting.check(&config);
    assert!(only_later > 0 && only_earlier > 0, "{only_later} {only_earlier}: starts must differ");
    let clean = setting.evaluate(None);
    assert_eq!((clean.natural, clean.natural_loss), (clean.adversarial, clean.adversarial_loss));
    assert_eq!((clean.zero_gradient, clean.images), (0.0, 679));
    assert_eq!((image_passes(679, None), image_passes(679, Some(&config))), (679, 679 * (1 + 3 * 3)));

    let logits = setting.with(|subset| evaluation::logits(&backend, &model, subset).unwrap());
    assert_close("logits", &logits, &setting.logits(setting.clean()), 1e-5, 0.0);
}

/// With batch normalisation: each image by itself, whatever is measured with it.
#[test]
fn running_statistics_are_what_is_measured_with() {
    let backend = F32::new(2).unwrap();
    let (_, model) = recorded(&backend, "resnet18");
    let data = Dataset::sample(DatasetName::Cifar10).unwrap();
    let setting = Setting { backend: &backend, model: &model, split: &data.test, indices: (5..24).collect() };
    setting.check(&PgdConfig { eps: 0.03, step_size: 0.01, ..attack(2) });
    let logits = setting.with(|subset| evaluation::logits(&backend, &model, subset).unwrap());
    assert_close("logits", &logits, &setting.logits(setting.clean()), 1e-5, 0.0);
}

/// One image of another class, a higher or a lower one, is enough, wherever it is.
#[test]
fn a_constant_prediction_is_that_of_every_image() {
    let backend = F32::new(2).unwrap();
    // Class 1 from 0.5 on.
    let model = pixel::network(&backend, &[&[(0.0, 0.5), (1.0, -0.5)], &[(0.0, 0.0)]]);
    let split = pixel::images(&[0, 255]);
    let predicted = |class: &dyn Fn(usize) -> u32| {
        let indices = (0..530).map(class).collect();
        Setting { backend: &backend, model: &model, split: &split, indices }.evaluate(None).constant_prediction
    };
    for class in [0, 1] {
        assert_eq!(predicted(&|_| class), Some(class as u8));
        for other in [0, 7, 20, 511, 512, 529] {
            assert_eq!(predicted(&|i| if i == other { 1 - class } else { class }), None, "image {other} of {class}");
        }
    }
}

/// The fewest right answers that a binomial test at 1 % tells from those of the best constant answer, from exact fractions.
#[test]
fn trained_is_what_is_better_than_a_constant_answer_by_more_than_chance() {
    let collapsed = |right: usize, images: usize, majority: f64| {
        let natural = 100.0 * right as f64 / images as f64;
        let report = EvalReport {
            images,
            natural,
            adversarial: natural,
            natural_loss: 0.1,
            adversarial_loss: 0.1,
            zero_gradient: 0.0,
            constant_prediction: None,
        };
        report.collapsed(majority)
    };
    for (images, majority, fewest) in
        [(10, 0.1, 5), (20, 0.5, 16), (200, 0.1, 31), (500, 0.1, 67), (1000, 0.1, 124), (1000, 0.1135, 138)]
    {
        assert!(collapsed(fewest - 1, images, majority), "{} of {images}", fewest - 1);
        assert!(!collapsed(fewest, images, majority), "{fewest} of {images}");
    }
    assert!(collapsed(1135, 10_000, 0.1135), "a constant answer, and one that answers two classes by turns");
    assert!(collapsed(0, 0, 1.0) && collapsed(5, 5, 1.0), "there is nothing to be better than");
}

/// Its share is that of the class that most of the images have.
#[test]
fn the_best_constant_answer_is_the_most_frequent_class() {
    let split = |labels: &[u8]| Split { images: vec![0; labels.len()], labels: labels.to_vec() };
    assert_eq!(split(&[3, 1, 3, 3, 0]).majority(), 0.6);
    assert_eq!((split(&[255, 255]).majority(), split(&[]).majority()), (1.0, 1.0));
    assert_eq!(Dataset::sample(DatasetName::Mnist).unwrap().test.majority(), 0.1);
}
