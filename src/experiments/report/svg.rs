//! `table.svg`: each block as a heat map, the measured cells beside the published ones.

use plotters::style::RGBColor;

use super::paint::{
    Align, GUTTER, INK, LABEL, LEADING, MARGIN, MOST_GAP, MUTED, Page, SMALL, bold, chars_in, diverging, font,
    text_width, viridis,
};
use super::{Report, layout::Layout, legend::legend, wrap::wrap};
use crate::base::error::Result;

/// Narrowest page: notes below this width would be a thin column.
const MIN_WIDTH: i32 = 640;

const TITLE: f64 = 18.0;

/// The table as an SVG picture, comparisons below the blocks. Colour is adversarial accuracy on a fixed scale from 0 to
/// 100 %, so that pictures of different tables compare; for gaps it is the adversarial gap on one from -5 to +5 points.
///
/// # Errors
/// [`crate::base::error::Error::Failed`] if the drawing library refuses.
pub fn table_svg(report: &Report) -> Result<String> {
    let blocks: Vec<Layout> = report.blocks.iter().map(Layout::of_block).collect();
    let gaps: Vec<Layout> = report.comparisons.iter().map(Layout::of_gaps).collect();
    let layouts = || blocks.iter().chain(&gaps);
    let width = layouts().map(Layout::width).max().unwrap_or(0).max(MIN_WIDTH);
    let mut page = Page::default();
    let mut y = header(&mut page, report, width);
    for layout in layouts() {
        y = layout.draw(&mut page, y);
    }
    y = ACCURACY.draw(&mut page, y, layouts().any(Layout::has_missing));
    if !gaps.is_empty() {
        y = ADVERSARIAL_GAP.draw(&mut page, y, false);
    }
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

/// A colour scale.
pub(super) struct Scale {
    pub(super) name: &'static str,
    pub(super) range: (f64, f64),
    pub(super) color: fn(f64) -> RGBColor,
    /// From left to right, evenly spaced.
    pub(super) ticks: &'static [&'static str],
}

/// Of the cells of a block.
pub(super) const ACCURACY: Scale = Scale {
    name: "Adversarial accuracy, %",
    range: (0.0, 100.0),
    color: viridis,
    ticks: &["0", "25", "50", "75", "100"],
};

/// Of the cells of a comparison.
pub(super) const ADVERSARIAL_GAP: Scale = Scale {
    name: "Adversarial gap, points",
    range: (-MOST_GAP, MOST_GAP),
    color: diverging,
    ticks: &["-5 or less", "0", "+5 or more"],
};

impl Scale {
    /// Draws the scale below `y` and, if something is missing, the sign for it.
    fn draw(&self, page: &mut Page, y: i32, missing: bool) -> i32 {
        const STEPS: i32 = 100;
        const STEP: i32 = 3;
        const HEIGHT: i32 = 12;
        let x = MARGIN + text_width(self.name, LABEL);
        let middle = y + HEIGHT / 2;
        page.text((MARGIN, middle), Align::Left, self.name, font(LABEL, INK));
        let (low, high) = self.range;
        for i in 0..STEPS {
            let color = (self.color)(low + (high - low) * (f64::from(i) + 0.5) / f64::from(STEPS));
            // The last pixel of a step lies under the next one: no seams.
            page.fill((x + i * STEP, y), (STEP + i32::from(i + 1 < STEPS), HEIGHT), color);
        }
        let spacing = STEPS * STEP / (self.ticks.len() as i32 - 1);
        for (i, tick) in (0..).zip(self.ticks) {
            page.text((x + i * spacing, y + HEIGHT + 10), Align::Centre, tick, font(SMALL, MUTED));
        }
        if missing {
            let x = x + STEPS * STEP + 3 * GUTTER;
            page.hatch((x, y), (2 * HEIGHT, HEIGHT));
            page.text((x + 2 * HEIGHT + 6, middle), Align::Left, "no value", font(LABEL, INK));
        }
        y + HEIGHT + 10 + 2 * LEADING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::numbers::ABSENT;
    use crate::experiments::report::sample;

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
    fn looks_as_it_should() {
        for (name, report) in [("table.svg", sample::report()), ("widths.svg", sample::widths())] {
            sample::assert_shows(name, table_svg(&report).unwrap().as_bytes(), <[u8]>::to_vec);
        }
    }

    /// Fill of each rectangle that is as large as a cell.
    fn fills(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let number = |node: roxmltree::Node, name: &str| node.attribute(name).unwrap().parse::<i32>().unwrap();
        let large = |node: &roxmltree::Node| node.has_tag_name("rect") && number(*node, "width") > 40;
        let all = document.descendants().filter(large);
        // The first one is the page.
        all.skip(1).map(|node| node.attribute("fill").unwrap().to_string()).collect()
    }

    fn hex(color: RGBColor) -> String {
        format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2)
    }

    /// Measured by measured accuracy, published by published, gaps by the gap; all of them the adversarial one.
    #[test]
    fn colours_are_those_of_the_adversarial_numbers() {
        let found = fills(&table_svg(&sample::report()).unwrap());
        let scratch = [62.23, 11.35, 80.0].map(|v| hex(viridis(v)));
        let published = [70.47, 11.35, 11.35].map(|v| hex(viridis(v)));
        for (color, natural) in scratch.iter().chain(&published).zip([67.19, 11.35, 92.0, 78.86, 11.35, 11.35]) {
            assert!(found.contains(color), "{color} in {found:?}");
            assert!(*color == hex(viridis(natural)) || !found.contains(&hex(viridis(natural))), "natural {natural}");
        }
        let found = fills(&table_svg(&sample::widths()).unwrap());
        for (adversarial, natural) in [(0.8667, 1.7), (-0.3, -0.5), (0.5, 0.9), (1.8, 3.9), (0.0, 0.2)] {
            assert!(found.contains(&hex(diverging(adversarial))), "{adversarial} in {found:?}");
            assert!(!found.contains(&hex(diverging(natural))), "natural {natural}");
        }
    }

    #[test]
    fn a_triangle_is_blank_beyond_its_edge_and_compared_below() {
        let report = sample::widths();
        let all = texts(&table_svg(&report).unwrap());
        let count = |text: &str| all.iter().filter(|t| *t == text).count();
        assert_eq!((count("ADMM − post-prune"), count("Measured gap"), count("Published gap")), (1, 1, 1));
        assert_eq!((count("+1.70/+0.87"), count("±0.29/0.29"), count("+0.90/+0.50")), (1, 1, 1), "{all:?}");
        assert_eq!((count("-0.50/-0.30"), count("+5 or more"), count("no value")), (1, 1, 1));
        // Of eight places each: three without a cell or four without a gap, and five that the paper leaves out.
        assert_eq!(count(ABSENT), 2 * (3 + 5) + 4 + 5);
    }

    #[test]
    fn a_full_triangle_has_nothing_missing() {
        let mut report = sample::widths();
        let cell = || Some(sample::summary(&[(95.0, 88.0)], None));
        let cells = vec![vec![cell(), cell(), None], vec![cell(), cell(), cell()], vec![cell(), cell(), cell()]];
        report.blocks[0].cells = cells;
        report.blocks.truncate(1);
        report.comparisons.clear();
        let texts = texts(&table_svg(&report).unwrap());
        assert!(texts.iter().all(|text| text != ABSENT && text != "no value"), "{texts:?}");
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
