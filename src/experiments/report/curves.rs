//! Training curves of one stage: accuracy and loss over the epochs.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::types::{RangedCoordf64, RangedCoordi32};
use plotters::prelude::*;

use super::paint::{self, Area, Drawn, FAINT, INK, MUTED, bold, font};
use crate::base::error::Result;
use crate::train::EpochRow;

const WIDTH: i32 = 760;
const TITLE_HEIGHT: i32 = 44;
/// Under the last axis.
const BOTTOM: i32 = 12;
const PANEL_HEIGHT: i32 = 280;
/// Above the plot of a panel, for its name and the legend.
const HEAD_HEIGHT: i32 = 34;
/// Up to this many, every epoch has a dot; more would merge into a thick line.
const MOST_DOTS: usize = 40;

const NATURAL: RGBColor = paint::BLUE;
const ADVERSARIAL: RGBColor = paint::VERMILION;

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordi32, RangedCoordf64>>;

/// One curve; epochs without a finite value are left out.
struct Curve {
    name: &'static str,
    color: RGBColor,
    dashed: bool,
    points: Vec<(i32, f64)>,
}

impl Curve {
    fn new(
        name: &'static str,
        color: RGBColor,
        dashed: bool,
        rows: &[EpochRow],
        value: impl Fn(&EpochRow) -> Option<f64>,
    ) -> Self {
        let point = |row: &EpochRow| value(row).filter(|v| v.is_finite()).map(|v| (row.epoch as i32, v));
        Curve { name, color, dashed, points: rows.iter().filter_map(point).collect() }
    }
}

/// A chart with a name, a value range and curves.
struct Panel {
    name: &'static str,
    range: std::ops::Range<f64>,
    /// Writes a value on the axis; `None` leaves the number of digits to the axis.
    tick: Option<fn(&f64) -> String>,
    curves: Vec<Curve>,
}

/// Accuracies (test and, where there are any, held-out images) above the training loss, over the epochs, as SVG.
/// `title` says which stage it is.
///
/// # Errors
/// [`crate::base::error::Error::Failed`] if the drawing library refuses.
pub fn curves_svg(title: &str, rows: &[EpochRow]) -> Result<String> {
    let panels = [accuracy(rows), loss(rows)];
    let epochs = epochs(rows);
    paint::svg("curves.svg", (WIDTH, TITLE_HEIGHT + panels.len() as i32 * PANEL_HEIGHT + BOTTOM), |area| {
        let style = bold(16.0, INK);
        area.draw(&Text::new(title, (24, TITLE_HEIGHT / 2 + 4), style))?;
        let body = area.margin(TITLE_HEIGHT, BOTTOM, 0, 0);
        body.split_evenly((panels.len(), 1)).iter().zip(&panels).try_for_each(|(area, panel)| {
            let (head, plot) = area.split_vertically(HEAD_HEIGHT);
            draw_head(&head, panel)?;
            draw_plot(&plot, panel, epochs.clone())
        })
    })
}

fn accuracy(rows: &[EpochRow]) -> Panel {
    let mut curves = vec![
        Curve::new("natural, test", NATURAL, false, rows, |row| row.test_natural),
        Curve::new("adversarial, test", ADVERSARIAL, false, rows, |row| row.test_adversarial),
        Curve::new("natural, held-out", NATURAL, true, rows, |row| row.held_out_natural),
        Curve::new("adversarial, held-out", ADVERSARIAL, true, rows, |row| row.held_out_adversarial),
    ];
    curves.retain(|curve| !curve.points.is_empty());
    Panel { name: "Accuracy, %", range: 0.0..100.0, tick: Some(|v| format!("{v:.0}")), curves }
}

fn loss(rows: &[EpochRow]) -> Panel {
    let curve = Curve::new("training loss", MUTED, false, rows, |row| Some(row.train_loss));
    let top = curve.points.iter().map(|point| point.1).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.08 } else { 1.0 };
    Panel { name: "Training loss", range: 0.0..top, tick: None, curves: vec![curve] }
}

/// The epoch axis, one epoch longer at both ends so that a single one has room.
fn epochs(rows: &[EpochRow]) -> std::ops::Range<i32> {
    let first = rows.first().map_or(1, |row| row.epoch as i32);
    let last = rows.last().map_or(1, |row| row.epoch as i32);
    first - 1..last + 1
}

/// The panel's name on the left, the names of several curves on the right.
fn draw_head(area: &Area<'_>, panel: &Panel) -> Drawn {
    let middle = HEAD_HEIGHT / 2 + 4;
    area.draw(&Text::new(panel.name, (24, middle), bold(12.0, INK)))?;
    if panel.curves.len() < 2 {
        return Ok(());
    }
    let mut x = 130;
    for curve in &panel.curves {
        let line = if curve.dashed { vec![(x, x + 8), (x + 14, x + 22)] } else { vec![(x, x + 22)] };
        for (from, to) in line {
            area.draw(&PathElement::new([(from, middle), (to, middle)], curve.color.stroke_width(2)))?;
        }
        area.draw(&Text::new(curve.name, (x + 28, middle), font(11.0, INK)))?;
        x += 28 + paint::text_width(curve.name, 11.0) + 10;
    }
    Ok(())
}

fn draw_plot(area: &Area<'_>, panel: &Panel, epochs: std::ops::Range<i32>) -> Drawn {
    let (first, last) = (epochs.start + 1, epochs.end - 1);
    let mut chart = ChartBuilder::on(area)
        .margin_right(24)
        .margin_top(4)
        .x_label_area_size(42)
        .y_label_area_size(60)
        .build_cartesian_2d(epochs, panel.range.clone())?;
    let tick = |epoch: &i32| if (first..=last).contains(epoch) { epoch.to_string() } else { String::new() };
    let mut mesh = chart.configure_mesh();
    if let Some(tick) = &panel.tick {
        mesh.y_label_formatter(tick);
    }
    mesh.disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(MUTED)
        .label_style(font(11.0, INK))
        .axis_desc_style(font(11.0, MUTED))
        .x_desc("Epoch")
        .x_label_formatter(&tick)
        .y_labels(6)
        .draw()?;
    panel.curves.iter().try_for_each(|curve| draw_curve(&mut chart, curve))
}

fn draw_curve(chart: &mut Chart<'_, '_>, curve: &Curve) -> Drawn {
    let points = curve.points.iter().copied();
    let style = curve.color.stroke_width(2);
    if curve.dashed {
        chart.draw_series(DashedLineSeries::new(points.clone(), 6, 4, style))?;
    } else {
        chart.draw_series(LineSeries::new(points.clone(), style))?;
    }
    if curve.points.len() <= MOST_DOTS {
        chart.draw_series(points.map(|point| Circle::new(point, 3, curve.color.filled())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    fn row(epoch: usize, held_out: Option<f64>) -> EpochRow {
        EpochRow {
            epoch,
            lr: 1e-4,
            eps: 0.3,
            train_loss: 2.3 / epoch as f64,
            train_accuracy: 50.0,
            zero_gradient: 0.0,
            test_natural: Some(90.0),
            test_adversarial: Some(80.0),
            test_natural_loss: Some(0.5),
            test_adversarial_loss: Some(0.7),
            held_out_natural: held_out,
            held_out_adversarial: held_out,
            seconds: 1.0,
        }
    }

    /// Tags of the drawn dots and texts, of a picture that is well-formed and has no NaN in it.
    fn dots_and_texts(rows: &[EpochRow]) -> (usize, Vec<String>) {
        let svg = curves_svg("a <stage>", rows).unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        let texts = texts.map(|node| node.text().unwrap_or("").trim().to_string()).collect();
        (document.descendants().filter(|node| node.has_tag_name("circle")).count(), texts)
    }

    /// Colour, x and y of every dot, in the order of drawing.
    fn dots(rows: &[EpochRow]) -> Vec<(String, f64, f64)> {
        let svg = curves_svg("a stage", rows).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let circles = document.descendants().filter(|node| node.has_tag_name("circle"));
        let number = |node: roxmltree::Node, name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
        circles.map(|c| (c.attribute("fill").unwrap().to_string(), number(c, "cx"), number(c, "cy"))).collect()
    }

    /// Each accuracy in its colour, at its height on one scale from 0 to 100; epochs from left to right.
    #[test]
    fn dots_are_where_their_values_are() {
        let mut rows = vec![row(1, Some(50.0)), row(2, Some(40.0)), row(4, Some(10.0))];
        for row in &mut rows {
            row.held_out_adversarial = row.held_out_natural.map(|natural| natural - 10.0);
        }
        let dots = dots(&rows);
        let color = |color: RGBColor| format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2);
        let expected = [
            (NATURAL, [90.0, 90.0, 90.0]),
            (ADVERSARIAL, [80.0, 80.0, 80.0]),
            (NATURAL, [50.0, 40.0, 10.0]),
            (ADVERSARIAL, [40.0, 30.0, 0.0]),
        ];
        // The last of these dots is at 0 %, the first one at 90 %.
        let (zero, percent) = (dots[11].2, (dots[11].2 - dots[0].2) / 90.0);
        assert!(percent > 1.0, "{percent} pixels a percent");
        for (curve, (stroke, values)) in dots.chunks(3).zip(expected) {
            assert!(curve.iter().all(|(fill, ..)| *fill == color(stroke)), "{curve:?}");
            for ((_, _, y), value) in curve.iter().zip(values) {
                assert!(((zero - y) / percent - value).abs() < 0.5, "{value} % at {y}");
            }
            let steps = [curve[1].1 - curve[0].1, curve[2].1 - curve[1].1];
            assert!(steps[0] > 10.0 && (steps[1] - 2.0 * steps[0]).abs() <= 2.0, "{steps:?}");
        }
        // Losses of 2.3, 1.15 and 0.575 on an axis from 0: equal halves.
        let [first, second, third] = [12, 13, 14].map(|i| dots[i].2);
        assert!(dots[12..].iter().all(|(fill, ..)| *fill == color(MUTED)));
        assert!((second - first - 2.0 * (third - second)).abs() <= 2.0, "{first} {second} {third}");
    }

    #[test]
    fn looks_as_it_should() {
        let rows = [row(1, Some(89.0)), row(2, Some(91.0)), row(3, None)];
        sample::assert_shows("curves.svg", curves_svg("a stage", &rows).unwrap().as_bytes(), <[u8]>::to_vec);
    }

    #[test]
    fn one_epoch_is_a_dot_a_curve() {
        let (dots, texts) = dots_and_texts(&[row(1, None)]);
        assert_eq!(dots, 3);
        assert!(
            ["a <stage>", "natural, test", "adversarial, test", "1"].iter().all(|t| texts.contains(&t.to_string()))
        );
        assert!(!texts.contains(&"natural, held-out".to_string()));
    }

    #[test]
    fn held_out_curves_appear_with_their_values() {
        let (dots, texts) = dots_and_texts(&[row(1, Some(89.0)), row(2, Some(91.0)), row(3, None)]);
        assert_eq!(dots, 3 + 3 + 2 + 2 + 3);
        assert!(texts.contains(&"adversarial, held-out".to_string()));
    }

    #[test]
    fn values_that_are_not_finite_are_left_out() {
        let mut rows = vec![row(1, None), row(2, None), row(3, None)];
        rows[1].train_loss = f64::NAN;
        rows[2].train_loss = f64::INFINITY;
        rows[2].test_natural = Some(f64::NAN);
        assert_eq!(dots_and_texts(&rows).0, 2 + 3 + 1);
    }

    #[test]
    fn many_epochs_are_lines_and_none_is_an_empty_chart() {
        let rows: Vec<EpochRow> = (1..=300).map(|epoch| row(epoch, None)).collect();
        let (dots, texts) = dots_and_texts(&rows);
        assert_eq!(dots, 0);
        assert!(texts.contains(&"300".to_string()), "{texts:?}");
        assert_eq!(dots_and_texts(&[]).0, 0);
    }
}
