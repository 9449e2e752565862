//! Accuracy over the prune rate, for tables whose columns are rates.

use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::paint::{self, Area, Drawn, FAINT, INK, MUTED, SMALL, bold, font};
use super::{Block, Report, Summary};
use crate::base::error::Result;

const WIDTH: i32 = 760;
const TITLE_HEIGHT: i32 = 44;
/// Height of a line that names methods and strokes.
const KEY_HEIGHT: i32 = 24;
/// Left margin of all text.
const LEFT: i32 = 24;
/// From the begin of a stroke to its name.
const TO_NAME: i32 = 28;
/// Under the last axis.
const BOTTOM: i32 = 12;
const PANEL_HEIGHT: i32 = 300;
/// Above the plot of a panel, for its name.
const HEAD_HEIGHT: i32 = 30;

/// Colours of Okabe & Ito (2008), told apart without colour vision; one a method, again from the start after the last.
const COLORS: [RGBColor; 6] = [
    paint::BLUE,
    paint::VERMILION,
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RateAxis, RangedCoordf64>>;

/// A logarithmic axis with a tick at every rate of the table.
#[derive(Clone)]
struct RateAxis {
    /// Ascending.
    rates: Vec<f64>,
}

impl Ranged for RateAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, rate: &f64, limit: (i32, i32)) -> i32 {
        let Range { start, end } = self.range();
        let part = (rate.log2() - start.log2()) / (end.log2() - start.log2());
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.rates.clone()
    }

    /// The rates, with room at both ends.
    fn range(&self) -> Range<f64> {
        let (low, high) = (self.rates[0], self.rates[self.rates.len() - 1]);
        let room = (high / low).max(2.0).powf(0.06);
        low / room..high * room
    }
}

/// One method's accuracies over the rate.
struct Line {
    color: RGBColor,
    /// Adversarial lines are solid, natural ones dashed.
    adversarial: bool,
    /// Rate, mean accuracy and its standard deviation over the seeds.
    points: Vec<(f64, f64, f64)>,
}

impl Line {
    /// Of the block's row; cells without a finite value are left out.
    fn new(block: &Block, row: usize, color: RGBColor, adversarial: bool) -> Self {
        let value = |cell: &Summary| match adversarial {
            true => (cell.adversarial, cell.adversarial_std),
            false => (cell.natural, cell.natural_std),
        };
        let point = |(c, rate): (usize, f64)| {
            let (mean, std) = value(block.cell(row, c)?);
            mean.is_finite().then(|| (rate, mean, std.filter(|std| std.is_finite()).unwrap_or(0.0)))
        };
        let rates = block.columns.iter().filter_map(|column| rate(column)).enumerate();
        let mut points: Vec<_> = rates.filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { color, adversarial, points }
    }
}

/// A block whose columns are rates.
struct Method<'a> {
    block: &'a Block,
    color: RGBColor,
}

/// Accuracy over the prune rate as SVG: a panel for each row of the blocks, a colour for each block whose columns are
/// rates such as `16x`; adversarial accuracy solid, natural dashed, bars of one standard deviation over the seeds.
/// `None` if no block has rates.
///
/// # Errors
/// [`crate::base::error::Error::Failed`] if the drawing library refuses.
pub fn rates_svg(report: &Report) -> Result<Option<String>> {
    let is_rates = |block: &&Block| !block.columns.is_empty() && block.columns.iter().all(|c| rate(c).is_some());
    let blocks = report.blocks.iter().filter(is_rates);
    let methods: Vec<Method> =
        blocks.zip(COLORS.iter().cycle()).map(|(block, color)| Method { block, color: *color }).collect();
    if methods.is_empty() {
        return Ok(None);
    }
    let mut rates: Vec<f64> = methods.iter().flat_map(|m| m.block.columns.iter().filter_map(|c| rate(c))).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let mut rows: Vec<&String> = Vec::new();
    for row in methods.iter().flat_map(|method| &method.block.rows) {
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let key = key(&methods);
    let top = key[key.len() - 1].at.1 + KEY_HEIGHT / 2;
    let picture = paint::svg("rates.svg", (WIDTH, top + rows.len() as i32 * PANEL_HEIGHT + BOTTOM), |area| {
        area.draw(&Text::new(report.title.as_str(), (LEFT, TITLE_HEIGHT / 2 + 4), bold(16.0, INK)))?;
        key.iter().try_for_each(|entry| draw_key(area, entry))?;
        let panels = area.margin(top, BOTTOM, 0, 0).split_evenly((rows.len(), 1));
        panels.iter().zip(&rows).try_for_each(|(area, row)| draw_panel(area, &methods, row, &rates))
    })?;
    Ok(Some(picture))
}

/// `16x` and `2.5×` are rates above 1.
fn rate(column: &str) -> Option<f64> {
    let number = column.strip_suffix(['x', '×'])?;
    number.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 1.0)
}

/// A name in the key, and where its stroke begins.
struct Entry<'a> {
    name: &'a str,
    color: RGBColor,
    dashed: bool,
    at: (i32, i32),
}

/// The methods' names in their colours, then what the strokes mean; in as many lines as it takes.
fn key<'a>(methods: &'a [Method<'_>]) -> Vec<Entry<'a>> {
    let names = methods.iter().map(|method| (method.block.title.as_str(), method.color, false));
    let (mut x, mut y) = (LEFT, TITLE_HEIGHT + KEY_HEIGHT / 2);
    let place = |(name, color, dashed): (&'a str, RGBColor, bool)| {
        let width = TO_NAME + paint::text_width(name, SMALL);
        if x > LEFT && x + width > WIDTH {
            (x, y) = (LEFT, y + KEY_HEIGHT);
        }
        let entry = Entry { name, color, dashed, at: (x, y) };
        x += width + 16;
        entry
    };
    names.chain([("adversarial", MUTED, false), ("natural", MUTED, true)]).map(place).collect()
}

fn draw_key(area: &Area<'_>, entry: &Entry<'_>) -> Drawn {
    let (x, y) = entry.at;
    let dashes = if entry.dashed { vec![(x, x + 8), (x + 14, x + 22)] } else { vec![(x, x + 22)] };
    for (from, to) in dashes {
        area.draw(&PathElement::new([(from, y), (to, y)], entry.color.stroke_width(2)))?;
    }
    area.draw(&Text::new(entry.name, (x + TO_NAME, y), font(SMALL, INK)))
}

fn draw_panel(area: &Area<'_>, methods: &[Method<'_>], row: &str, rates: &[f64]) -> Drawn {
    let (head, plot) = area.split_vertically(HEAD_HEIGHT);
    let axis = &methods[0].block.row_axis;
    head.draw(&Text::new(format!("{axis} {row}: accuracy, %"), (LEFT, HEAD_HEIGHT / 2 + 4), bold(12.0, INK)))?;
    let mut chart = ChartBuilder::on(&plot)
        .margin_right(24)
        .margin_top(4)
        .x_label_area_size(42)
        .y_label_area_size(60)
        .build_cartesian_2d(RateAxis { rates: rates.to_vec() }, 0.0..100.0)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(MUTED)
        .label_style(font(SMALL, INK))
        .axis_desc_style(font(SMALL, MUTED))
        .x_desc("Prune rate")
        .x_label_formatter(&|rate| format!("{rate}×"))
        .y_label_formatter(&|percent| format!("{percent:.0}"))
        .y_labels(6)
        .draw()?;
    for method in methods {
        let Some(r) = method.block.rows.iter().position(|label| label == row) else { continue };
        for adversarial in [false, true] {
            draw_line(&mut chart, &Line::new(method.block, r, method.color, adversarial))?;
        }
    }
    Ok(())
}

fn draw_line(chart: &mut Chart<'_, '_>, line: &Line) -> Drawn {
    let color = line.color;
    let points = || line.points.iter().map(|(x, y, _)| (*x, *y));
    if line.adversarial {
        chart.draw_series(LineSeries::new(points(), color.stroke_width(2)))?;
    } else {
        chart.draw_series([DashedPathElement::new(points().collect::<Vec<_>>(), 6, 4, color.stroke_width(2))])?;
    }
    let spread = line.points.iter().filter(|(_, _, std)| *std > 0.0);
    // Accuracies stay within 0 to 100; a standard deviation around them may not.
    chart.draw_series(spread.map(|(x, y, std)| {
        PathElement::new([(*x, (y - std).max(0.0)), (*x, (y + std).min(100.0))], color.stroke_width(1))
    }))?;
    chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    #[test]
    fn rates_are_numbers_with_a_cross() {
        assert_eq!((rate("16x"), rate("2.5×"), rate("1x")), (Some(16.0), Some(2.5), Some(1.0)));
        assert_eq!((rate("16"), rate("adam"), rate("0x"), rate("infx"), rate("x")), (None, None, None, None, None));
    }

    #[test]
    fn a_table_without_rates_has_no_picture() {
        assert_eq!(rates_svg(&sample::report()).unwrap(), None);
        assert_eq!(rates_svg(&sample::widths()).unwrap(), None);
    }

    /// Natural and adversarial means with their own spread, in the order of the rates, whatever that of the columns.
    #[test]
    fn a_line_is_one_row_of_one_accuracy() {
        let mut block = sample::rates().blocks.remove(1);
        let points = |block: &Block, row, adversarial| Line::new(block, row, INK, adversarial).points;
        // Natural 90 - rate / 2 and 3 less, adversarial 12 and 20 less than the first of these.
        let natural = |rate: f64| 90.0 - rate / 2.0 - 1.5;
        let (natural_std, adversarial_std) = (4.5f64.sqrt(), 32.0f64.sqrt());
        let close = |points: &[(f64, f64, f64)], expected: &[(f64, f64, f64)]| {
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            points.len() == expected.len()
                && points.iter().zip(expected).all(|(p, e)| near(p.0, e.0) && near(p.1, e.1) && near(p.2, e.2))
        };
        let expected = [2.0, 8.0, 32.0].map(|rate| (rate, natural(rate), natural_std));
        assert!(close(&points(&block, 0, false), &expected), "{:?}", points(&block, 0, false));
        let expected = [2.0, 8.0, 32.0].map(|rate| (rate, natural(rate) - 14.5, adversarial_std));
        assert!(close(&points(&block, 0, true), &expected), "{:?}", points(&block, 0, true));
        // The second row is of half the rates.
        let expected = [2.0, 8.0, 32.0].map(|rate| (rate, natural(rate / 2.0), natural_std));
        assert!(close(&points(&block, 1, false), &expected), "{:?}", points(&block, 1, false));
        block.columns.reverse();
        block.cells.iter_mut().for_each(|row| row.reverse());
        assert!(close(&points(&block, 1, false), &expected), "the other way round");
    }

    #[test]
    fn looks_as_it_should() {
        sample::assert_shows("rates.svg", rates_svg(&sample::rates()).unwrap().unwrap().as_bytes(), <[u8]>::to_vec);
    }

    /// A name begins a line where it would leave the picture, and only there.
    #[test]
    fn the_key_fills_its_lines() {
        let width = |name: usize| TO_NAME + paint::text_width(&"m".repeat(name), SMALL);
        // Where the third of three names begins, of which the first two have twenty characters.
        let third = LEFT + 2 * (width(20) + 16);
        let longest = (1..90).find(|name| third + width(*name) == WIDTH).expect("a name that ends at the edge");
        let place = |name: usize| {
            let blocks =
                [20, 20, name].map(|name| Block { title: "m".repeat(name), ..sample::rates().blocks.remove(0) });
            let methods = blocks.each_ref().map(|block| Method { block, color: INK });
            key(&methods)[2].at
        };
        let line = TITLE_HEIGHT + KEY_HEIGHT / 2;
        assert_eq!(place(longest), (third, line));
        assert_eq!(place(longest + 1), (LEFT, line + KEY_HEIGHT));
    }

    /// Equal factors are equal distances.
    #[test]
    fn the_axis_is_logarithmic() {
        let axis = RateAxis { rates: vec![2.0, 4.0, 8.0, 32.0] };
        let at = |rate: f64| axis.map(&rate, (0, 1_000_000));
        let octave = at(4.0) - at(2.0);
        assert!((at(8.0) - at(4.0) - octave).abs() <= 1 && (at(32.0) - at(8.0) - 2 * octave).abs() <= 2);
        assert!(at(2.0) > 0 && at(32.0) < 1_000_000, "room at both ends");
    }

    #[test]
    fn every_cell_with_a_value_has_two_dots() {
        let mut report = sample::rates();
        let circles = |report: &Report| {
            let svg = rates_svg(report).unwrap().unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let document = roxmltree::Document::parse(&svg).unwrap();
            let texts: Vec<String> = document
                .descendants()
                .filter(|node| node.has_tag_name("text"))
                .map(|node| node.text().unwrap_or("").trim().to_string())
                .collect();
            for text in ["Post-prune", "ADMM", "adversarial", "natural", "2×", "8×", "32×", "Prune rate"] {
                assert!(texts.contains(&text.to_string()), "no '{text}' in {texts:?}");
            }
            assert!(texts.iter().any(|text| text.starts_with("Original w 16")), "{texts:?}");
            document.descendants().filter(|node| node.has_tag_name("circle")).count()
        };
        // Two rows of three rates in two blocks, and one cell that was not run.
        assert_eq!(circles(&report), 2 * (2 * 2 * 3 - 1));
        report.blocks[0].cells[0][0].as_mut().unwrap().adversarial = f64::NAN;
        assert_eq!(circles(&report), 2 * (2 * 2 * 3 - 1) - 1);
    }
}
