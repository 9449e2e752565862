//! What a step of APGD costs beside one of PGD: `cargo bench --bench attacks`.
//!
//! Both take as many steps from the same points, in turn, on the sixteen images that a core works on; the ratio is that
//! of the medians. APGD also keeps the best points and their gradients, and its losses are computed on the host for every
//! image. It should stay below 1.05.

use std::sync::Arc;
use std::time::Instant;

use engine::attack::apgd::{ApgdConfig, ApgdLoss};
use engine::attack::pgd::{Batch, PgdAttack, Start};
use engine::attack::target_model::TargetModel;
use engine::attack::{AttackLoss, BnMode, PgdConfig};
use engine::autograd::tensor::Tensor;
use engine::backend::cpu::{Cpu, LANES};
use engine::backend::{Loss, Pgd};
use engine::base::rng::{Rng, Stream};
use engine::data::{Dataset, DatasetName};
use engine::nn::init::{Init, initial_values};
use engine::nn::models::{Architecture, Mode, Model, Network};

const STEPS: usize = 40;

/// So small a ball that no image is misclassified, which would end APGD early.
const EPS: f32 = 1e-4;

const ROUNDS: usize = 60;

fn main() {
    println!(
        "{:<16}{:>12}{:>12}{:>12}{:>12}   and per step of PGD",
        "µs a step", "PGD", "APGD-CE", "APGD-DLR", "APGD-T"
    );
    for (network, width) in
        [(Network::LeNet, 1), (Network::LeNet, 4), (Network::LeNet, 16), (Network::ResNet18, 1), (Network::ResNet18, 4)]
    {
        let times = measure(network, width);
        let micros = times.map(|seconds| format!("{:>12.1}", 1e6 * seconds / STEPS as f64)).concat();
        let ratios: String = times[1..].iter().map(|seconds| format!("{:>8.3}", seconds / times[0])).collect();
        println!("{:<16}{micros}{ratios}", format!("{network} w={width}"));
    }
}

/// Median seconds of PGD and of each kind of APGD.
fn measure(network: Network, width: usize) -> [f64; 4] {
    let backend = Cpu::<f32>::new(1).expect("one thread");
    let architecture = Arc::new(Architecture::new(network, width, 10).expect("a width of the paper"));
    let values = initial_values(&architecture, Init::KaimingNormal, 0);
    let model = Model::new(&backend, architecture, &values).expect("fits");
    let name = DatasetName::with_shape(network.input()).unwrap();
    let data = Dataset::sample(name).expect("embedded");
    let [c, h, w] = data.shape;
    let pixels: Vec<f32> = data.test.images[..LANES * c * h * w].iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let clean = Tensor::upload(&backend, [LANES, c, h, w], &pixels);
    let on_image_passes = |_| Ok(());
    let target_model = TargetModel::new(&backend, &model, &on_image_passes);
    // The labels are what an untrained network says.
    let logits = target_model.logits(&clean).expect("fits");
    let (labels, targets) = (logits.predictions(), logits.ranked(2));
    let rng = Rng::new(0, Stream::SuiteStart, 0);
    let start = || {
        let x = backend.random_start(LANES, c * h * w, EPS, &rng, 0, clean.buf());
        Tensor::new(x, clean.shape().clone())
    };
    let pgd = PgdConfig {
        eps: EPS,
        step_size: EPS / 10.0,
        steps: STEPS,
        random_start: true,
        restarts: 1,
        loss: AttackLoss::CrossEntropy,
        bn: BnMode::Eval,
    };
    let run_pgd = || {
        let batch = Batch { images: clean.clone(), labels: &backend.labels(&labels) };
        let pgd = PgdAttack { backend: &backend, model: &model, mode: Mode::Eval, config: &pgd };
        let start = Start { rng: &rng, first: 0 };
        pgd.attack(start, &batch, &mut backend.metrics(), drop).expect("fits");
    };
    let run_apgd = |loss| {
        let config = ApgdConfig { steps: STEPS, ..ApgdConfig::published(EPS, loss) };
        config.attack(&target_model, &clean, &labels, &targets, start(), |_| {}).expect("fits");
    };
    let mut seconds = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let mut time = |slot: usize, run: &dyn Fn()| {
            let begun = Instant::now();
            run();
            seconds[slot].push(begun.elapsed().as_secs_f64());
        };
        time(0, &run_pgd);
        time(1, &|| run_apgd(ApgdLoss::CrossEntropy));
        time(2, &|| run_apgd(ApgdLoss::Dlr));
        time(3, &|| run_apgd(ApgdLoss::TargetedDlr));
    }
    seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    })
}
