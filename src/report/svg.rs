//! `table.svg`: each block as a heat map, the measured cells beside the published ones.

use super::numbers::{ABSENT, COLLAPSED, measured, percent, published, success};
use super::paint::{Align, INK, MUTED, Page, bold, chars_in, font, text_on, text_width, viridis};
use super::{Block, Report, Summary, legend::legend, wrap::wrap};
use crate::error::Result;

/// Around the page.
const MARGIN: i32 = 28;
/// Between row labels and cells, and inside a cell left and right of the text.
const GUTTER: i32 = 12;
/// Between the measured panel and the published one.
const PANEL_GAP: i32 = 24;
/// Between two cells.
const GAP: i32 = 2;
/// From one line of small text to the next.
const LEADING: i32 = 18;
/// The same inside a cell.
const FACE_LEADING: i32 = 15;
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
        let mut ink = INK;
        if self.value.is_finite() {
            let color = viridis(self.value);
            page.fill((x, y), (w, h), color);
            ink = text_on(color);
        } else {
            page.hatch((x, y), (w, h));
        }
        let top = y + h / 2 - FACE_LEADING * (self.lines.len() as i32 - 1) / 2;
        for (i, line) in (0..).zip(&self.lines) {
            let style = if i == 0 { bold(LABEL, ink) } else { font(SMALL, ink) };
            page.text((x + w / 2, top + i * FACE_LEADING), Align::Centre, line, style);
        }
    }
}

/// A panel's heading and what its cells show.
type Panel = (&'static str, fn(&Summary) -> Option<Face>);

/// Where the parts of a block go.
struct Layout<'a> {
    block: &'a Block,
    corner: String,
    label_width: i32,
    cell: (i32, i32),
    panels: Vec<Panel>,
}

impl<'a> Layout<'a> {
    fn new(block: &'a Block) -> Self {
        let mut panels: Vec<Panel> = vec![("Measured", Face::measured)];
        if block.summaries().any(Summary::is_published) {
            panels.push(("Published", Face::published));
        }
        let widest = |texts: &[String]| texts.iter().map(|text| text_width(text, LABEL)).max().unwrap_or(0);
        let faces = || panels.iter().flat_map(|(_, face)| block.summaries().filter_map(face));
        let widest_face = faces().map(|face| widest(&face.lines)).max().unwrap_or(0);
        let tallest_face = faces().map(|face| face.lines.len()).max().unwrap_or(1);
        let width = widest_face.max(widest(&block.columns)) + 2 * GUTTER;
        let height = FACE_LEADING * tallest_face as i32 + 16;
        let corner = format!("{} \\ {}", block.row_axis, block.column_axis);
        let label_width = widest(&block.rows).max(text_width(&corner, LABEL));
        Layout { block, corner, label_width, cell: (width, height), panels }
    }

    fn panel_width(&self) -> i32 {
        self.block.columns.len() as i32 * (self.cell.0 + GAP) - GAP
    }

    fn width(&self) -> i32 {
        self.label_width + GUTTER + self.panels.len() as i32 * (self.panel_width() + PANEL_GAP) - PANEL_GAP
    }

    fn draw(&self, page: &mut Page, mut y: i32) -> i32 {
        let block = self.block;
        y += GUTTER + HEADING as i32 / 2;
        page.text((MARGIN, y), Align::Left, &block.title, bold(HEADING, INK));
        y += 24;
        let first = MARGIN + self.label_width + GUTTER;
        for (i, (name, _)) in (0..).zip(&self.panels) {
            let x = first + i * (self.panel_width() + PANEL_GAP);
            page.text((x, y), Align::Left, name, bold(LABEL, MUTED));
            for (c, column) in (0..).zip(&block.columns) {
                let centre = x + c * (self.cell.0 + GAP) + self.cell.0 / 2;
                page.text((centre, y + LEADING), Align::Centre, column, font(LABEL, INK));
            }
        }
        page.text((first - GUTTER, y + LEADING), Align::Right, &self.corner, font(LABEL, MUTED));
        y += LEADING + 12;
        for (r, label) in block.rows.iter().enumerate() {
            page.text((first - GUTTER, y + self.cell.1 / 2), Align::Right, label, font(LABEL, INK));
            for (i, (_, face)) in (0..).zip(&self.panels) {
                let x = first + i * (self.panel_width() + PANEL_GAP);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Every text of the picture, after checking that it is well-formed XML and inside the page.
    fn texts(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let number = |node: roxmltree::Node, name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
        let root = document.root_element();
        let (width, height) = (number(root, "width"), number(root, "height"));
        let of_text = |node: roxmltree::Node| {
            let text = node.text().unwrap_or("").trim().to_string();
            let room = match node.attribute("text-anchor").unwrap() {
                "start" => width - number(node, "x"),
                "end" => number(node, "x"),
                _ => 2.0 * number(node, "x").min(width - number(node, "x")),
            };
            let needed = text.chars().count() as f64 * number(node, "font-size") * 0.6;
            assert!(needed <= room, "'{text}' is {needed} wide in {room}");
            assert!(number(node, "y") < height, "'{text}' is below the page");
            text
        };
        document.descendants().filter(|node| node.has_tag_name("text")).map(of_text).collect()
    }

    #[test]
    fn shows_every_label_and_number_once_per_cell() {
        let report = sample::report();
        let svg = table_svg(&report).unwrap();
        let texts = texts(&svg);
        let count = |text: &str| texts.iter().filter(|t| *t == text).count();
        for text in [&report.title, &report.notes[0], &report.blocks[0].title, &report.blocks[1].title] {
            assert_eq!(count(text), 1, "{text}: {texts:?}");
        }
        // Columns head the measured panel and the published one; the second block has no published values.
        assert_eq!((count("adam"), count("sgd"), count("kaiming_normal")), (3, 2, 1));
        assert_eq!((count("Measured"), count("Published")), (2, 1));
        for text in ["67.19/62.23", "±48.36/44.07", "2/3 trained", "78.86/70.47", "11.35/11.35†", "92.00/80.00"] {
            assert_eq!(count(text), 1, "{text}: {texts:?}");
        }
        assert_eq!(count("11.35/11.35"), 2, "both published collapses");
        assert_eq!(count(ABSENT), 2, "kaiming_normal + adam, measured and published");
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn nan_is_shown_and_hatched() {
        let mut report = sample::report();
        report.blocks[0].cells[1][1] = Some(sample::summary(&[(12.0, f64::NAN)], None));
        let svg = table_svg(&report).unwrap();
        assert!(texts(&svg).contains(&"12.00/NaN".to_string()));
        assert_eq!(svg.matches("NaN").count(), 1, "as text, not as a coordinate or colour");
    }

    #[test]
    fn markup_in_a_label_is_text() {
        let mut report = sample::report();
        report.blocks[0].rows[0] = "<b> & \"c\"".into();
        assert!(texts(&table_svg(&report).unwrap()).contains(&"<b> & \"c\"".to_string()));
    }

    #[test]
    fn a_report_without_blocks_is_a_page_with_a_title() {
        let report = Report { blocks: vec![], rows: vec![], ..sample::report() };
        assert!(texts(&table_svg(&report).unwrap()).contains(&report.title));
    }
}
