//! `engine bench`: throughput of PGD adversarial training steps, or of forward passes, on this machine.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use super::device::DeviceArgs;
use super::output;
use crate::attack::PgdConfig;
use crate::attack::pgd::{Batch, Start};
use crate::backend::Backend;
use crate::data::DatasetName;
use crate::error::Result;
use crate::init::{Init, initial_values};
use crate::models::{Architecture, Mode, Model, Network};
use crate::optim::OptimizerConfig;
use crate::pipeline::{Task, on_backend};
use crate::profile;
use crate::rng::{Rng, Stream};
use crate::tables::defaults::paper_attack;
use crate::tape::Tape;
use crate::tensor::Tensor;
use crate::train::{Trainer, validate_attack};

/// Of the benchmark's network and images; the time does not depend on them.
const SEED: u64 = 0;
const CLASSES: usize = 10;
/// The columns of benches/peers/pytorch_cpu.py, to be compared with it.
const COLUMNS: &str = "network,width,batch,task,attack_steps,mode,threads,version,images_per_second,seconds,peak_mib";

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
    /// Time the forward pass of evaluation, without attack and gradient, instead of a training step
    #[arg(long, conflicts_with = "steps")]
    forward: bool,
    /// Steps or passes timed, at most; the median counts
    #[arg(
        long, value_name = "N", default_value_t = 7,
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    repeat: u32,
    /// Stop when the timed ones have taken this long, though not before the second
    #[arg(
        long, value_name = "S",
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true
    )]
    seconds: Option<u32>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &BenchArgs) -> Result<()> {
    let device = args.device.resolve()?;
    let attack = PgdConfig { steps: args.steps, ..paper_attack(args.data_set()) };
    validate_attack("attack", &attack)?;
    let task = Bench { args, attack: &attack };
    let (seconds, peak) = on_backend(device.backend, device.precision, device.threads, task)?;
    let BenchArgs { network, width, batch, .. } = args;
    let (work, attack_steps) = if args.forward { ("forward", 0) } else { ("step", args.steps) };
    let (threads, version, speed) = (device.threads, env!("CARGO_PKG_VERSION"), f64::from(*batch) / seconds);
    let resident = peak_resident_kib().map_or(String::new(), |kib| format!("{:.1}", kib as f64 / 1024.0));
    output::print(COLUMNS)?;
    output::print(&format!(
        "{network},{width},{batch},{work},{attack_steps},engine,{threads},{version},{speed:.1},{seconds:.6},{resident}"
    ))?;
    output::note(&format!("{}, at most {:.1} MiB in buffers", device.describe(), peak as f64 / f64::from(1 << 20)));
    Ok(())
}

/// The benchmark, on whatever backend.
struct Bench<'a> {
    args: &'a BenchArgs,
    attack: &'a PgdConfig,
}

impl Task for Bench<'_> {
    /// Seconds of a step or pass, and the most bytes in buffers.
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

    /// Median time of what is to be timed, on a batch whose bytes are on the device.
    fn median_seconds<B: Backend>(&self, backend: &B, attack: &PgdConfig) -> Result<f64> {
        let architecture = Architecture::new(self.network, self.width, CLASSES)?;
        let (bytes, labels) = self.random_batch();
        let indices: Vec<u32> = (0..labels.len() as u32).collect();
        let images = backend.resident(self.network.input(), &bytes);
        if self.forward {
            let values = initial_values(&architecture, Init::Default, SEED);
            let model = Model::new(backend, Arc::new(architecture), &values)?;
            return self.clock(backend, |_| forward_pass(backend, &model, &images, &indices));
        }
        let sgd = OptimizerConfig::Sgd { lr: 0.01, momentum: 0.9, weight_decay: 1e-4 };
        let mut trainer = Trainer::new(backend, architecture, Init::Default, SEED, &sgd)?;
        let mut tally = backend.tally();
        self.clock(backend, |step| {
            let rng = Rng::new(SEED, Stream::TrainAttack, step);
            let clean = backend.gather(&images, &indices, None);
            let clean = Tensor::new(clean, trainer.model.input(labels.len()));
            let batch = Batch { images: clean, labels: &backend.labels(&labels) };
            let start = Start { rng: &rng, first: 0, strength: 1.0 };
            trainer.step(backend, &batch, Some((attack, start)), sgd.lr(), &mut tally)
        })
    }

    /// Median time of `step`, which is told its number.
    fn clock<B: Backend>(&self, backend: &B, mut step: impl FnMut(u32) -> Result<()>) -> Result<f64> {
        let mut seconds: Vec<f64> = Vec::new();
        while !self.enough(timed(&seconds)) {
            if let recording @ (profile::Recording::Start | profile::Recording::Stop) = profile::before_step() {
                backend.record(recording == profile::Recording::Start);
            }
            let begin = Instant::now();
            step(seconds.len() as u32)?;
            backend.synchronize();
            seconds.push(begin.elapsed().as_secs_f64());
        }
        backend.status()?;
        Ok(median(timed(&seconds).to_vec()))
    }

    /// Whether no more steps are to be timed after these.
    fn enough(&self, timed: &[f64]) -> bool {
        let spent = |limit| timed.len() >= 2 && timed.iter().sum::<f64>() >= f64::from(limit);
        timed.len() >= self.repeat as usize || self.seconds.is_some_and(spent)
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

/// The logits of all images, computed as [`crate::eval`] does.
fn forward_pass<B: Backend>(backend: &B, model: &Model<B>, images: &B::Resident<'_>, indices: &[u32]) -> Result<()> {
    let parts = backend.map_parts(indices.len(), |range| {
        let part = &indices[range];
        let input = Tensor::new(backend.gather(images, part, None), model.input(part.len()));
        backend.step(part.len(), || {
            let tape = Tape::new(backend);
            let params = model.leaves(&tape);
            model.forward(&tape, &params, &tape.leaf(input), Mode::Eval).map(drop)
        })
    });
    parts.into_iter().collect()
}

/// The steps that count: the first two find caches and buffers cold, and a slow one has warmed whatever there is.
pub(super) fn timed(seconds: &[f64]) -> &[f64] {
    let warm_up = if seconds.first().is_some_and(|&first| first > 1.0) { 1 } else { 2 };
    seconds.get(warm_up..).unwrap_or_default()
}

/// Most memory that this process ever had resident, where the system says so (Linux).
fn peak_resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The middle value; the mean of the two middle ones of an even number. There must be one.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{BenchArgs, median, timed};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0]), 9.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn two_steps_warm_up_or_one_slow_one() {
        assert_eq!(timed(&[]), [0.0; 0]);
        assert_eq!(timed(&[0.9, 5.0]), [0.0; 0]);
        assert_eq!(timed(&[0.9, 5.0, 3.0]), [3.0]);
        assert_eq!(timed(&[1.1, 5.0, 3.0]), [5.0, 3.0]);
    }

    #[test]
    fn timing_ends_with_the_repeats_or_with_the_seconds_but_not_before_two() {
        let args = |line: &str| Line::parse_from(line.split_whitespace()).bench;
        let bounded = args("bench --repeat 4 --seconds 2");
        assert!(!bounded.enough(&[]) && !bounded.enough(&[5.0]) && !bounded.enough(&[0.5; 3]));
        assert!(bounded.enough(&[5.0, 5.0]) && bounded.enough(&[0.5; 4]));
        assert!(args("bench --repeat 1 --seconds 2").enough(&[0.5]));
        assert!(!args("bench --repeat 4").enough(&[100.0; 3]));
    }
}
