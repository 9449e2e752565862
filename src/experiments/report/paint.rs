//! A page of marks in pixels, drawn as SVG.
//!
//! Marks are collected first and drawn when the page's height is known.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::base::error::{Error, Result};

/// The page that everything is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The result of a plotters call on an [`Area`].
pub type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Around the page, in pixels.
pub const MARGIN: i32 = 28;

/// Between row labels and cells, and inside a cell left and right of the text.
pub const GUTTER: i32 = 12;

/// From one line of small text to the next.
pub const LEADING: i32 = 18;

/// Size of a heading.
pub const HEADING: f64 = 14.0;

/// Size of a label, and of running text.
pub const LABEL: f64 = 12.0;

/// Size of secondary text.
pub const SMALL: f64 = 11.0;

/// Colour of text.
pub const INK: RGBColor = RGBColor(32, 33, 36);

/// Colour of secondary text.
pub const MUTED: RGBColor = RGBColor(95, 99, 104);

/// Colour of lines that only guide the eye.
pub const FAINT: RGBColor = RGBColor(218, 220, 224);

/// Blue of Okabe & Ito (2008), whose colours are told apart without colour vision.
pub const BLUE: RGBColor = RGBColor(0, 114, 178);

/// Their vermilion.
pub const VERMILION: RGBColor = RGBColor(213, 94, 0);

/// Which point of a text its position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Centre,
    Right,
}

/// The anchor of a text at its left, middle or right, centred vertically.
fn anchor(align: Align) -> Pos {
    let h_pos = match align {
        Align::Left => HPos::Left,
        Align::Centre => HPos::Center,
        Align::Right => HPos::Right,
    };
    Pos::new(h_pos, VPos::Center)
}

/// A sans-serif style of `size` pixels.
pub fn font(size: f64, color: RGBColor) -> TextStyle<'static> {
    sans_serif(size, FontStyle::Normal, color)
}

/// The same in bold.
pub fn bold(size: f64, color: RGBColor) -> TextStyle<'static> {
    sans_serif(size, FontStyle::Bold, color)
}

fn sans_serif(size: f64, style: FontStyle, color: RGBColor) -> TextStyle<'static> {
    // The SVG backend divides every font size by 1.24.
    let font = FontDesc::new(FontFamily::SansSerif, size * 1.24, style);
    TextStyle { font, color: color.to_backend_color(), pos: anchor(Align::Left) }
}

/// The width in pixels that `text` needs at most at `size` in the usual sans-serif fonts, the widest of which take
/// 0.64 em a digit.
pub fn text_width(text: &str, size: f64) -> i32 {
    (text.chars().count() as f64 * size * 0.64).ceil() as i32
}

/// Characters of running text that surely fit into `width` pixels at `size`.
pub fn chars_in(width: i32, size: f64) -> usize {
    (f64::from(width) / (size * 0.6)) as usize
}

/// Draws on a white page of `size` pixels and returns it as SVG; `what` names it in the error.
pub fn svg(what: &str, size: (i32, i32), paint: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    let pixels = (size.0.max(1) as u32, size.1.max(1) as u32);
    let area = SVGBackend::with_string(&mut text, pixels).into_drawing_area();
    let drawn = area.fill(&WHITE).and_then(|()| paint(&area)).and_then(|()| area.present());
    drop(area);
    drawn.map_err(|e| Error::Failed(format!("cannot draw {what}: {e}")))?;
    Ok(text)
}

enum Mark {
    Text { at: (i32, i32), text: String, style: TextStyle<'static> },
    Fill { from: (i32, i32), to: (i32, i32), color: RGBColor },
    Line { from: (i32, i32), to: (i32, i32), color: RGBColor },
}

/// Marks in the order in which they are drawn.
#[derive(Default)]
pub struct Page {
    marks: Vec<Mark>,
}

impl Page {
    /// Text centred vertically on `at`.
    pub fn text(&mut self, at: (i32, i32), align: Align, text: &str, style: TextStyle<'static>) {
        let style = style.pos(anchor(align));
        self.marks.push(Mark::Text { at, text: text.to_string(), style });
    }

    /// A filled rectangle with its upper left corner at `at`.
    pub fn fill(&mut self, at: (i32, i32), size: (i32, i32), color: RGBColor) {
        self.marks.push(Mark::Fill { from: at, to: (at.0 + size.0, at.1 + size.1), color });
    }

    /// A grey rectangle with diagonal lines: no value here.
    pub fn hatch(&mut self, at: (i32, i32), size: (i32, i32)) {
        const STEP: usize = 8;
        self.fill(at, size, RGBColor(245, 245, 245));
        let (w, h) = size;
        for d in (STEP as i32..w + h).step_by(STEP) {
            let from = (at.0 + d.min(w), at.1 + (d - w).max(0));
            let to = (at.0 + (d - h).max(0), at.1 + d.min(h));
            self.marks.push(Mark::Line { from, to, color: FAINT });
        }
    }

    /// The page as SVG.
    pub fn svg(self, what: &str, size: (i32, i32)) -> Result<String> {
        svg(what, size, |area| {
            self.marks.into_iter().try_for_each(|mark| match mark {
                Mark::Text { at, text, style } => area.draw(&Text::new(text, at, style)),
                Mark::Fill { from, to, color } => area.draw(&Rectangle::new([from, to], color.filled())),
                Mark::Line { from, to, color } => area.draw(&PathElement::new([from, to], color)),
            })
        })
    }
}

/// Viridis over 0 to 100 percent: perceptually uniform, and readable without colour vision.
pub fn viridis(percent: f64) -> RGBColor {
    ViridisRGB.get_color_normalized(percent as f32, 0.0, 100.0)
}

/// Where the scale of gaps ends, in points.
pub const MOST_GAP: f64 = 5.0;

/// Vermilion over white at 0 to blue, from -5 to +5 points.
pub fn diverging(points: f64) -> RGBColor {
    let t = (points.abs() / MOST_GAP).min(1.0);
    let end = if points < 0.0 { VERMILION } else { BLUE };
    let mix = |end: u8| (255.0 + t * (f64::from(end) - 255.0)).round() as u8;
    RGBColor(mix(end.0), mix(end.1), mix(end.2))
}

/// Black or white, whichever has the higher contrast on `background` by the luminance of WCAG 2.
pub fn text_on(background: RGBColor) -> RGBColor {
    let linear = |channel: u8| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    let RGBColor(r, g, b) = background;
    let luminance = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    // Contrast is (brighter + 0.05) / (darker + 0.05); both choices are equal at this luminance.
    if luminance > (1.05f64 * 0.05).sqrt() - 0.05 { BLACK } else { WHITE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_out_on_the_whole_scale() {
        assert_eq!(text_on(viridis(0.0)), WHITE);
        assert_eq!(text_on(viridis(100.0)), BLACK);
        assert_eq!((text_on(WHITE), text_on(BLACK)), (BLACK, WHITE));
        assert_eq!(text_on(RGBColor(10, 10, 10)), WHITE);
    }

    /// At 0, 50 and 100 % matplotlib's viridis.
    #[test]
    fn accuracies_are_on_the_scale_of_viridis() {
        for (percent, expected) in [(0.0, [68, 1, 84]), (50.0, [33, 145, 140]), (100.0, [253, 231, 37])] {
            let RGBColor(r, g, b) = viridis(percent);
            let near = [r, g, b].iter().zip(expected).all(|(&found, e): (&u8, u8)| found.abs_diff(e) <= 3);
            assert!(near, "{percent}: {:?}", [r, g, b]);
        }
    }

    #[test]
    fn gaps_are_mixed_in_proportion() {
        // Half way to blue (0, 114, 178), a fifth of the way to vermilion (213, 94, 0).
        assert_eq!(diverging(2.5), RGBColor(128, 185, 217));
        assert_eq!(diverging(-1.0), RGBColor(247, 223, 204));
    }

    #[test]
    fn the_scale_of_gaps_is_white_in_the_middle_and_ends_at_five_points() {
        assert_eq!((diverging(0.0), diverging(-5.0), diverging(5.0)), (WHITE, VERMILION, BLUE));
        assert_eq!((diverging(-30.0), diverging(30.0)), (VERMILION, BLUE));
        assert_ne!(diverging(0.5), diverging(-0.5));
    }

    #[test]
    fn hatching_stays_inside_its_cell() {
        let mut page = Page::default();
        page.hatch((10, 20), (50, 30));
        let inside = |(x, y): (i32, i32)| (10..=60).contains(&x) && (20..=50).contains(&y);
        let lines = page.marks.iter().filter_map(|mark| match mark {
            Mark::Line { from, to, .. } => Some((*from, *to)),
            _ => None,
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 9);
        assert!(lines.iter().all(|(from, to)| inside(*from) && inside(*to)));
    }
}
