//! Steps of training, adversarial and then with ADMM, against the CPU: same seed, same random starts bit for bit, same
//! masks but where two filters' norms differ by rounding, losses and weights as near to the CPU's in f64 as the CPU's in f32 are: a fresh ResNet-18 multiplies
//! rounding errors by a hundred in a step, so no fixed tolerance would do. The sign of a gradient that is zero but
//! for rounding is a coin toss: on ResNet-18 the CPU's paths differ in some pixels after one attack step, and in one of 25 after
//! two. So each device attacks for itself, but all train on the images of the CPU's attack.

use engine::attack::PgdConfig;
use engine::attack::pgd::{Batch, PgdAttack, Start};
use engine::autograd::tensor::Tensor;
use engine::backend::Backend;
use engine::backend::cpu::Cpu;
use engine::base::rng::{Rng, Stream};
use engine::data::{Dataset, DatasetName};
use engine::nn::init::Init;
use engine::nn::models::{Architecture, Mode, Network};
use engine::nn::optim::OptimizerConfig;
use engine::prune::{Admm, AdmmConfig, Scheme, Target};
use engine::train::{Sparsifier, Trainer};

use crate::backends::on_cuda;
use crate::compare::{assert_close, count_apart, wide};
use crate::small_runs::attack;

on_cuda! { lenet_with_adam, resnet18_with_sgd, the_same_bits_twice }

mod in_bf16 {
    use super::{resnet18_nearly, the_same_bits_twice, the_same_bits_twice_of_resnet18};

    crate::backends::on_bf16! { resnet18_nearly, the_same_bits_twice, the_same_bits_twice_of_resnet18 }
}

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Run {
    /// Bits of every random start.
    starts: Vec<Vec<u32>>,
    /// Pixels of every step's adversarial images.
    attacked: Vec<Vec<f32>>,
    /// Mean loss of every step.
    losses: Vec<f64>,
    /// Of every projection.
    masks: Vec<Mask>,
    /// Parameters and running statistics.
    state: Vec<(String, Vec<usize>, Vec<f32>)>,
}

/// What a projection keeps of a parameter.
#[derive(Debug, PartialEq)]
struct Mask {
    param: String,
    kept: Vec<bool>,
    /// By how much the smallest filter that is kept is larger than the largest that is not, relative to that.
    border: f64,
}

struct Setting {
    network: Network,
    /// Of adversarial training, and then as many with ADMM's penalty.
    steps: u32,
    batch: usize,
    optimizer: OptimizerConfig,
    attack: PgdConfig,
}

fn lenet() -> Setting {
    let optimizer = OptimizerConfig::Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    Setting { network: Network::LeNet, steps: 5, batch: 9, optimizer, attack: attack(4) }
}

fn resnet18() -> Setting {
    let optimizer = OptimizerConfig::Sgd { lr: 1e-3, momentum: 0.9, weight_decay: 1e-4 };
    let attack = PgdConfig { eps: 8.0 / 255.0, step_size: 4.0 / 255.0, ..attack(2) };
    Setting { network: Network::ResNet18, steps: 5, batch: 6, optimizer, attack }
}

/// Trains; on the images of another run's attacks, if they are given.
fn run<B: Backend>(backend: &B, setting: &Setting, given: Option<&[Vec<f32>]>) -> Run {
    let name = DatasetName::with_shape(setting.network.input()).unwrap();
    let data = Dataset::sample(name).unwrap();
    let architecture = Architecture::new(setting.network, 1, 10).unwrap();
    let mut trainer = Trainer::new(backend, architecture, Init::XavierUniform, 3, &setting.optimizer).unwrap();
    let images = backend.resident(data.shape, &data.train.images);
    let mut run = Run { starts: vec![], attacked: vec![], losses: vec![], masks: vec![], state: vec![] };
    for step in 0..2 * setting.steps {
        if step == setting.steps {
            let target = Target { scheme: Scheme::Filter, ratio: 0.5, linear: true };
            let config = AdmmConfig { target, rho: 0.05, growth: 1.3, update_every: 1 };
            let admm = Admm::start(backend, &config, &trainer.model).unwrap();
            trainer.sparsifier = Sparsifier::Admm { admm, update_every: 1 };
            run.masks.extend(masks(backend, &trainer, true));
        }
        let first = step * setting.batch as u32;
        let indices: Vec<u32> = (first..first + setting.batch as u32).collect();
        let labels: Vec<u8> = indices.iter().map(|&i| data.train.labels[i as usize]).collect();
        let clean = backend.gather(&images, &indices, None);
        let rng = Rng::new(3, Stream::TrainAttack, step);
        let start =
            backend.random_start(setting.batch, data.shape.iter().product(), setting.attack.eps, &rng, 0, &clean);
        let bits = backend.download_batch(setting.batch, &start).iter().map(|v| v.to_bits()).collect();
        run.starts.push(bits);
        let labels = backend.labels(&labels);
        let batch = Batch { images: Tensor::new(clean, trainer.model.input(setting.batch)), labels: &labels };
        let start = Start { rng: &rng, first: 0 };
        let shape = trainer.model.input(setting.batch);
        let pgd = PgdAttack { backend, model: &trainer.model, mode: Mode::Train, config: &setting.attack };
        let mut metrics = backend.metrics();
        let own = backend.capture(setting.batch, || pgd.attack(start, &batch, &mut metrics, drop)).unwrap();
        run.attacked.push(own.values(backend));
        let mut metrics = backend.metrics();
        // A rate that changes, so that a replayed step must take its own.
        let lr = setting.optimizer.lr() / (1 + step) as f32;
        match given {
            None => trainer.step(backend, &batch, Some((&setting.attack, start)), lr, &mut metrics),
            Some(images) => {
                let images = Tensor::new(backend.upload_batch(setting.batch, &images[step as usize]), shape);
                trainer.step(backend, &Batch { images, labels: &labels }, None, lr, &mut metrics)
            }
        }
        .unwrap();
        run.losses.push(backend.metrics_read(&metrics).mean_loss());
        // In the middle of the second half, and at its end.
        if step == setting.steps + setting.steps / 2 || step + 1 == 2 * setting.steps {
            let Trainer { model, sparsifier, .. } = &mut trainer;
            assert!(!sparsifier.after_epoch(backend, model, 1).unwrap().is_empty());
            run.masks.extend(masks(backend, &trainer, false));
        }
    }
    run.state = trainer.model.state(backend);
    run
}

/// What the last projection left of ADMM's Z: a projection of the weights at the `start`, later of W + U, which is what Z and U
/// add up to.
fn masks<B: Backend>(backend: &B, trainer: &Trainer<B>, start: bool) -> Vec<Mask> {
    let variables = trainer.sparsifier.admm().expect("ADMM").state(backend, &trainer.model);
    let weights = trainer.model.state(backend);
    let mask = |(name, shape, z): &(String, Vec<usize>, Vec<f32>)| {
        let param = name.strip_prefix("z.")?.to_string();
        let values = |of: &[(String, Vec<usize>, Vec<f32>)], wanted: &str| {
            of.iter().find(|(name, ..)| name == wanted).expect("a parameter").2.clone()
        };
        let projected = match start {
            true => values(&weights, &param),
            false => z.iter().zip(values(&variables, &format!("u.{param}"))).map(|(z, u)| z + u).collect(),
        };
        let len = z.len() / shape[0];
        let (mut least_kept, mut most_removed) = (f64::INFINITY, 0.0_f64);
        for (z, filter) in z.chunks(len).zip(projected.chunks(len)) {
            let norm = filter.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            match z.iter().any(|&z| z != 0.0) {
                true => least_kept = least_kept.min(norm),
                false => most_removed = most_removed.max(norm),
            }
        }
        Some(Mask { param, kept: z.iter().map(|&z| z != 0.0).collect(), border: least_kept / most_removed - 1.0 })
    };
    variables.iter().filter_map(mask).collect()
}

/// The CPU's runs that a device is measured by: exact, and in the device's own precision on the images of the exact run's
/// attacks.
fn yardsticks(setting: &Setting) -> [Run; 2] {
    let exact = run(&Cpu::<f64>::new(2).unwrap(), setting, None);
    let rounded = run(&Cpu::<f32>::new(2).unwrap(), setting, Some(&exact.attacked));
    [exact, rounded]
}

fn rms(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    (values.map(|v| v.powi(2)).sum::<f64>() / n).sqrt()
}

/// Root mean square error that is allowed: four times that of the CPU in f32, and a hundred-thousandth.
fn allowed(rounded: &[f64], exact: &[f64]) -> f64 {
    4.0 * rms(rounded.iter().zip(exact).map(|(rounded, exact)| rounded - exact)) + 1e-5 * rms(exact.iter().copied())
}

fn as_exact(what: &str, got: &[f64], rounded: &[f64], exact: &[f64]) {
    let (error, allowed) = (rms(got.iter().zip(exact).map(|(got, exact)| got - exact)), allowed(rounded, exact));
    // A NaN is not within it.
    let within = error <= allowed && got.len() == exact.len();
    assert!(within, "{what}: error {error:.3e}, allowed {allowed:.3e}, of {:.3e}", rms(exact.iter().copied()));
}

/// The same filters are kept wherever that does not depend on errors that are allowed: the norms of two filters are further apart.
fn keep_the_same(got: &Run, [exact, rounded]: &[Run; 2]) {
    let kept = |masks: &[Mask]| masks.iter().flat_map(|mask| &mask.kept).filter(|&&kept| kept).count();
    assert!((1..exact.masks.iter().map(|mask| mask.kept.len()).sum()).contains(&kept(&exact.masks)));
    assert_eq!(got.masks.len(), exact.masks.len());
    let mut near = 0;
    for (got, want) in got.masks.iter().zip(&exact.masks) {
        let weights = |run: &Run| wide(&run.state.iter().find(|(name, ..)| *name == want.param).expect("a weight").2);
        let exact = weights(exact);
        if want.border > allowed(&weights(rounded), &exact) / rms(exact.iter().copied()) {
            assert!(got.kept == want.kept, "{}: other filters are kept", want.param);
        } else {
            near += 1;
        }
    }
    assert!(5 * near <= exact.masks.len(), "{near} of {} projections are too near", exact.masks.len());
}

/// Trains on the images of the exact run's attacks.
fn trains_as_the_cpu<B: Backend>(backend: &B, setting: &Setting) {
    let yardsticks = yardsticks(setting);
    let [exact, rounded] = &yardsticks;
    let got = run(backend, setting, Some(&exact.attacked));
    assert!(rounded.starts == got.starts, "random starts differ");
    keep_the_same(&got, &yardsticks);
    as_exact("losses", &got.losses, &rounded.losses, &exact.losses);
    for (i, (name, _, values)) in got.state.iter().enumerate() {
        as_exact(name, &wide(values), &wide(&rounded.state[i].2), &wide(&exact.state[i].2));
    }
    // Of a device's own attacks on networks that are the same but for rounding. Where no sign is in doubt none may differ; one in
    // a thousand is for the rounding of a GPU.
    let furthest = 2.0 * f64::from(setting.attack.steps as f32 * setting.attack.step_size) + 1e-6;
    let attacked = exact.attacked.concat();
    let differ = |run: &Run| {
        let own = run.attacked.concat();
        assert_close("further than signs can make it", &own, &attacked, 0.0, furthest);
        count_apart("pixels", &own, &attacked, 0.0, 1e-6)
    };
    let (got, rounded) = (differ(&got), differ(rounded));
    assert!(got <= 2 * rounded + attacked.len() / 1000, "{got} pixels differ, {rounded} on the CPU");
}

fn lenet_with_adam<B: Backend>(backend: &B) {
    trains_as_the_cpu(backend, &lenet());
}

fn resnet18_with_sgd<B: Backend>(backend: &B) {
    trains_as_the_cpu(backend, &resnet18());
}

fn the_same_bits_twice<B: Backend>(backend: &B) {
    let setting = Setting { steps: 2, batch: 3, attack: attack(2), ..lenet() };
    assert_eq!(run(backend, &setting, None), run(backend, &setting, None));
}

fn the_same_bits_twice_of_resnet18<B: Backend>(backend: &B) {
    let setting = Setting { steps: 2, batch: 2, attack: PgdConfig { steps: 1, ..resnet18().attack }, ..resnet18() };
    assert_eq!(run(backend, &setting, None), run(backend, &setting, None));
}

/// In mixed precision, on the images of the exact run's attacks: the losses are those of the exact run to a percent, and the
/// attack moves more pixels the same way than by chance.
fn resnet18_nearly<B: Backend>(backend: &B) {
    let setting = Setting { steps: 3, batch: 4, ..resnet18() };
    let exact = run(&Cpu::<f64>::new(2).unwrap(), &setting, None);
    let got = run(backend, &setting, Some(&exact.attacked));
    assert!(got.starts == exact.starts, "random starts differ");
    assert_close("losses", &got.losses, &exact.losses, 0.01, 0.0);
    for (step, (got, want)) in got.attacked.iter().zip(&exact.attacked).enumerate() {
        let same = got.iter().zip(want).filter(|(got, want)| (*got - *want).abs() < 1e-6).count();
        // By chance two steps agree in a quarter.
        assert!(same > 2 * want.len() / 5, "step {step}: {same} of {} pixels are the same", want.len());
    }
}
