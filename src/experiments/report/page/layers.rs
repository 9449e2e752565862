//! The weights that a hard prune has left in each layer.

use maud::{Markup, html};

use crate::prune::{LayerSparsity, SparsityReport, short};

/// The layers as a table, with a line of totals.
pub fn layers(report: &SparsityReport) -> Markup {
    let SparsityReport { parameters, parameters_kept, multiply_adds, multiply_adds_kept, compression, .. } = report;
    html! {
        h4 { "Weights left in each layer" }
        div.scroll tabindex="0" role="region" aria-label="Weights left in each layer" {
            table.numbers {
                thead {
                    tr {
                        th scope="col" { "Layer" }
                        th scope="col" { "Filters" }
                        th scope="col" { "Weights" }
                        th scope="col" { "Multiply-adds" }
                        th scope="col" { "Weights kept" }
                    }
                }
                tbody { @for layer in &report.layers { (row(layer)) } }
                tfoot {
                    tr {
                        th scope="row" { "All parameters" }
                        td {}
                        td { (parameters_kept) " of " (parameters) }
                        td { (short(*multiply_adds_kept)) " of " (short(*multiply_adds)) }
                        td { (format!("{compression:.1}")) "× smaller" }
                    }
                }
            }
        }
    }
}

fn row(layer: &LayerSparsity) -> Markup {
    let share = 100.0 * layer.weights_kept as f64 / layer.weights.max(1) as f64;
    html! {
        tr {
            th scope="row" { code { (layer.name) } }
            td { (layer.filters_kept) " of " (layer.filters) }
            td { (layer.weights_kept) " of " (layer.weights) }
            td { (short(layer.multiply_adds_kept)) " of " (short(layer.multiply_adds)) }
            td.share {
                span { (format!("{share:.1} %")) }
                span.bar aria-hidden="true" { span style={ "width:" (format!("{share:.1}")) "%" } {} }
            }
        }
    }
}
