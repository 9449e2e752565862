//! The cost of a network on this machine, as it is stored and without the channels that pruning has emptied.

use std::time::Instant;

use super::bench::{median, timed};
use super::console;
use super::eval_target::EvalTarget;
use crate::attack::evaluation::{Subset, logits};
use crate::backend::Backend;
use crate::base::error::Result;
use crate::base::files::length;
use crate::checkpoint::{ModelInfo, encode_model, load_model};
use crate::nn::models::Model;
use crate::prune::{SparsityReport, shrink};

/// Images a pass, where throughput counts.
const BATCH: usize = 256;
/// Timed passes of each kind, and seconds after which there are no more than the fewest.
const FEWEST: usize = 7;
const MOST: usize = 203;
const SECONDS: f64 = 5.0;

/// The cost of one network.
struct Cost {
    report: SparsityReport,
    bytes: u64,
    /// Median of a pass with one image, in seconds.
    latency: f64,
    /// Median of passes with many, in images a second.
    throughput: f64,
}

/// Measures, and prints a table.
///
/// # Errors
/// As [`load_model`].
pub fn print_costs<B: Backend>(backend: &B, target: &EvalTarget) -> Result<()> {
    let [stored, shrunk] = target.costs(backend)?;
    let row = |what: &str, value: &dyn Fn(&Cost) -> String| {
        console::print(&format!("{what:<20}{:>14}{:>14}", value(&stored), value(&shrunk)))
    };
    console::print(&format!("{:<20}{:>14}{:>14}  on {}", "", "stored", "shrunk", target.device.describe()))?;
    row("parameters", &|c| c.report.parameters.to_string())?;
    row("  not zero", &|c| c.report.parameters_kept.to_string())?;
    row("multiply-adds", &|c| c.report.multiply_adds.to_string())?;
    row("  not by zero", &|c| c.report.multiply_adds_kept.to_string())?;
    row("bytes", &|c| c.bytes.to_string())?;
    row("ms, 1 image", &|c| format!("{:.3}", 1e3 * c.latency))?;
    row(&format!("images/s, batch {}", target.batch()), &|c| format!("{:.0}", c.throughput))
}

impl EvalTarget {
    /// Images of a large pass.
    fn batch(&self) -> usize {
        self.data.test.len().min(BATCH)
    }

    /// The cost of the network, as it is stored and shrunk.
    fn costs<B: Backend>(&self, backend: &B) -> Result<[Cost; 2]> {
        let path = &self.model;
        let (stored, info) = load_model(backend, path)?;
        let shrunk = shrink(backend, &stored)?;
        let info = ModelInfo::new(shrunk.model.architecture(), shrunk.target(info.pruned), info.epochs);
        let bytes = [length(path)?, encode_model(&shrunk.model.state(backend), &info)?.len() as u64];
        let models = [stored, shrunk.model];
        let [one, many] = backend.scope(|| self.seconds(backend, &models))?;
        Ok(std::array::from_fn(|i| Cost {
            report: SparsityReport::of(backend, &models[i]),
            bytes: bytes[i],
            latency: one[i],
            throughput: self.batch() as f64 / many[i],
        }))
    }

    /// Medians of passes with one image and with many, of each model.
    fn seconds<B: Backend>(&self, backend: &B, models: &[Model<B>; 2]) -> Result<[[f64; 2]; 2]> {
        let data = &self.data;
        let images = backend.resident(data.shape, &data.test.images);
        let indices: Vec<u32> = (0..self.batch() as u32).collect();
        let mut seconds: [[Vec<f64>; 2]; 2] = Default::default();
        let begin = Instant::now();
        let enough = |n: usize| n >= MOST || n >= FEWEST && begin.elapsed().as_secs_f64() > SECONDS;
        while !enough(seconds[0][0].len()) {
            // In turn, so that what else the machine does is shared by all.
            for (indices, seconds) in [&indices[..1], &indices].into_iter().zip(&mut seconds) {
                for (model, seconds) in models.iter().zip(seconds) {
                    let subset = Subset { images: &images, labels: &data.test.labels, indices };
                    let begin = Instant::now();
                    logits(backend, model, &subset)?;
                    seconds.push(begin.elapsed().as_secs_f64());
                }
            }
        }
        Ok(seconds.map(|each| each.map(|seconds| median(timed(&seconds).to_vec()))))
    }
}
