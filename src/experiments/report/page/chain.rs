//! The section of a cell: its numbers, its seeds, the stages of each, images under attack.

use maud::{Markup, html};

use super::chart::{Axis, Chart, Line};
use super::{CellChain, SeedChain, StageEntry, layers, seeds};
use crate::attack::evaluation::EvalReport;
use crate::base::error::Result;
use crate::experiments::pipeline::StageResult;
use crate::experiments::report::numbers::{ABSENT, difference, measured, percent, published};
use crate::experiments::report::{Report, Summary};
use crate::train::EpochRow;

/// Curves of layers have so many classes of colour and stroke.
const LAYER_CLASSES: usize = 12;

/// The content of the section of `cell`.
///
/// # Errors
/// As [`super::Examples::markup`].
pub fn cell(report: &Report, cell: &CellChain) -> Result<Markup> {
    let block = report.blocks.iter().find(|block| block.title == cell.block);
    let axes = block.map_or(("row", "column"), |block| (block.row_axis.as_str(), block.column_axis.as_str()));
    let summary = block.and_then(|block| {
        let row = block.rows.iter().position(|row| *row == cell.row)?;
        block.cell(row, block.columns.iter().position(|column| *column == cell.column)?)
    });
    let examples = cell.examples.as_ref().map(|examples| examples.markup()).transpose()?;
    Ok(html! {
        h2 { (cell.block) ": " (axes.0.to_lowercase()) " " (cell.row) ", " (axes.1.to_lowercase()) " " (cell.column) }
        @match summary {
            Some(summary) => (numbers(cell, summary)),
            None => p { "Not finished: no seed has reached the end of its chain." },
        }
        @if let [chain] = &cell.seeds[..] {
            h3 { "Stages, seed " (chain.seed) }
            (stages(chain))
        } @else {
            h3 { "Stages of each seed" }
            // All of them would be a long way to what follows.
            @for (place, chain) in cell.seeds.iter().enumerate() {
                details open[place == 0] {
                    summary { "Seed " (chain.seed) }
                    (stages(chain))
                }
            }
        }
        @if let Some(examples) = examples { (examples) }
    })
}

/// The numbers of the cell in the table.
fn numbers(cell: &CellChain, summary: &Summary) -> Markup {
    let published = published(summary);
    html! {
        div.overview {
            dl {
                dt { "Natural/adversarial accuracy, %" } dd.large { (measured(summary)) }
                @if let (Some(natural), Some(adversarial)) = (summary.natural_std, summary.adversarial_std) {
                    dt { "Standard deviation over " (summary.seeds) " seeds" }
                    dd { (percent(natural)) "/" (percent(adversarial)) }
                }
                dt { "Published" } dd { (published.as_deref().unwrap_or(ABSENT)) }
                @if let Some(difference) = difference(summary) { dt { "Difference" } dd { (difference) } }
            }
            (seeds::dots(cell, summary))
        }
    }
}

/// The stages of a seed in order, and their curves.
fn stages(chain: &SeedChain) -> Markup {
    let sparsity = chain.stages.iter().find_map(|stage| match &stage.result {
        Some(StageResult::Prune(result)) => Some(&result.sparsity),
        _ => None,
    });
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Stages of seed " (chain.seed) } {
            table.numbers {
                thead {
                    tr {
                        th scope="col" { "Stage" }
                        th scope="col" { "Epochs" }
                        th scope="col" { "Epoch kept" }
                        th scope="col" { "Seconds" }
                        th scope="col" { "Natural, %" }
                        th scope="col" { "Adversarial, %" }
                        th scope="col" { "In the store" }
                    }
                }
                tbody { @for stage in &chain.stages { (stage_row(stage)) } }
            }
        }
        div.charts {
            (Timeline::new(&chain.stages).charts())
        }
        @if let Some(sparsity) = sparsity { (layers::layers(sparsity)) }
    }
}

fn stage_row(stage: &StageEntry) -> Markup {
    let (natural, adversarial) = match &stage.result {
        None => ("not finished".to_string(), "not finished".to_string()),
        // A hard prune is about what it costs.
        Some(StageResult::Prune(result)) => {
            let change = |of: fn(&EvalReport) -> f64| {
                format!("{} → {}", percent(of(&result.before)), percent(of(&result.after)))
            };
            (change(|report| report.natural), change(|report| report.adversarial))
        }
        Some(result) => result.scores().map_or((ABSENT.to_string(), ABSENT.to_string()), |scores| {
            (percent(scores.natural), percent(scores.adversarial))
        }),
    };
    let kept = match &stage.result {
        Some(StageResult::Train(result)) => result.selected.epoch.to_string(),
        _ => ABSENT.to_string(),
    };
    let scores = stage.result.as_ref().and_then(StageResult::scores);
    html! {
        tr {
            th scope="row" { (stage.step) }
            td { @if stage.epochs > 0 { (stage.epochs) } @else { (ABSENT) } }
            td { (kept) }
            td { (scores.map_or(ABSENT.to_string(), |scores| format!("{:.1}", scores.seconds))) }
            td { (natural) }
            td { (adversarial) }
            td { code { (stage.key) } }
        }
    }
}

/// The stages of a seed one after the other on one axis of epochs.
struct Timeline<'a> {
    /// Each with the epochs before it.
    stages: Vec<(f64, &'a StageEntry)>,
    epochs: f64,
}

impl<'a> Timeline<'a> {
    fn new(stages: &'a [StageEntry]) -> Self {
        let mut epochs = 0;
        let stages = stages.iter().map(|stage| {
            let before = epochs;
            epochs += stage.epochs;
            (before as f64, stage)
        });
        let stages = stages.collect();
        Timeline { stages, epochs: epochs as f64 }
    }

    fn charts(&self) -> Markup {
        html! {
            (self.accuracy().markup())
            (self.loss().markup())
            @for (name, lines) in self.residuals() { (self.chart(name, Axis::Logarithmic, lines).markup()) }
        }
    }

    fn chart(&self, name: &'static str, axis: Axis, lines: Vec<Line>) -> Chart {
        let trained = self.stages.iter().filter(|(_, stage)| stage.epochs > 0);
        let stages = trained.map(|&(before, stage)| (before, stage.step)).collect();
        Chart { name, axis, epochs: self.epochs, stages, lines }
    }

    /// One line through all stages, so that the hard prune is a drop.
    fn accuracy(&self) -> Chart {
        let line = |name: &str,
                    class: &str,
                    of_epoch: fn(&EpochRow) -> Option<f64>,
                    of_prune: fn(&EvalReport) -> f64| {
            let mut points = Vec::new();
            for (before, stage) in &self.stages {
                points.extend(stage.metrics.iter().filter_map(|row| Some((before + row.epoch as f64, of_epoch(row)?))));
                if let Some(StageResult::Prune(result)) = &stage.result {
                    points.push((*before, of_prune(&result.after)));
                }
            }
            Line { name: name.to_string(), class: class.to_string(), points }
        };
        let nothing = |_: &EvalReport| f64::NAN;
        let lines = vec![
            line("natural, test", "natural", |row| row.test_natural, |report| report.natural),
            line("adversarial, test", "adversarial", |row| row.test_adversarial, |report| report.adversarial),
            line("natural, held-out", "natural dashed", |row| row.held_out_natural, nothing),
            line("adversarial, held-out", "adversarial dashed", |row| row.held_out_adversarial, nothing),
        ];
        self.chart("Accuracy, %", Axis::Percent, lines)
    }

    /// A line for each stage: what is minimised is not the same.
    fn loss(&self) -> Chart {
        let line = |&(before, stage): &(f64, &StageEntry)| Line {
            name: "training loss".to_string(),
            class: "loss".to_string(),
            points: stage.metrics.iter().map(|row| (before + row.epoch as f64, row.train_loss)).collect(),
        };
        self.chart("Training loss", Axis::FromZero, self.stages.iter().map(line).collect())
    }

    /// Primal and dual residuals of ADMM, a line a layer.
    fn residuals(&self) -> [(&'static str, Vec<Line>); 2] {
        let mut names: Vec<&str> = Vec::new();
        let rows =
            || self.stages.iter().flat_map(|&(before, stage)| stage.residuals.iter().map(move |row| (before, row)));
        for (_, row) in rows() {
            if !names.contains(&row.param.as_str()) {
                names.push(&row.param);
            }
        }
        let lines = |value: fn(&crate::train::ResidualRow) -> f64| {
            let line = |(i, name): (usize, &&str)| Line {
                name: name.trim_end_matches(".weight").to_string(),
                class: format!("layer-{}", i % LAYER_CLASSES),
                points: rows()
                    .filter(|(_, row)| row.param == **name)
                    .map(|(before, row)| (before + row.epoch as f64, value(row)))
                    .collect(),
            };
            names.iter().enumerate().map(line).collect()
        };
        [("ADMM, primal residual", lines(|row| row.primal)), ("ADMM, dual residual", lines(|row| row.dual))]
    }
}
