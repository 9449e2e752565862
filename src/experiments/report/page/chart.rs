//! A line chart as SVG inside the page; its colours are the style sheet's, so that they follow the reader's scheme.

use maud::{Markup, html};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 250.0;
/// Around the plot: left for the numbers of the axis, above for the names of the stages, below for both of the other axis.
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 40.0;

/// Up to this many points have a dot each; more would merge into a thick line.
const MOST_DOTS: usize = 40;

/// How values are laid out from bottom to top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Axis {
    /// From 0 to 100.
    Percent,
    /// From 0 to the largest value.
    FromZero,
    /// By powers of ten; values that are not positive are left out.
    Logarithmic,
}

/// A curve.
pub struct Line {
    /// Its name in the key; a curve with the name of one before shares that one's entry.
    pub name: String,
    /// Class of its colour and stroke.
    pub class: String,
    /// From left to right. Values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Curves over epochs.
pub struct Chart {
    /// What the values are.
    pub name: &'static str,
    /// How they are laid out.
    pub axis: Axis,
    /// The last epoch.
    pub epochs: f64,
    /// Where stages begin, and what they are called.
    pub stages: Vec<(f64, &'static str)>,
    /// The curves.
    pub lines: Vec<Line>,
}

/// The lowest and the highest value of an axis, and its ticks.
struct Range {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Range {
    /// Round numbers, about `count` of them, that reach from 0 to `most` or beyond.
    fn from_zero(most: f64, count: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / count;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let steps = (most / step - 1e-9).ceil() as usize;
        let ticks: Vec<f64> = (0..=steps).map(|i| i as f64 * step).collect();
        Range { low: 0.0, high: steps as f64 * step, ticks }
    }

    /// Powers of ten around the values, as exponents.
    fn decades(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let high = values.fold(0.0, f64::max).log10().ceil();
        let (low, high) = if low.is_finite() && high.is_finite() { (low, high.max(low + 1.0)) } else { (-1.0, 0.0) };
        // At most six ticks.
        let step = ((high - low) / 5.0).ceil() as usize;
        let ticks = (low as i64..=high as i64).step_by(step.max(1)).map(|exponent| exponent as f64).collect();
        Range { low, high, ticks }
    }

    /// From 0 at the low end to 1 at the high one.
    fn part(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

impl Chart {
    /// The chart with its key; nothing if no curve has a point.
    pub fn markup(&self) -> Markup {
        let range = self.range();
        let lines: Vec<(&Line, Vec<(f64, f64)>)> =
            self.lines.iter().map(|line| (line, self.points(line))).filter(|(_, points)| !points.is_empty()).collect();
        if lines.is_empty() {
            return html! {};
        }
        let place = |(x, y): (f64, f64)| (self.x(x), self.y(&range, self.scaled(y)));
        html! {
            figure.chart {
                figcaption { (self.name) }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(self.description(&lines)) {
                    (self.grid(&range))
                    (self.stages())
                    @for (line, points) in &lines {
                        polyline class={ "line " (line.class) } points=(path(points.iter().map(|&point| place(point)))) {}
                        @if points.len() <= MOST_DOTS {
                            @for &point in points { (self.dot(line, point, place(point))) }
                        }
                    }
                }
                (key(&lines))
            }
        }
    }

    /// The points of a line that have a place.
    fn points(&self, line: &Line) -> Vec<(f64, f64)> {
        let has_place = |value: f64| value.is_finite() && (self.axis != Axis::Logarithmic || value > 0.0);
        line.points.iter().copied().filter(|&(_, y)| has_place(y)).collect()
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.axis == Axis::Logarithmic { value.log10() } else { value }
    }

    fn range(&self) -> Range {
        let values = self.lines.iter().flat_map(|line| self.points(line)).map(|(_, y)| y).collect::<Vec<_>>();
        let values = values.iter().copied();
        match self.axis {
            Axis::Percent => Range { low: 0.0, high: 100.0, ticks: (0..=4).map(|i| f64::from(25 * i)).collect() },
            Axis::FromZero => Range::from_zero(values.fold(0.0, f64::max), 4.0),
            Axis::Logarithmic => Range::decades(values),
        }
    }

    fn x(&self, epoch: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * epoch / self.epochs.max(1.0)
    }

    fn y(&self, range: &Range, scaled: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * range.part(scaled)
    }

    /// Lines at the ticks, and the numbers of both axes.
    fn grid(&self, range: &Range) -> Markup {
        let epochs = Range::from_zero(self.epochs, 6.0);
        let whole = |tick: &&f64| **tick <= self.epochs && tick.fract() == 0.0;
        let bottom = HEIGHT - BOTTOM;
        html! {
            @for &tick in &range.ticks {
                @let y = coordinate(self.y(range, tick));
                line.rule x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
                text.tick x=(LEFT - 8.0) y=(y) dy="0.35em" text-anchor="end" { (self.tick(range, tick)) }
            }
            @for &tick in epochs.ticks.iter().filter(whole) {
                text.tick x=(coordinate(self.x(tick))) y=(bottom + 17.0) text-anchor="middle" { (tick) }
            }
            text.tick x=(LEFT + (WIDTH - LEFT - RIGHT) / 2.0) y=(HEIGHT - 5.0) text-anchor="middle" { "epoch" }
        }
    }

    /// The text at a tick of the values.
    fn tick(&self, range: &Range, tick: f64) -> String {
        if self.axis == Axis::Logarithmic {
            return if (-4.0..4.0).contains(&tick) { 10f64.powi(tick as i32).to_string() } else { format!("1e{tick}") };
        }
        let step = range.ticks.get(1).map_or(1.0, |second| second - range.ticks[0]);
        format!("{tick:.decimals$}", decimals = (-step.log10().floor()).max(0.0) as usize)
    }

    /// A line where each stage but the first begins, and the stage's name.
    fn stages(&self) -> Markup {
        html! {
            @for &(start, name) in &self.stages {
                @let x = coordinate(self.x(start));
                @if start > 0.0 { line.stage x1=(x) x2=(x) y1=(TOP - 14.0) y2=(HEIGHT - BOTTOM) {} }
                text.tick x=(coordinate(self.x(start) + 4.0)) y=(TOP - 7.0) { (name) }
            }
        }
    }

    fn dot(&self, line: &Line, (epoch, value): (f64, f64), (x, y): (f64, f64)) -> Markup {
        html! {
            circle class={ "dot " (line.class) } cx=(coordinate(x)) cy=(coordinate(y)) r="3" {
                title { (line.name) ", epoch " (epoch) ": " (self.number(value)) }
            }
        }
    }

    fn number(&self, value: f64) -> String {
        if self.axis == Axis::Percent { format!("{value:.2}") } else { format!("{value:.3}") }
    }

    /// In words, for those who do not see it.
    fn description(&self, lines: &[(&Line, Vec<(f64, f64)>)]) -> String {
        let ends = lines.iter().filter_map(|(line, points)| {
            points.last().map(|(epoch, value)| format!("{} {} at epoch {epoch}", line.name, self.number(*value)))
        });
        format!("{} over the epochs: {}", self.name, ends.collect::<Vec<_>>().join("; "))
    }
}

/// The names of several curves, each once.
fn key(lines: &[(&Line, Vec<(f64, f64)>)]) -> Markup {
    let mut entries: Vec<&Line> = Vec::new();
    for (line, _) in lines {
        if entries.iter().all(|entry| entry.name != line.name) {
            entries.push(line);
        }
    }
    html! {
        @if entries.len() > 1 {
            ul.names {
                @for line in entries {
                    li {
                        svg viewBox="0 0 24 8" aria-hidden="true" {
                            line class={ "line " (line.class) } x1="0" x2="24" y1="4" y2="4" {}
                        }
                        (line.name)
                    }
                }
            }
        }
    }
}

/// With one decimal.
pub fn coordinate(value: f64) -> String {
    format!("{value:.1}")
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    points.map(|(x, y)| format!("{},{}", coordinate(x), coordinate(y))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(axis: Axis, points: &[(f64, f64)]) -> Chart {
        let line = Line { name: "a line".into(), class: "natural".into(), points: points.to_vec() };
        Chart { name: "Something", axis, epochs: 8.0, stages: vec![(0.0, "dense"), (4.0, "ADMM")], lines: vec![line] }
    }

    /// Centres of the dots.
    fn dots(chart: &Chart) -> Vec<(f64, f64)> {
        let svg = chart.markup().into_string();
        let number = |text: &str, name: &str| -> f64 {
            text.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap().parse().unwrap()
        };
        svg.split("<circle").skip(1).map(|dot| (number(dot, "cx"), number(dot, "cy"))).collect()
    }

    #[test]
    fn dots_are_where_their_values_are() {
        let [first, last] = dots(&chart(Axis::Percent, &[(0.0, 100.0), (8.0, 0.0)]))[..] else { panic!() };
        assert_eq!((first, last), ((LEFT, TOP), (WIDTH - RIGHT, HEIGHT - BOTTOM)));
        let [quarter] = dots(&chart(Axis::Percent, &[(2.0, 75.0)]))[..] else { panic!() };
        assert_eq!(quarter, (LEFT + (WIDTH - LEFT - RIGHT) / 4.0, TOP + (HEIGHT - TOP - BOTTOM) / 4.0));
    }

    /// From 0.01 to 1, and 0.1 in the middle.
    #[test]
    fn a_logarithmic_axis_has_powers_of_ten_at_equal_distances() {
        let chart = chart(Axis::Logarithmic, &[(0.0, 0.01), (1.0, 0.1), (2.0, 1.0), (3.0, 0.0), (4.0, -1.0)]);
        let heights: Vec<f64> = dots(&chart).into_iter().map(|(_, y)| y).collect();
        assert_eq!(
            heights,
            [HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2.0, TOP],
            "values without a logarithm are left out"
        );
        let svg = chart.markup().into_string();
        assert!([">0.01<", ">0.1<", ">1<"].iter().all(|tick| svg.contains(tick)), "{svg}");
    }

    #[test]
    fn values_that_are_not_finite_are_left_out_and_no_value_is_no_chart() {
        let infinite = [(1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 50.0)];
        assert_eq!(dots(&chart(Axis::FromZero, &infinite)).len(), 1);
        assert_eq!(chart(Axis::FromZero, &infinite[..2]).markup().into_string(), "");
    }

    #[test]
    fn ticks_are_round_and_reach_the_largest_value() {
        let ticks = |most| Range::from_zero(most, 4.0).ticks;
        assert_eq!(ticks(1.28), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(ticks(100.0), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(0.0), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(2.0), [0.0, 0.5, 1.0, 1.5, 2.0]);
    }

    #[test]
    fn stages_are_named_and_parted() {
        let svg = chart(Axis::Percent, &[(1.0, 1.0)]).markup().into_string();
        assert_eq!(svg.matches("class=\"stage\"").count(), 1, "the first one begins at the axis");
        assert!(svg.contains(">dense<") && svg.contains(">ADMM<"));
    }

    #[test]
    fn many_points_are_a_line_without_dots() {
        let points: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i) / 20.0, 50.0)).collect();
        assert!(dots(&chart(Axis::Percent, &points)).is_empty());
    }
}
