//! A block or a comparison as a table whose cells have the colours of `table.svg`.

use maud::{Markup, html};
use plotters::style::RGBColor;

use super::CellChain;
use crate::experiments::report::layout::{Face, GridCell, Layout, Panel};
use crate::experiments::report::svg::{ACCURACY, ADVERSARIAL_GAP, Scale};
use crate::experiments::report::{Block, Comparison};

/// Of the blocks.
pub const ACCURACY_KEY: Key = Key(&ACCURACY);

/// Of the comparisons.
pub const GAP_KEY: Key = Key(&ADVERSARIAL_GAP);

/// Colours that show a scale, evenly spaced.
const STOPS: usize = 9;

/// The key to a scale of colours.
pub struct Key(&'static Scale);

/// `#rrggbb`.
fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

impl Key {
    /// The scale as a band with its ticks.
    pub fn markup(&self) -> Markup {
        let Scale { name, range: (low, high), color, ticks } = self.0;
        let stop = |i: usize| hex(color(low + (high - low) * i as f64 / (STOPS - 1) as f64));
        let stops: Vec<String> = (0..STOPS).map(stop).collect();
        html! {
            div.key {
                span { (name) }
                div.scale {
                    div.band style={ "background:linear-gradient(to right," (stops.join(",")) ")" } {}
                    div.ticks { @for tick in *ticks { span { (tick) } } }
                }
            }
        }
    }
}

/// A block; its measured cells lead to their sections.
pub fn block(block: &Block, cells: &[CellChain]) -> Markup {
    let layout = Layout::of_block(block);
    let chain = |r: usize, c: usize| {
        let here = |cell: &&CellChain| {
            (&cell.block, &cell.row, &cell.column) == (&block.title, &block.rows[r], &block.columns[c])
        };
        cells.iter().find(here)
    };
    panels(&layout, &chain)
}

/// A comparison.
pub fn comparison(comparison: &Comparison) -> Markup {
    panels(&Layout::of_gaps(comparison), &|_, _| None)
}

/// The panels under their title; `chain` finds the section of a cell of the first one, which is what was measured.
fn panels<'c>(layout: &Layout, chain: &dyn Fn(usize, usize) -> Option<&'c CellChain>) -> Markup {
    let lines = |place: &GridCell| match place {
        GridCell::Face(face) => face.lines.len(),
        GridCell::Missing | GridCell::Nothing => 1,
    };
    // All rows of all panels are as high as the highest.
    let most = layout.panels.iter().flat_map(|panel| panel.places.iter().flatten()).map(lines).max().unwrap_or(1);
    html! {
        div.block {
            h3 { (layout.title) }
            div.panels style={ "--lines:" (most) } {
                @for (number, panel) in layout.panels.iter().enumerate() {
                    (grid(layout, panel, &|r, c| if number == 0 { chain(r, c) } else { None }))
                }
            }
        }
    }
}

/// One panel; `chain` finds the section of a cell.
fn grid<'c>(layout: &Layout, panel: &Panel, chain: &dyn Fn(usize, usize) -> Option<&'c CellChain>) -> Markup {
    let label = format!("{}, {}", layout.title, panel.name.to_lowercase());
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table.grid {
                caption { (panel.name) }
                thead {
                    tr {
                        th.axis rowspan="2" scope="col" { (layout.axes.0) }
                        th.axis colspan=(layout.columns.len()) scope="colgroup" { (layout.axes.1) }
                    }
                    tr { @for column in layout.columns { th scope="col" { (column) } } }
                }
                tbody {
                    @for (r, (row, places)) in layout.rows.iter().zip(&panel.places).enumerate() {
                        tr {
                            th scope="row" { (row) }
                            @for (c, place) in places.iter().enumerate() { (place_of(place, panel, chain(r, c))) }
                        }
                    }
                }
            }
        }
    }
}

fn place_of(place: &GridCell, panel: &Panel, chain: Option<&CellChain>) -> Markup {
    let empty = match chain {
        Some(_) => "not finished",
        None if panel.name.starts_with("Published") => "not published",
        None => "not run",
    };
    match place {
        GridCell::Face(face) => self::face(face, chain),
        GridCell::Missing => html! { td.empty { (linked(chain, html! { (empty) })) } },
        GridCell::Nothing => html! { td.nothing {} },
    }
}

fn face(face: &Face, chain: Option<&CellChain>) -> Markup {
    let lines = html! { @for line in &face.lines { span { (line) } } };
    let content = linked(chain, lines);
    match face.colors() {
        Some((fill, ink)) => {
            html! { td.face style={ "background:" (hex(fill)) ";color:" (hex(ink)) } { (content) } }
        }
        None => html! { td.empty { (content) } },
    }
}

/// As a link to the cell's section, if it has one.
fn linked(chain: Option<&CellChain>, content: Markup) -> Markup {
    match chain {
        Some(cell) => html! { a href={ "#" (cell.id()) } { (content) } },
        None => html! { div { (content) } },
    }
}
