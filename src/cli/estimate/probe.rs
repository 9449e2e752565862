//! The time of an image pass of each kind, measured on the device: a few steps on a network of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::kind::{Kind, Work};
use crate::attack::PgdConfig;
use crate::attack::evaluation::{self, Subset};
use crate::backend::{Backend, Memory};
use crate::base::error::Result;
use crate::cli::timed_training::TimedTraining;
use crate::data::{Dataset, Split};
use crate::experiments::pipeline::{AnyBackend, BackendName, BackendSpec, EngineWorker, on_backend};
use crate::nn::init::{Init, initial_values};
use crate::nn::models::Model;
use crate::train::{Sparsifier, TrainConfig, Trainer};

/// Seconds of all kinds together, where they are not a small share of what is promised, and at most.
const SECONDS: f64 = 1.0;
const MOST_SECONDS: f64 = 4.0;
/// Seconds in which it is measured how much faster stages are alone.
const ALONE_SECONDS: f64 = 0.3;
/// Share of the promised time that is measured.
const SHARE: f64 = 0.02;
/// Seconds of one kind, at least and at most.
const KIND_SECONDS: [f64; 2] = [0.02, 0.3];
/// Seconds of a step of which the warm-up is a small part.
const SLOW_SECONDS: f64 = 0.5;
/// Images that the CPU computes side by side; fewer take as long.
const LANES: usize = 16;
/// Images of an evaluation at once; more take as long each.
const BATCH: usize = 512;
/// Key of the random numbers, which are the probe's alone.
const SEED: u64 = 0;

/// Makes of a first guess at the seconds of a multiply-add the seconds for which it is worth measuring.
type Limit<'a> = &'a (dyn Fn(f64) -> f64 + Sync);

/// What was measured before a run.
pub struct Measured {
    /// Seconds of a multiply-add of each kind, beside others in all slots. `None` for those that there was no time for, or that failed.
    pub seconds: Vec<Option<f64>>,
    /// How the speed of a stage depends on how many run, for the schedule.
    pub exponent: f64,
}

/// Measures kinds on the backends of a worker, as many at once as will run.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    pub data: &'a Dataset,
    pub spec: BackendSpec,
    /// Stages side by side.
    pub slots: usize,
}

/// A kind to be measured.
struct Task<'a> {
    place: usize,
    kind: &'a Kind,
    /// Multiply-adds of the run.
    work: f64,
}

/// A piece of work that is short enough to be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    images: usize,
    /// Steps of the attack.
    steps: usize,
}

impl Probe<'_> {
    /// Measures `kinds`, each given with the image passes to be made of it, the largest first.
    pub fn measure(&self, worker: &EngineWorker<'_>, kinds: &[(Kind, u64)]) -> Measured {
        let work: Vec<f64> = kinds.iter().map(|(kind, passes)| kind.multiply_adds() * *passes as f64).collect();
        let mut order: Vec<usize> = (0..kinds.len()).filter(|&i| work[i] > 0.0).collect();
        order.sort_by(|&a, &b| work[b].total_cmp(&work[a]));
        let tasks: Vec<Task> = order.into_iter().map(|i| Task { place: i, kind: &kinds[i].0, work: work[i] }).collect();
        let mut seconds = vec![None; kinds.len()];
        self.beside_others(worker, &tasks).into_iter().for_each(|(place, per)| seconds[place] = Some(per));
        let exponent = self.exponent(worker, &tasks, &seconds).unwrap_or(match self.spec.name {
            BackendName::Cpu => 1.0,
            // Streams are taken not to notice each other.
            BackendName::Cuda => 0.0,
        });
        Measured { seconds, exponent }
    }

    /// Seconds of a multiply-add of each kind that there is time for, with its place.
    fn beside_others(&self, worker: &EngineWorker<'_>, tasks: &[Task<'_>]) -> Vec<(usize, f64)> {
        let (begin, next) = (Instant::now(), AtomicUsize::new(0));
        let measured = Mutex::new((Vec::new(), SECONDS));
        let share = SECONDS * self.slots as f64 / tasks.len().max(1) as f64;
        worker.on_idle_backends(self.slots, |backend| {
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let per = self.of_task(backend, task, share)?;
                // Every statement leaves numbers that are whole.
                let mut measured = measured.lock().unwrap_or_else(PoisonError::into_inner);
                measured.0.push((task.place, per));
                measured.1 = (SHARE * per * task.work / self.slots as f64).clamp(measured.1, MOST_SECONDS);
                if begin.elapsed().as_secs_f64() > measured.1 {
                    break;
                }
            }
            Ok(())
        });
        measured.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }

    /// The exponent by which stages are faster alone than beside others in all slots, where a multiply-add of each kind takes `beside`
    /// seconds. `None` if that is not measured.
    fn exponent(&self, worker: &EngineWorker<'_>, tasks: &[Task<'_>], beside: &[Option<f64>]) -> Option<f64> {
        if self.spec.name == BackendName::Cuda || self.slots < 2 {
            return None;
        }
        let (begin, alone) = (Instant::now(), Probe { slots: 1, ..*self });
        let share = ALONE_SECONDS / tasks.len().max(1) as f64;
        // Seconds of all the work, beside others and alone.
        let seconds = Mutex::new([0.0; 2]);
        worker.on_idle_backends(1, |backend| {
            let known = tasks.iter().filter_map(|task| Some((task, beside[task.place]?)));
            for (task, beside) in known.take_while(|_| begin.elapsed().as_secs_f64() < ALONE_SECONDS) {
                let alone = alone.of_task(backend, task, share)?;
                let mut seconds = seconds.lock().unwrap_or_else(PoisonError::into_inner);
                *seconds = [seconds[0] + task.work * beside, seconds[1] + task.work * alone];
            }
            Ok(())
        });
        let [beside, alone] = seconds.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What else the machine does may make stages look slower alone, or faster than all cores are.
        (alone > 0.0).then(|| ((beside / alone).ln() / (self.slots as f64).ln()).clamp(0.0, 1.0))
    }

    /// Seconds of a multiply-add of a task, measured for at most `share` seconds if that is long enough.
    fn of_task(&self, backend: &AnyBackend, task: &Task<'_>, share: f64) -> Result<f64> {
        let limit = |per: f64| (SHARE * per * task.work).min(share).clamp(KIND_SECONDS[0], KIND_SECONDS[1]);
        on_backend!(backend, |backend| {
            let per = backend.scope(|| self.of_kind(backend, task.kind, &limit));
            backend.empty_cache();
            per
        })
    }

    /// Seconds of a multiply-add of `kind`.
    fn of_kind<B: Backend>(&self, backend: &B, kind: &Kind, limit: Limit<'_>) -> Result<f64> {
        match &kind.work {
            Work::Training(config) => self.training(backend, kind, config, limit),
            Work::Evaluation(attack) => self.evaluation(backend, kind, attack, limit),
            Work::Suite(config) => self.evaluation(backend, kind, &PgdConfig::paper(config.data.name), limit),
        }
    }

    fn training<B: Backend>(&self, backend: &B, kind: &Kind, config: &TrainConfig, limit: Limit<'_>) -> Result<f64> {
        let (images, labels) = self.first(&self.data.train, config.batch);
        let model = fresh(backend, kind)?;
        let sparsifier = Sparsifier::start(backend, &config.sparsity, &model)?;
        let trainer = Trainer::of(backend, model, &config.optimizer, sparsifier);
        let mut training = TimedTraining::new(backend, trainer, config.optimizer.lr(), images, labels);
        let steps = config.attack.as_ref().map_or(0, |attack| attack.steps);
        self.clock(backend, kind, Sample { images: labels.len(), steps }, limit, &mut |sample| {
            let attack = config.attack.as_ref().map(|attack| PgdConfig { steps: sample.steps, ..attack.clone() });
            training.step(backend, sample.images, attack.as_ref())
        })
    }

    fn evaluation<B: Backend>(&self, backend: &B, kind: &Kind, attack: &PgdConfig, limit: Limit<'_>) -> Result<f64> {
        let (images, labels) = self.first(&self.data.test, BATCH);
        let model = fresh(backend, kind)?;
        let images = backend.resident(self.data.shape, images);
        let indices: Vec<u32> = (0..labels.len() as u32).collect();
        self.clock(backend, kind, Sample { images: labels.len(), steps: attack.steps }, limit, &mut |sample| {
            let subset = Subset { images: &images, labels, indices: &indices[..sample.images] };
            let attack = PgdConfig { steps: sample.steps, restarts: 1, ..attack.clone() };
            evaluation::evaluate(backend, &model, &subset, Some(&attack), SEED, &|_| Ok(())).map(drop)
        })
    }

    /// Seconds of a multiply-add of `run`, whose work is at most `full`.
    fn clock<B: Backend>(
        &self,
        backend: &B,
        kind: &Kind,
        full: Sample,
        limit: Limit<'_>,
        run: &mut dyn FnMut(Sample) -> Result<()>,
    ) -> Result<f64> {
        let block = match self.spec.name {
            BackendName::Cpu => (LANES * (self.spec.threads / self.slots).max(1)).min(full.images),
            // Fewer images leave a GPU idle.
            BackendName::Cuda => full.images,
        };
        let small = Sample { images: block, steps: full.steps.min(1) };
        let network = kind.architecture.multiply_adds as f64;
        let work = |sample: Sample| sample.images as f64 * kind.work.multiply_adds(sample.steps) * network;
        seconds_per_work(small, full, &work, limit, &mut |sample| {
            let begin = Instant::now();
            run(sample)?;
            backend.synchronize();
            backend.status()?;
            Ok(begin.elapsed().as_secs_f64())
        })
    }

    /// The first `most` images of a split, and their labels.
    fn first<'s>(&self, split: &'s Split, most: usize) -> (&'s [u8], &'s [u8]) {
        let n = split.len().min(most);
        let pixels: usize = self.data.shape.iter().product();
        (&split.images[..n * pixels], &split.labels[..n])
    }
}

/// A network of this kind; the time does not depend on its weights.
fn fresh<B: Backend>(backend: &B, kind: &Kind) -> Result<Model<B>> {
    let values = initial_values(&kind.architecture, Init::Default, SEED);
    Model::new(backend, kind.architecture.clone(), &values)
}

/// Seconds of a unit of `work`, from runs of a sample between `small` and `full` for about as long as `limit` says. `run`
/// returns the seconds of one.
fn seconds_per_work(
    small: Sample,
    full: Sample,
    work: &dyn Fn(Sample) -> f64,
    limit: Limit<'_>,
    run: &mut dyn FnMut(Sample) -> Result<f64>,
) -> Result<f64> {
    // The first run also finds caches cold, or records a graph: where that is a small part of it, it counts.
    let first = run(small)?;
    if first > SLOW_SECONDS {
        return Ok(first / work(small));
    }
    let second = run(small)?;
    let per = second / work(small);
    let seconds = limit(per);
    if second > seconds {
        return Ok(per);
    }
    // A warm-up and two more.
    let affordable = |sample: &Sample| 3.0 * per * work(*sample) <= seconds;
    let images = if affordable(&Sample { images: full.images, ..small }) { full.images } else { small.images };
    let steps = (small.steps..=full.steps).rev();
    let sample = steps.map(|steps| Sample { images, steps }).find(affordable).unwrap_or(small);
    run(sample)?;
    let (mut spent, mut runs) = (0.0, 0);
    while spent < seconds / 2.0 {
        spent += run(sample)?;
        runs += 1;
    }
    Ok(spent / f64::from(runs) / work(sample))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const SMALL: Sample = Sample { images: 16, steps: 1 };
    const FULL: Sample = Sample { images: 64, steps: 10 };

    /// An update of three units an image and attack steps of two.
    fn work(sample: Sample) -> f64 {
        sample.images as f64 * (2.0 * sample.steps as f64 + 3.0)
    }

    /// What is found for a device that needs `unit` seconds for a unit of work, and `cold` more for the first run, in
    /// `limit` seconds; and the samples that were run.
    fn measure(unit: f64, cold: f64, limit: f64) -> (f64, Vec<Sample>) {
        let samples = RefCell::new(Vec::new());
        let mut run = |sample: Sample| {
            samples.borrow_mut().push(sample);
            Ok(work(sample) * unit + if samples.borrow().len() == 1 { cold } else { 0.0 })
        };
        let found = seconds_per_work(SMALL, FULL, &work, &|_| limit, &mut run).unwrap();
        (found, samples.into_inner())
    }

    #[test]
    fn the_whole_step_is_measured_where_there_is_time_and_the_cold_run_is_left_out() {
        let (found, samples) = measure(1e-6, 0.05, 0.2);
        assert!((found / 1e-6 - 1.0).abs() < 1e-6, "{found}");
        assert_eq!(*samples.last().unwrap(), FULL);
        let seconds: f64 = samples.iter().map(|&sample| work(sample) * 1e-6).sum();
        assert!(seconds <= 0.2, "{seconds} s for {} runs", samples.len());
    }

    #[test]
    fn a_slow_step_is_measured_in_part() {
        // The whole would take 14.7 s, 64 images with one step 3.2 s, 16 images with one step 0.8 s.
        let (found, samples) = measure(0.01, 0.0, 1.0);
        assert!((found / 0.01 - 1.0).abs() < 1e-6, "{found}");
        assert!(samples.iter().all(|&sample| sample == SMALL), "{samples:?}");
        // All images with as many steps as take a third of the time: 64 · (2 · 3 + 3) · 0.001 = 0.58 s.
        let (_, samples) = measure(0.001, 0.0, 2.0);
        assert_eq!(*samples.last().unwrap(), Sample { images: 64, steps: 3 });
    }

    #[test]
    fn a_step_that_takes_longer_than_there_is_time_runs_once_or_twice_where_the_first_is_mostly_warm_up() {
        // 16 · 5 · 0.1 s = 8 s; and 0.08 s with 0.1 s more for the first.
        assert_eq!(measure(0.1, 0.0, 0.3), (0.1, vec![SMALL]));
        assert_eq!(measure(0.001, 0.1, 0.05), (0.001, vec![SMALL, SMALL]));
    }
}
