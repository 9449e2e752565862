//! `engine bench`: throughput of PGD adversarial training steps on this machine.

use std::time::Instant;

use clap::Args;

use super::device::DeviceArgs;
use super::output;
use crate::attack::PgdConfig;
use crate::attack::pgd::{Batch, Start};
use crate::backend::Backend;
use crate::data::DatasetName;
use crate::error::Result;
use crate::init::Init;
use crate::models::{Architecture, Network};
use crate::optim::OptimizerConfig;
use crate::pipeline::{Task, on_backend};
use crate::profile;
use crate::rng::{Rng, Stream};
use crate::tables::defaults::paper_attack;
use crate::tensor::Tensor;
use crate::train::{Trainer, validate_attack};

/// Of the benchmark's network and images; the time does not depend on them.
const SEED: u64 = 0;
const CLASSES: usize = 10;
/// Steps before the clock runs: the first ones find caches and buffers cold.
const WARM_UP: usize = 2;

#[derive(Args)]
pub struct BenchArgs {
    /// lenet, lenet-cifar, resnet18 or vgg16-bn
    #[arg(long, default_value_t = Network::LeNet)]
    network: Network,
    /// Width multiplier
    #[arg(long, value_name = "W", default_value_t = 1, allow_negative_numbers = true)]
    width: usize,
    /// Images a step
    #[arg(
        long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=65_536),
        allow_negative_numbers = true
    )]
    batch: u32,
    /// Steps of the attack on each batch
    #[arg(long, value_name = "N", default_value_t = 40, allow_negative_numbers = true)]
    steps: usize,
    /// Training steps timed; the median counts
    #[arg(
        long, value_name = "N", default_value_t = 7,
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    repeat: u32,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &BenchArgs) -> Result<()> {
    let device = args.device.resolve()?;
    let attack = PgdConfig { steps: args.steps, ..paper_attack(args.data_set()) };
    validate_attack("attack", &attack)?;
    let task = Bench { args, attack: &attack };
    let (seconds, peak) = on_backend(device.backend, device.precision, device.threads, task)?;
    // The columns of benches/peers/pytorch_cpu.py, to be compared with it.
    output::print("network,width,batch,attack_steps,mode,threads,version,images_per_second,seconds_per_step")?;
    let BenchArgs { network, width, batch, steps, .. } = args;
    let (threads, version, speed) = (device.threads, env!("CARGO_PKG_VERSION"), f64::from(*batch) / seconds);
    output::print(&format!("{network},{width},{batch},{steps},engine,{threads},{version},{speed:.1},{seconds:.4}"))?;
    output::note(&format!("{}, at most {:.1} MiB in buffers", device.describe(), peak as f64 / f64::from(1 << 20)));
    Ok(())
}

/// The benchmark, on whatever backend.
struct Bench<'a> {
    args: &'a BenchArgs,
    attack: &'a PgdConfig,
}

impl Task for Bench<'_> {
    /// Seconds of a step, and the most bytes in buffers.
    type Output = (f64, usize);

    fn run<B: Backend>(self, backend: &B) -> Result<Self::Output> {
        let seconds = backend.scope(|| self.args.median_seconds(backend, self.attack))?;
        Ok((seconds, backend.peak_bytes()))
    }
}

impl BenchArgs {
    /// Whose images fit the network, and whose attack is the paper's for it.
    fn data_set(&self) -> DatasetName {
        if self.network == Network::LeNet { DatasetName::Mnist } else { DatasetName::Cifar10 }
    }

    /// Median time of a training step: an attack on the batch, then one update of the weights.
    fn median_seconds<B: Backend>(&self, backend: &B, attack: &PgdConfig) -> Result<f64> {
        let architecture = Architecture::new(self.network, self.width, CLASSES)?;
        let sgd = OptimizerConfig::Sgd { lr: 0.01, momentum: 0.9, weight_decay: 1e-4 };
        let mut trainer = Trainer::new(backend, architecture, Init::Default, SEED, &sgd)?;
        let (bytes, labels) = self.random_batch();
        let indices: Vec<u32> = (0..labels.len() as u32).collect();
        let images = backend.resident(self.network.input(), &bytes);
        let mut seconds = Vec::new();
        let mut tally = backend.tally();
        for step in 0..WARM_UP + self.repeat as usize {
            let rng = Rng::new(SEED, Stream::TrainAttack, step as u32);
            if let recording @ (profile::Recording::Start | profile::Recording::Stop) = profile::before_step() {
                backend.record(recording == profile::Recording::Start);
            }
            let begin = Instant::now();
            let clean = backend.gather(&images, &indices, None);
            let clean = Tensor::new(clean, trainer.model.input(labels.len()));
            let batch = Batch { images: clean, labels: &backend.labels(&labels) };
            let start = Start { rng: &rng, first: 0, strength: 1.0 };
            trainer.step(backend, &batch, Some((attack, start)), sgd.lr(), &mut tally)?;
            backend.synchronize();
            seconds.push(begin.elapsed().as_secs_f64());
        }
        Ok(median(seconds.split_off(WARM_UP)))
    }

    /// Images and labels without meaning.
    fn random_batch(&self) -> (Vec<u8>, Vec<u8>) {
        let n = u64::from(self.batch);
        let [c, h, w] = self.network.input();
        let rng = Rng::new(SEED, Stream::Augment, 0);
        let images = (0..n * (c * h * w) as u64).map(|i| rng.below_at(i, 256) as u8).collect();
        let rng = Rng::new(SEED, Stream::Augment, 1);
        (images, (0..n).map(|i| rng.below_at(i, CLASSES as u32) as u8).collect())
    }
}

/// The middle value; the mean of the two middle ones of an even number. There must be one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0]), 9.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
    }
}
