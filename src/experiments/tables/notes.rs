//! The notes under a table: how its networks were trained, pruned and measured, said of the stages that were run.

use std::collections::BTreeSet;

use super::Table;
use super::cells::Cell;
use crate::attack::{AttackLoss, EpsSchedule, PgdConfig, Ramp};
use crate::experiments::pipeline::StageConfig;
use crate::nn::optim::{LrSchedule, LrShape, OptimizerConfig};
use crate::prune::{Scheme, Target};
use crate::train::{Origin, Sparsity, TrainConfig};

/// The notes of a table with these cells.
pub fn notes(table: &Table, cells: &[Cell]) -> Vec<String> {
    let mut notes = trainings(cells);
    notes.extend(measurement(cells));
    notes.extend(pruning(cells));
    notes.extend(epochs_in_all(cells));
    notes.extend((table.remarks)(cells));
    notes
}

/// Every stage that was run, with its cell.
fn stages(cells: &[Cell]) -> impl Iterator<Item = (&Cell, &StageConfig)> {
    cells.iter().flat_map(|cell| cell.chain.iter().map(move |config| (cell, config)))
}

/// The texts that `say` makes of `stages`: one if all have the same, else each with the cells that have it.
fn of_all<'a, T>(stages: &[(&Cell, &'a T)], say: impl Fn(&'a T) -> Option<String>) -> Option<String> {
    let mut said: Vec<(String, Vec<&Cell>)> = Vec::new();
    for (cell, config) in stages {
        let Some(text) = say(config) else { continue };
        match said.iter_mut().find(|(known, _)| *known == text) {
            Some((_, cells)) => cells.push(cell),
            None => said.push((text, vec![cell])),
        }
    }
    let silent = said.iter().map(|(_, cells)| cells.len()).sum::<usize>() < stages.len();
    match &said[..] {
        [] => None,
        [(text, _)] if !silent => Some(text.clone()),
        _ => {
            let all: Vec<&Cell> = stages.iter().map(|(cell, _)| *cell).collect();
            let each = said.iter().map(|(text, cells)| format!("{text} ({})", whereabouts(cells, &all)));
            Some(each.collect::<Vec<_>>().join(", "))
        }
    }
}

/// The names that tell `cells` from the rest of `all`: those of their methods, columns or rows, the first kind that does, or else
/// of the cells themselves.
fn whereabouts(cells: &[&Cell], all: &[&Cell]) -> String {
    let rest: Vec<&&Cell> = all.iter().filter(|cell| !cells.iter().any(|other| std::ptr::eq(*other, **cell))).collect();
    let names: [fn(&Cell) -> String; 4] = [
        |cell| cell.at.block.method.to_string(),
        |cell| cell.at.column.to_string(),
        |cell| cell.at.row.to_string(),
        |cell| format!("{} {}:{}", cell.at.block.method, cell.at.row, cell.at.column),
    ];
    let mut text = String::new();
    for name in names {
        let mut here: Vec<String> = Vec::new();
        for cell in cells.iter().map(|cell| name(cell)) {
            if !here.contains(&cell) {
                here.push(cell);
            }
        }
        text = here.join(", ");
        if rest.iter().all(|cell| !here.contains(&name(cell))) {
            break;
        }
    }
    text
}

/// A sentence for each kind of training.
fn trainings(cells: &[Cell]) -> Vec<String> {
    let mut kinds: Vec<(&str, Vec<(&Cell, &TrainConfig)>)> = Vec::new();
    for (cell, config) in stages(cells) {
        let StageConfig::Train(training) = config else { continue };
        let kind = kind(training);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, stages)) => stages.push((cell, training)),
            None => kinds.push((kind, vec![(cell, training)])),
        }
    }
    kinds.iter().map(|(kind, stages)| format!("{kind}: {}.", training(stages))).collect()
}

/// The kind of a training, as a heading.
fn kind(config: &TrainConfig) -> &'static str {
    match (&config.sparsity, config.origin) {
        (Sparsity::Dense, _) => "Training",
        (Sparsity::Masked(_), Origin::Inherited) => "Training of what is left, from its initialisation",
        (Sparsity::Masked(_), _) => "Retraining",
        (Sparsity::Admm(_), _) => "ADMM",
        (Sparsity::Proximal(_), _) => "Proximal gradient",
    }
}

fn training(stages: &[(&Cell, &TrainConfig)]) -> String {
    let aspects: [fn(&TrainConfig) -> Option<String>; 7] = [
        |config| Some(count(config.epochs, "epoch")),
        |config| Some(optimizer(&config.optimizer)),
        |config| Some(schedule(&config.schedule)),
        |config| Some(format!("batch {}", config.batch)),
        |config| config.augment.then(|| "random crops and flips".to_string()),
        |config| {
            Some(config.attack.as_ref().map_or("on clean images".to_string(), |a| format!("against {}", attack(a))))
        },
        |config| config.attack.as_ref().and_then(|_| ramp(&config.eps_schedule)),
    ];
    let mut parts: Vec<String> = aspects.iter().filter_map(|say| of_all(stages, say)).collect();
    parts.extend(of_all(stages, |config| sparsity(&config.sparsity)));
    parts.join("; ")
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn optimizer(config: &OptimizerConfig) -> String {
    let (name, lr, momentum, decay) = match config {
        OptimizerConfig::Sgd { lr, momentum, weight_decay } => ("SGD", lr, *momentum, *weight_decay),
        OptimizerConfig::Adam { lr, weight_decay, .. } => ("Adam", lr, 0.0, *weight_decay),
    };
    let option = |name: &str, value: f32| if value == 0.0 { String::new() } else { format!(", {name} {value}") };
    format!("{name} {lr}{}{}", option("momentum", momentum), option("weight decay", decay))
}

fn schedule(config: &LrSchedule) -> String {
    let factor = config.gamma;
    let shape = match config.shape {
        LrShape::Constant => "constant learning rate".to_string(),
        LrShape::MultiStep => format!("learning rate times {factor} at {}", epochs(&config.milestones)),
        LrShape::Cosine => "learning rate on half a cosine to 0".to_string(),
        LrShape::Periodic => format!(
            "learning rate times {factor} after each third of {}, then from the start",
            count(config.period, "epoch")
        ),
    };
    match config.warmup_epochs {
        0.0 => shape,
        epochs => format!("{shape}, growing linearly over {}", first(epochs)),
    }
}

/// `epochs 80, 150`.
fn epochs(epochs: &[usize]) -> String {
    let list: Vec<String> = epochs.iter().map(usize::to_string).collect();
    format!("epoch{} {}", if list.len() == 1 { "" } else { "s" }, list.join(", "))
}

/// `the first 4.8 epochs`.
fn first(epochs: f64) -> String {
    match (epochs * 100.0).round() / 100.0 {
        1.0 => "the first epoch".to_string(),
        epochs => format!("the first {epochs} epochs"),
    }
}

/// `PGD-40, steps of 0.01 in eps 0.3`.
fn attack(config: &PgdConfig) -> String {
    let PgdConfig { eps, step_size, steps, random_start, restarts, loss, .. } = config;
    let loss = match loss {
        AttackLoss::CrossEntropy => "",
        AttackLoss::Margin => " on the margin loss -max(z_y - max z_j + 50, 0)",
    };
    let start = if *random_start { "" } else { ", from the clean image" };
    let restarts = if *restarts == 1 { String::new() } else { format!(", {restarts} starts") };
    format!("PGD-{steps}{loss} in eps {}, steps of {}{start}{restarts}", pixels(*eps), pixels(*step_size))
}

/// A length in pixel values: as a part of 255 where that is what it is.
fn pixels(length: f32) -> String {
    let levels = length * 255.0;
    let whole = (levels - levels.round()).abs() < 1e-4 && (1.0..=32.0).contains(&levels);
    if whole { format!("{}/255", levels.round()) } else { length.to_string() }
}

fn ramp(config: &EpsSchedule) -> Option<String> {
    let shape = match config.ramp {
        Ramp::Constant => return None,
        Ramp::Linear => "linearly",
        Ramp::Cosine => "along half a cosine",
    };
    Some(format!("eps and steps growing {shape} over {}", first(config.epochs)))
}

fn sparsity(config: &Sparsity) -> Option<String> {
    match config {
        Sparsity::Dense | Sparsity::Masked(_) => None,
        Sparsity::Admm(admm) => Some(format!(
            "rho {} times {} at each update, {}",
            admm.rho,
            admm.growth,
            match admm.update_every {
                1 => "every epoch".to_string(),
                n => format!("every {n} epochs"),
            }
        )),
        Sparsity::Proximal(proximal) => Some(format!("projected after every {}", proximal.every)),
    }
}

/// The attack that measures the numbers of the table.
fn measurement(cells: &[Cell]) -> Option<String> {
    let last: Vec<(&Cell, &StageConfig)> = cells.iter().filter_map(|cell| Some((cell, cell.chain.last()?))).collect();
    let said = of_all(&last, |config| config.eval_attack().map(attack))?;
    Some(format!("Measured on clean images and under {said}."))
}

/// The weights that pruning keeps.
fn pruning(cells: &[Cell]) -> Option<String> {
    let pruned: Vec<(&Cell, &Target)> = stages(cells)
        .filter_map(|(cell, config)| match config {
            StageConfig::Prune(config) => Some((cell, &config.sparsity)),
            _ => None,
        })
        .collect();
    let said = of_all(&pruned, |target| {
        let kept = match target.scheme {
            Scheme::Irregular => "the single weights of largest magnitude",
            Scheme::Filter => "the filters of largest norm",
            Scheme::Column => "the columns of largest norm, the same position in all filters,",
            Scheme::BnFilter => "the filters with the largest scale of batch normalisation",
            Scheme::Tied => "the filters of largest norm over all layers that write to one residual stream",
        };
        let linear =
            if target.linear { "fully connected layers too, but not the classifier" } else { "convolutions only" };
        Some(format!("{kept}; {linear}"))
    })?;
    Some(format!("Pruning keeps {said}; the same share of every layer."))
}

/// Epochs of whole chains, which the paper keeps equal between the methods.
fn epochs_in_all(cells: &[Cell]) -> Option<String> {
    let chains: Vec<(&Cell, &Cell)> = cells.iter().map(|cell| (cell, cell)).collect();
    let several = cells.iter().any(|cell| cell.chain.iter().filter(|config| config.epochs() > 0).count() > 1);
    let all = |cell: &Cell| cell.chain.iter().map(StageConfig::epochs).sum::<usize>();
    let differ = cells.iter().map(all).collect::<BTreeSet<_>>().len() > 1;
    (several && differ)
        .then(|| of_all(&chains, |cell| Some(all(cell).to_string())))?
        .map(|said| format!("Epochs of a cell, the stages before it included: {said}."))
}
