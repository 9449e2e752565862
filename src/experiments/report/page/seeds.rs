//! The seeds of a cell as dots on the axis of accuracy.

use maud::{Markup, html};

use super::chart::coordinate;
use super::{CellChain, SeedChain};
use crate::experiments::pipeline::Scores;
use crate::experiments::report::Summary;
use crate::experiments::report::numbers::percent;

const WIDTH: f64 = 460.0;
const LEFT: f64 = 82.0;
const RIGHT: f64 = 16.0;
/// Height of a row of dots, and of all rows.
const ROW: f64 = 34.0;
const ROWS: f64 = 2.0 * ROW;
/// For the numbers of the axis.
const BOTTOM: f64 = 24.0;

/// A kind of accuracy.
struct Kind {
    name: &'static str,
    of_seed: fn(&Scores) -> f64,
    mean: fn(&Summary) -> f64,
    published: fn(&Summary) -> Option<f64>,
}

const KINDS: [Kind; 2] = [
    Kind { name: "natural", of_seed: |s| s.natural, mean: |s| s.natural, published: |s| s.paper_natural },
    Kind {
        name: "adversarial",
        of_seed: |s| s.adversarial,
        mean: |s| s.adversarial,
        published: |s| s.paper_adversarial,
    },
];

fn x(accuracy: f64) -> String {
    coordinate(LEFT + (WIDTH - LEFT - RIGHT) * accuracy / 100.0)
}

/// Natural and adversarial accuracy of every finished seed, their mean, and what is published.
pub fn dots(cell: &CellChain, summary: &Summary) -> Markup {
    html! {
        figure.chart {
            figcaption { "Accuracy of each seed, %" }
            svg viewBox={ "0 0 " (WIDTH) " " (ROWS + BOTTOM) } role="img" aria-label=(description(cell, summary)) {
                @for tick in [0, 25, 50, 75, 100] {
                    @let x = x(f64::from(tick));
                    line.rule x1=(x) x2=(x) y1="4" y2=(ROWS) {}
                    text.tick x=(x) y=(ROWS + 16.0) text-anchor="middle" { (tick) }
                }
                @for (row, kind) in KINDS.iter().enumerate() {
                    @let y = (row as f64 + 0.5) * ROW;
                    text.tick x=(LEFT - 12.0) y=(y) dy="0.35em" text-anchor="end" { (kind.name) }
                    (marks(cell, summary, kind, y))
                }
            }
            ul.names {
                li { (sample(html! { circle."dot".natural cx="12" cy="6" r="4" {} })) "a seed" }
                @if summary.seeds > 1 {
                    li { (sample(html! { line.mean x1="12" x2="12" y1="0" y2="12" {} })) "mean of the seeds" }
                }
                @if summary.is_published() { li { (sample(diamond("12", 6.0))) "published" } }
            }
        }
    }
}

/// A mark as the key shows it.
fn sample(mark: Markup) -> Markup {
    html! { svg.mark viewBox="0 0 24 12" aria-hidden="true" { (mark) } }
}

fn marks(cell: &CellChain, summary: &Summary, kind: &Kind, y: f64) -> Markup {
    let mean = (kind.mean)(summary);
    let seeds = finished(cell).map(|(chain, scores)| (chain.seed, (kind.of_seed)(scores)));
    html! {
        @if summary.seeds > 1 && mean.is_finite() { line.mean x1=(x(mean)) x2=(x(mean)) y1=(y - 11.0) y2=(y + 11.0) {} }
        @if let Some(published) = (kind.published)(summary) { (diamond(&x(published), y)) }
        @for (seed, accuracy) in seeds.filter(|(_, accuracy)| accuracy.is_finite()) {
            circle class={ "dot " (kind.name) } cx=(x(accuracy)) cy=(y) r="4.5" {
                title { "seed " (seed) ": " (percent(accuracy)) }
            }
        }
    }
}

fn diamond(x: &str, y: f64) -> Markup {
    html! { path.published transform={ "translate(" (x) " " (y) ")" } d="M0 -6L6 0L0 6L-6 0Z" {} }
}

fn finished(cell: &CellChain) -> impl Iterator<Item = (&SeedChain, &Scores)> {
    cell.seeds.iter().filter_map(|chain| Some((chain, chain.scores.as_ref()?)))
}

/// In words, for those who do not see it.
fn description(cell: &CellChain, summary: &Summary) -> String {
    let of = |kind: &Kind| {
        let seeds =
            finished(cell).map(|(chain, scores)| format!("seed {} {}", chain.seed, percent((kind.of_seed)(scores))));
        let mean = percent((kind.mean)(summary));
        let published =
            (kind.published)(summary).map_or(String::new(), |value| format!(", published {}", percent(value)));
        format!("{}: {}, mean {mean}{published}", kind.name, seeds.collect::<Vec<_>>().join(", "))
    };
    KINDS.iter().map(of).collect::<Vec<_>>().join("; ")
}
