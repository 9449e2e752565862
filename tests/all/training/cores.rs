//! Training on cores that other backends take and leave.

use std::collections::BTreeSet;
use std::sync::Mutex;

use engine::backend::cpu::{Cores, Cpu, Running};
use engine::data::{Dataset, DatasetName};
use engine::nn::models::Network;
use engine::train::{EpochRow, Observer, TrainConfig, train};

use super::runs::{Files, files, timeless};
use crate::small_runs::{Stop, attack, config, digits};

/// Lets more and more of the other backends run from step to step, then none, and so on.
struct Crowd {
    backend: Cpu<f32>,
    others: Vec<Cpu<f32>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Vec<Running>,
    /// Threads that steps had.
    seen: BTreeSet<usize>,
}

impl Crowd {
    /// Five cores: 5, 3, 2, 2 and 1 for the backend.
    fn new() -> Self {
        let cores = Cores::new(5);
        let start = || Cpu::<f32>::on_cores(&cores).unwrap();
        Crowd { backend: start(), others: (0..4).map(|_| start()).collect(), state: Mutex::default() }
    }
}

impl Observer for Crowd {
    fn advance(&self, _: u64) {
        let State { running, seen } = &mut *self.state.lock().unwrap();
        match self.others.get(running.len()) {
            Some(next) => running.push(next.enter()),
            None => running.clear(),
        }
        seen.insert(self.backend.threads());
    }

    fn epoch(&self, _: &EpochRow, _: usize) {}

    fn stop_requested(&self) -> bool {
        false
    }
}

/// The same files and the same result as on one thread.
fn check(config: &TrainConfig, data: &Dataset) {
    let run = |backend: &Cpu<f32>, observer: &dyn Observer| {
        let dir = tempfile::tempdir().unwrap();
        let result = train(backend, config, data, None, dir.path(), observer).unwrap();
        (timeless(result), files(dir.path()))
    };
    let one: (_, Files) = run(&Cpu::new(1).unwrap(), &Stop::never());
    let crowd = Crowd::new();
    assert_eq!(run(&crowd.backend, &crowd), one);
    assert_eq!(crowd.state.lock().unwrap().seen, BTreeSet::from([1, 2, 3, 5]));
}

#[test]
fn lenet_has_the_same_bits_when_the_number_of_threads_changes_at_every_step() {
    let data = digits(330, 70);
    check(&TrainConfig { epochs: 1, batch: 50, ..config(&data) }, &data);
}

/// Its batches are coupled, so that the threads work on each op together.
#[test]
fn resnet18_has_the_same_bits_when_the_number_of_threads_changes_at_every_step() {
    let data = Dataset::sample(DatasetName::Cifar10).unwrap().subset(330, 20).unwrap();
    let attack = Some(attack(1));
    check(&TrainConfig { network: Network::ResNet18, epochs: 1, batch: 50, attack, ..config(&data) }, &data);
}
