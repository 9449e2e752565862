//! `engine bench`: throughput of PGD adversarial training steps, or of forward passes, on this machine; on a GPU also the time
//! of each kernel, and the search for the fastest tiles.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::console;
use super::device_args::{Device, DeviceArgs};
use super::out_file_args::check_place;
use super::timed_training::TimedTraining;
use crate::attack::PgdConfig;
use crate::autograd::tape::Tape;
use crate::autograd::tensor::Tensor;
use crate::backend::cuda::bf16::Table;
use crate::backend::cuda::{Bf16, Cuda, F32, Timing};
use crate::backend::{Backend, Memory};
use crate::base::csv::to_csv;
use crate::base::error::{Error, Result};
use crate::base::nvtx;
use crate::base::rng::{Rng, Stream};
use crate::checkpoint::write_atomic;
use crate::data::DatasetName;
use crate::experiments::pipeline::{BackendName, Precision, on_backend};
use crate::experiments::tables::defaults::{Hyperparameters, sgd};
use crate::nn::init::{Init, initial_values};
use crate::nn::models::{Architecture, Mode, Model, Network};
use crate::train::{Trainer, validate_attack};

/// Seed of the benchmark's network and images; the time does not depend on it.
const SEED: u64 = 0;
const CLASSES: usize = 10;
/// The columns of benches/peers/pytorch_cpu.py, to be compared with it.
const COLUMNS: &str = "network,width,batch,task,attack_steps,mode,threads,version,images_per_second,seconds,peak_mib";

#[derive(Args)]
pub struct BenchArgs {
    /// Network
    #[arg(long, default_value_t = Network::LeNet)]
    network: Network,
    /// Width multiplier
    #[arg(long, value_name = "W", default_value_t = 1, allow_negative_numbers = true)]
    width: usize,
    /// Images a step [default: the paper's for the network]
    #[arg(
        long, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=65_536),
        allow_negative_numbers = true
    )]
    batch: Option<u32>,
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
    /// Show how long each kernel of a step or pass takes on a GPU instead, as CSV
    #[arg(long, conflicts_with_all = ["repeat", "seconds"])]
    kernels: bool,
    /// Find the fastest tile for each convolution of a step in bf16 instead, and write them to this table or add them to it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["repeat", "seconds", "kernels", "forward"])]
    tune: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &BenchArgs) -> Result<()> {
    let device = args.device.resolve()?;
    args.check(&device)?;
    let attack = PgdConfig { steps: args.steps, ..PgdConfig::paper(args.data_set()?) };
    validate_attack("attack", &attack)?;
    if args.kernels {
        return args.show_kernels(&device, &attack);
    }
    if let Some(path) = &args.tune {
        return args.write_tiles(path, &attack);
    }
    let (seconds, peak) = on_backend!(&device.start()?, |backend| {
        (backend.scope(|| args.median_seconds(backend, &attack))?, backend.peak_bytes())
    });
    let (BenchArgs { network, width, .. }, batch) = (args, args.batch()?);
    let (work, attack_steps) = if args.forward { ("forward", 0) } else { ("step", args.steps) };
    let (threads, version, speed) = (device.threads, env!("CARGO_PKG_VERSION"), f64::from(batch) / seconds);
    let resident = peak_resident_kib().map_or(String::new(), |kib| format!("{:.1}", kib as f64 / 1024.0));
    console::print(COLUMNS)?;
    console::print(&format!(
        "{network},{width},{batch},{work},{attack_steps},engine,{threads},{version},{speed:.1},{seconds:.6},{resident}"
    ))?;
    console::note(&format!("{}, at most {:.1} MiB in buffers", device.describe(), peak as f64 / f64::from(1 << 20)));
    Ok(())
}

impl BenchArgs {
    /// Whether this device can do what is asked for.
    fn check(&self, device: &Device) -> Result<()> {
        let flag = if self.kernels { "--kernels" } else { "--tune" };
        let asked = self.kernels || self.tune.is_some();
        if asked && device.backend != BackendName::Cuda {
            return Err(Error::Usage(format!("{flag}: only a GPU runs kernels, and the CPU is what computes here")));
        }
        if self.tune.is_some() && device.precision != Precision::Bf16 {
            return Err(Error::Usage("--tune: the tables are of tiles in bf16; add --precision bf16".to_string()));
        }
        self.tune.as_ref().map_or(Ok(()), |path| check_place(path, "--tune"))
    }

    /// The first data set whose images fit: its settings are the paper's for the network.
    fn data_set(&self) -> Result<DatasetName> {
        DatasetName::with_shape(self.network.input())
            .ok_or_else(|| Error::Usage(format!("--network: no data set has images for '{}'", self.network)))
    }

    /// Images a step.
    fn batch(&self) -> Result<u32> {
        self.batch.map_or_else(|| Ok(Hyperparameters::of(self.data_set()?).batch as u32), Ok)
    }

    /// Prints a line for each kernel and shape of a step.
    fn show_kernels(&self, device: &Device, attack: &PgdConfig) -> Result<()> {
        let timings = match device.precision {
            Precision::F32 => {
                let backend = Cuda::<F32>::timed()?;
                self.second_step(&backend, attack, || backend.timings())?
            }
            Precision::Bf16 => {
                let backend = Cuda::<Bf16>::timed()?;
                self.second_step(&backend, attack, || backend.timings())?
            }
        };
        let all: f64 = timings.iter().map(Timing::total_seconds).sum();
        let lines = to_csv(timings.iter().map(|timing| KernelLine::new(timing, all)))?;
        console::print(String::from_utf8_lossy(&lines).trim_end())?;
        let launches: usize = timings.iter().map(|timing| timing.launches).sum();
        console::note(&format!("{}, {launches} launches, {:.3} ms one after the other", device.describe(), all * 1e3));
        Ok(())
    }

    /// The `timings` of the second step or pass; the first one also prepares.
    fn second_step<B: Backend>(
        &self,
        backend: &B,
        attack: &PgdConfig,
        timings: impl Fn() -> Vec<Timing>,
    ) -> Result<Vec<Timing>> {
        self.with_step(backend, attack, |step| {
            step()?;
            timings();
            step()?;
            backend.status()?;
            Ok(timings())
        })
    }

    /// Finds the fastest tiles and adds them to the table at `path`, if there is one.
    fn write_tiles(&self, path: &Path, attack: &PgdConfig) -> Result<()> {
        let mut table = if path.exists() { Table::read(path)? } else { Table::default() };
        let backend = Cuda::<Bf16>::timed()?;
        let found = self.with_step(&backend, attack, |step| {
            let found = backend.tune(|_| step())?;
            backend.status()?;
            Ok(found)
        })?;
        let new = found.len();
        table.update(found);
        write_atomic(path, &table.to_csv()?)?;
        console::note(&format!("{new} tiles of {} written to {}", table.len(), path.display()));
        Ok(())
    }

    /// Median time of what is to be timed.
    fn median_seconds<B: Backend>(&self, backend: &B, attack: &PgdConfig) -> Result<f64> {
        self.with_step(backend, attack, |step| self.clock(backend, step))
    }

    /// Hands `f` what is to be timed, on a batch whose bytes are on the device.
    fn with_step<B: Backend, R>(
        &self,
        backend: &B,
        attack: &PgdConfig,
        f: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<R>,
    ) -> Result<R> {
        let architecture = Architecture::new(self.network, self.width, CLASSES)?;
        let (bytes, labels) = self.random_batch(self.batch()?);
        if self.forward {
            let indices: Vec<u32> = (0..labels.len() as u32).collect();
            let images = backend.resident(self.network.input(), &bytes);
            let values = initial_values(&architecture, Init::Default, SEED);
            let model = Model::new(backend, Arc::new(architecture), &values)?;
            return f(&mut || forward_pass(backend, &model, &images, &indices));
        }
        let optimizer = sgd(0.01, 1e-4);
        let trainer = Trainer::new(backend, architecture, Init::Default, SEED, &optimizer)?;
        let mut training = TimedTraining::new(backend, trainer, optimizer.lr(), &bytes, &labels);
        f(&mut || training.step(backend, labels.len(), Some(attack)))
    }

    /// Median time of `step`.
    fn clock<B: Backend>(&self, backend: &B, step: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let mut seconds: Vec<f64> = Vec::new();
        while !self.enough(timed(&seconds)) {
            if let recording @ (nvtx::Recording::Start | nvtx::Recording::Stop) = nvtx::before_step() {
                backend.profile(recording == nvtx::Recording::Start);
            }
            let begin = Instant::now();
            step()?;
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

    /// `n` images and labels without meaning.
    fn random_batch(&self, n: u32) -> (Vec<u8>, Vec<u8>) {
        let n = u64::from(n);
        let [c, h, w] = self.network.input();
        let rng = Rng::new(SEED, Stream::Augment, 0);
        let images = (0..n * (c * h * w) as u64).map(|i| rng.below_at(i, 256) as u8).collect();
        let rng = Rng::new(SEED, Stream::Augment, 1);
        (images, (0..n).map(|i| rng.below_at(i, CLASSES as u32) as u8).collect())
    }
}

/// A kernel on a shape. The field names are the columns.
#[derive(Serialize)]
struct KernelLine<'a> {
    kernel: &'a str,
    sizes: &'a str,
    launches: usize,
    /// Time of one launch.
    microseconds: String,
    /// Time of all launches of the step.
    total_microseconds: String,
    share_percent: String,
    /// Empty for what has no products.
    tflops: String,
    /// Throughput of all buffers that the kernel is given, each moved once.
    tb_per_s: String,
}

impl<'a> KernelLine<'a> {
    fn new(timing: &'a Timing, all: f64) -> Self {
        let Timing { kernel, sizes, launches, seconds, flop, bytes, .. } = timing;
        let rate = |amount: f64| if amount > 0.0 { format!("{:.2}", amount / seconds / 1e12) } else { String::new() };
        KernelLine {
            kernel,
            sizes,
            launches: *launches,
            microseconds: format!("{:.2}", seconds * 1e6),
            total_microseconds: format!("{:.1}", timing.total_seconds() * 1e6),
            share_percent: format!("{:.1}", 100.0 * timing.total_seconds() / all),
            tflops: rate(*flop),
            tb_per_s: rate(*bytes),
        }
    }
}

/// The logits of all images, computed as [`crate::attack::evaluation`] does.
fn forward_pass<B: Backend>(backend: &B, model: &Model<B>, images: &B::Resident<'_>, indices: &[u32]) -> Result<()> {
    let parts = backend.map_parts(indices.len(), |range| {
        let part = &indices[range];
        let input = Tensor::new(backend.gather(images, part, None), model.input(part.len()));
        backend.capture(part.len(), || {
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
    fn the_batch_is_the_papers_where_none_is_asked_for() {
        let batch = |line: &str| Line::parse_from(line.split_whitespace()).bench.batch().unwrap();
        assert_eq!(batch("bench"), 64);
        assert_eq!(batch("bench --network lenet-cifar"), 128);
        assert_eq!(batch("bench --network resnet18"), 128);
        assert_eq!(batch("bench --network resnet18 --batch 7"), 7);
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
