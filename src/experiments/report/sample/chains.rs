//! Made-up chains of stages behind the cells of [`super::report`].

use crate::attack::evaluation::EvalReport;
use crate::experiments::pipeline::{PruneResult, StageResult};
use crate::experiments::report::page::{CellChain, Examples, Pictured, SeedChain, StageEntry};
use crate::prune::{LayerSparsity, SparsityReport};
use crate::train::{Candidate, EpochRow, Selection, TrainResult};

fn measured(natural: f64, adversarial: f64) -> EvalReport {
    EvalReport {
        images: 100,
        natural,
        adversarial,
        natural_loss: 0.5,
        adversarial_loss: 0.7,
        zero_gradient: 0.0,
        constant_prediction: None,
    }
}

/// A finished training of four epochs.
pub fn training(step: &'static str, natural: f64) -> StageEntry {
    let row = |epoch| EpochRow {
        epoch,
        lr: 0.1,
        eps: 0.3,
        train_loss: 2.0 / epoch as f64,
        train_accuracy: 50.0,
        zero_gradient: 0.0,
        test_natural: Some(natural),
        test_adversarial: Some(natural - 10.0),
        test_natural_loss: None,
        test_adversarial_loss: None,
        held_out_natural: None,
        held_out_adversarial: None,
        seconds: 1.0,
    };
    let selected =
        Candidate { select: Selection::Last, epoch: 3, test: measured(natural, natural - 10.0), held_out: None };
    let result = TrainResult { selected, candidates: vec![], collapsed: false, parameters: 9, epochs: 4, seconds: 2.5 };
    StageEntry {
        step,
        key: format!("key-of-{step}"),
        epochs: 4,
        result: Some(StageResult::Train(result)),
        metrics: (1..=4).map(row).collect(),
        residuals: vec![],
    }
}

/// A finished hard prune: 91/81 % before, 40/30 % after.
pub fn pruning() -> StageEntry {
    let layer = LayerSparsity {
        name: "conv1".into(),
        filters: 8,
        filters_kept: 2,
        columns: 25,
        columns_kept: 25,
        weights: 200,
        weights_kept: 50,
        multiply_adds: 156_800,
        multiply_adds_kept: 39_200,
    };
    let sparsity = SparsityReport {
        layers: vec![layer],
        parameters: 208,
        parameters_kept: 52,
        conv_compression: 4.0,
        compression: 4.0,
        multiply_adds: 156_800,
        multiply_adds_kept: 39_200,
    };
    let (before, after) = (measured(91.0, 81.0), measured(40.0, 30.0));
    let result = PruneResult { before, after, sparsity, collapsed: false, seconds: 0.25 };
    let result = Some(StageResult::Prune(result));
    StageEntry { step: "pruning", key: "key".into(), epochs: 0, result, metrics: vec![], residuals: vec![] }
}

/// A seed with these stages.
pub fn seed(seed: u64, stages: Vec<StageEntry>) -> SeedChain {
    let end = stages.iter().rev().find_map(|stage| stage.result.as_ref());
    SeedChain { seed, scores: end.and_then(StageResult::scores), stages }
}

/// A cell of [`super::report`].
pub fn cell(row: &str, column: &str, seeds: Vec<SeedChain>) -> CellChain {
    let image = |adversarial: &str| Pictured {
        clean: vec![0.0, 1.0],
        attacked: vec![0.1, 0.9],
        label: "cat".into(),
        natural: "cat".into(),
        adversarial: adversarial.into(),
    };
    let images = vec![image("cat"), image("dog")];
    CellChain {
        method: "scratch".into(),
        block: "From scratch".into(),
        row: row.into(),
        column: column.into(),
        seeds,
        examples: Some(Examples { attack: "pgd-40".into(), eps: 0.1, shape: [1, 1, 2], images }),
    }
}

/// One that was pruned, of three seeds, and one that was not.
pub fn cells() -> Vec<CellChain> {
    let retrained = || vec![training("dense", 91.0), pruning(), training("retraining", 90.0)];
    vec![
        cell("uniform", "adam", (0..3).map(|number| seed(number, retrained())).collect()),
        cell("uniform", "sgd", vec![seed(0, vec![training("dense", 11.35)])]),
    ]
}
