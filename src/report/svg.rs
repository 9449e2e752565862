//! `table.svg`: each block as a heat map, the measured cells beside the published ones.

use super::numbers::{ABSENT, COLLAPSED, measured, percent, published, success};
use super::paint::{Align, INK, MUTED, Page, bold, chars_in, font, text_on, text_width, viridis};
use super::{Block, Report, Summary, legend::legend, wrap::wrap};
use crate::error::Result;

/// Around the page.
const MARGIN: i32 = 28;
/// Between a panel of measured cells and its published neighbour, and between row labels and cells.
const GUTTER: i32 = 12;
/// Between two cells.
const GAP: i32 = 2;
/// From one line of small text to the next.
const LEADING: i32 = 18;
/// Narrowest page: notes below this width would be a thin column.
const MIN_WIDTH: i32 = 640;

const TITLE: f64 = 18.0;
const HEADING: f64 = 14.0;
const LABEL: f64 = 12.0;
const SMALL: f64 = 11.0;

/// The table as an SVG picture. Colour is adversarial accuracy on a fixed scale from 0 to 100 %, so that pictures of
/// different tables compare.
///
/// # Errors
/// [`crate::error::Error::Failed`] if the drawing library refuses.
pub fn table_svg(report: &Report) -> Result<String> {
    let layouts: Vec<Layout> = report.blocks.iter().map(Layout::new).collect();
    let width = layouts.iter().map(Layout::width).max().unwrap_or(0).max(MIN_WIDTH);
    let mut page = Page::default();
    let mut y = header(&mut page, report, width);
    for layout in &layouts {
        y = layout.draw(&mut page, y);
    }
    y = scale(&mut page, y);
    for line in legend(report) {
        y = paragraph(&mut page, &line, y, width);
    }
    page.svg("table.svg", (MARGIN + width + MARGIN, y + MARGIN - LEADING / 2))
}

/// Draws title and notes; returns where the next thing goes, as all of these do.
fn header(page: &mut Page, report: &Report, width: i32) -> i32 {
    let mut y = MARGIN + TITLE as i32 / 2;
    for line in wrap(&report.title, chars_in(width, TITLE)) {
        page.text((MARGIN, y), Align::Left, &line, bold(TITLE, INK));
        y += 26;
    }
    for note in &report.notes {
        y = paragraph(page, note, y, width);
    }
    y
}

fn paragraph(page: &mut Page, text: &str, mut y: i32, width: i32) -> i32 {
    for line in wrap(text, chars_in(width, LABEL)) {
        page.text((MARGIN, y), Align::Left, &line, font(LABEL, MUTED));
        y += LEADING;
    }
    y
}

/// The colour scale and the sign for a missing value.
fn scale(page: &mut Page, y: i32) -> i32 {
    const STEPS: i32 = 100;
    const STEP: i32 = 3;
    const HEIGHT: i32 = 12;
    let name = "Adversarial accuracy, %";
    let x = MARGIN + text_width(name, LABEL);
    let middle = y + HEIGHT / 2;
    page.text((MARGIN, middle), Align::Left, name, font(LABEL, INK));
    for i in 0..STEPS {
        // The last pixel of a step lies under the next one: no seams.
        page.fill((x + i * STEP, y), (STEP + i32::from(i + 1 < STEPS), HEIGHT), viridis(f64::from(i) + 0.5));
    }
    for tick in (0..=100).step_by(25) {
        page.text((x + tick * STEP, y + HEIGHT + 10), Align::Centre, &tick.to_string(), font(SMALL, MUTED));
    }
    let x = x + STEPS * STEP + 3 * GUTTER;
    page.hatch((x, y), (2 * HEIGHT, HEIGHT));
    page.text((x + 2 * HEIGHT + 6, middle), Align::Left, "no value", font(LABEL, INK));
    y + HEIGHT + 10 + 2 * LEADING
}

/// What a cell of the picture shows.
struct Face {
    /// Decides the colour: adversarial accuracy.
    value: f64,
    /// The accuracies, then in smaller print the spread and the success rate.
    lines: Vec<String>,
}

impl Face {
    fn measured(cell: &Summary) -> Option<Self> {
        let mark = if cell.collapsed() { COLLAPSED } else { "" };
        let mut lines = vec![format!("{}{mark}", measured(cell))];
        if let (Some(natural), Some(adversarial)) = (cell.natural_std, cell.adversarial_std) {
            lines.push(format!("±{}/{}", percent(natural), percent(adversarial)));
        }
        lines.extend(success(cell).map(|success| format!("{success} trained")));
        Some(Face { value: cell.adversarial, lines })
    }

    fn published(cell: &Summary) -> Option<Self> {
        let value = cell.paper_adversarial.or(cell.paper_natural)?;
        Some(Face { value, lines: vec![published(cell)?] })
    }

    fn draw(&self, page: &mut Page, (x, y): (i32, i32), (w, h): (i32, i32)) {
        const LEADING: i32 = 15;
        let mut ink = INK;
        if self.value.is_finite() {
            let color = viridis(self.value);
            page.fill((x, y), (w, h), color);
            ink = text_on(color);
        } else {
            page.hatch((x, y), (w, h));
        }
        let top = y + h / 2 - LEADING * (self.lines.len() as i32 - 1) / 2;
        for (i, line) in (0..).zip(&self.lines) {
            let style = if i == 0 { bold(LABEL, ink) } else { font(SMALL, ink) };
            page.text((x + w / 2, top + i * LEADING), Align::Centre, line, style);
        }
    }
}

/// A panel's heading and what its cells show.
type Panel = (&'static str, fn(&Summary) -> Option<Face>);

/// Where the parts of a block go.
struct Layout<'a> {
    block: &'a Block,
    label_width: i32,
    cell: (i32, i32),
    panels: Vec<Panel>,
}

impl<'a> Layout<'a> {
    fn new(block: &'a Block) -> Self {
        let mut panels: Vec<Panel> = vec![("measured", Face::measured)];
        if block.summaries().any(Summary::is_published) {
            panels.push(("published", Face::published));
        }
        let widest = |texts: &[String]| texts.iter().map(|text| text_width(text, LABEL)).max().unwrap_or(0);
        let faces = || panels.iter().flat_map(|(_, face)| block.summaries().filter_map(face));
        let widest_face = faces().map(|face| widest(&face.lines)).max().unwrap_or(0);
        let tallest_face = faces().map(|face| face.lines.len()).max().unwrap_or(1);
        let width = widest_face.max(widest(&block.columns)) + 2 * GUTTER;
        let height = 15 * tallest_face as i32 + 16;
        let label_width = widest(&block.rows).max(text_width(&block.row_axis, LABEL));
        Layout { block, label_width, cell: (width, height), panels }
    }

    fn panel_width(&self) -> i32 {
        self.block.columns.len() as i32 * (self.cell.0 + GAP) - GAP
    }

    fn width(&self) -> i32 {
        self.label_width + self.panels.len() as i32 * (GUTTER + self.panel_width())
    }

    fn draw(&self, page: &mut Page, mut y: i32) -> i32 {
        let block = self.block;
        y += GUTTER + HEADING as i32 / 2;
        page.text((MARGIN, y), Align::Left, &block.title, bold(HEADING, INK));
        y += 24;
        let first = MARGIN + self.label_width + GUTTER;
        for (i, (name, _)) in (0..).zip(&self.panels) {
            let x = first + i * (self.panel_width() + GUTTER);
            let heading = format!("{}: {name}", block.column_axis);
            page.text((x, y), Align::Left, &heading, font(LABEL, MUTED));
            for (c, column) in (0..).zip(&block.columns) {
                let centre = x + c * (self.cell.0 + GAP) + self.cell.0 / 2;
                page.text((centre, y + LEADING), Align::Centre, column, font(LABEL, INK));
            }
        }
        page.text((first - GUTTER, y + LEADING), Align::Right, &block.row_axis, font(LABEL, MUTED));
        y += LEADING + 12;
        for (r, label) in block.rows.iter().enumerate() {
            page.text((first - GUTTER, y + self.cell.1 / 2), Align::Right, label, font(LABEL, INK));
            for (i, (_, face)) in (0..).zip(&self.panels) {
                let x = first + i * (self.panel_width() + GUTTER);
                self.draw_row(page, (x, y), r, *face);
            }
            y += self.cell.1 + GAP;
        }
        y + 2 * GUTTER
    }

    fn draw_row(&self, page: &mut Page, (x, y): (i32, i32), row: usize, face: fn(&Summary) -> Option<Face>) {
        for column in 0..self.block.columns.len() {
            let at = (x + column as i32 * (self.cell.0 + GAP), y);
            match self.block.cell(row, column).and_then(face) {
                Some(face) => face.draw(page, at, self.cell),
                None => {
                    page.hatch(at, self.cell);
                    let centre = (at.0 + self.cell.0 / 2, at.1 + self.cell.1 / 2);
                    page.text(centre, Align::Centre, ABSENT, font(LABEL, MUTED));
                }
            }
        }
    }
}
