//! Grids of coloured cells: the measured ones beside the published ones.

use plotters::style::RGBColor;

use super::numbers::{
    ABSENT, COLLAPSED, autoattack, measured, measured_gap, percent, published_gap, published_pair, success,
};
use super::paint::{
    Align, FAINT, GUTTER, HEADING, INK, LABEL, LEADING, MARGIN, MUTED, Page, SMALL, bold, diverging, font, text_on,
    text_width, viridis,
};
use super::{Block, Comparison, Gap, Summary};

/// Between the measured panel and the published one.
const PANEL_GAP: i32 = 24;
/// Between two cells.
const GAP: i32 = 2;
/// From one line of text inside a cell to the next.
const FACE_LEADING: i32 = 15;

/// The face of a cell that has a value.
pub struct Face {
    /// Decides the colour; hatched if it is not finite.
    pub value: f64,
    color: fn(f64) -> RGBColor,
    /// With an edge, so that a white cell is seen on the white page.
    edged: bool,
    /// The numbers, then in smaller print the spread and the success rate.
    pub lines: Vec<String>,
}

impl Face {
    /// The colours of the cell and of the text on it; `None` for a value that has no place on the scale.
    pub fn colors(&self) -> Option<(RGBColor, RGBColor)> {
        self.value.is_finite().then(|| {
            let color = (self.color)(self.value);
            (color, text_on(color))
        })
    }

    fn measured(cell: &Summary) -> Self {
        let mark = if cell.collapsed() { COLLAPSED } else { "" };
        let mut lines = vec![format!("{}{mark}", measured(cell))];
        if let (Some(natural), Some(adversarial)) = (cell.natural_std, cell.adversarial_std) {
            lines.push(format!("±{}/{}", percent(natural), percent(adversarial)));
        }
        lines.extend(success(cell).map(|success| format!("{success} trained")));
        lines.extend(autoattack(cell).map(|accuracy| format!("AA {accuracy}")));
        Face { value: cell.adversarial, color: viridis, edged: false, lines }
    }

    fn published(natural: Option<f64>, adversarial: Option<f64>) -> Option<Self> {
        let value = adversarial.or(natural)?;
        Some(Face { value, color: viridis, edged: false, lines: vec![published_pair(natural, adversarial)?] })
    }

    fn measured_gap(gap: &Gap) -> Self {
        let mut lines = vec![measured_gap(gap)];
        if let (Some(natural), Some(adversarial)) = (gap.natural_spread, gap.adversarial_spread) {
            lines.push(format!("±{}/{}", percent(natural), percent(adversarial)));
        }
        Face { value: gap.adversarial, color: diverging, edged: true, lines }
    }

    fn published_gap(gap: &Gap) -> Option<Self> {
        let value = gap.paper_adversarial.or(gap.paper_natural)?;
        Some(Face { value, color: diverging, edged: true, lines: vec![published_gap(gap)?] })
    }

    fn draw(&self, page: &mut Page, (x, y): (i32, i32), (w, h): (i32, i32)) {
        let mut ink = INK;
        if let Some((color, on_color)) = self.colors() {
            page.fill((x, y), (w, h), if self.edged { FAINT } else { color });
            if self.edged {
                page.fill((x + 1, y + 1), (w - 2, h - 2), color);
            }
            ink = on_color;
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

/// One place of the grid.
pub enum GridCell {
    Face(Face),
    /// Not run, or not published.
    Missing,
    /// There could be no value here.
    Nothing,
}

impl GridCell {
    fn new(face: Option<Face>, has_place: bool) -> Self {
        match face {
            Some(face) => GridCell::Face(face),
            None if has_place => GridCell::Missing,
            None => GridCell::Nothing,
        }
    }
}

/// A heading, and the places row by row.
pub struct Panel {
    pub name: &'static str,
    pub places: Vec<Vec<GridCell>>,
}

/// A block or a comparison, and where its parts go.
pub struct Layout<'a> {
    pub title: &'a str,
    pub rows: &'a [String],
    pub columns: &'a [String],
    /// Titles of the row axis and of the column axis.
    pub axes: (&'a str, &'a str),
    corner: String,
    label_width: i32,
    cell: (i32, i32),
    pub panels: Vec<Panel>,
}

impl<'a> Layout<'a> {
    pub fn of_block(block: &'a Block) -> Self {
        let panel = |name, face: &dyn Fn(usize, usize) -> Option<Face>| {
            let place = |r, c| GridCell::new(face(r, c), block.has_place(r, c));
            Panel { name, places: places(&block.rows, &block.columns, place) }
        };
        let measured = |r, c| block.cell(r, c).map(Face::measured);
        let published = |r, c| match (block.cell(r, c), block.not_run(r, c)) {
            (Some(cell), _) => Face::published(cell.paper_natural, cell.paper_adversarial),
            (None, Some(cell)) => Face::published(cell.paper_natural, cell.paper_adversarial),
            (None, None) => None,
        };
        let published = panel("Published", &published);
        let mut panels = vec![panel("Measured", &measured)];
        if published.places.iter().flatten().any(|place| matches!(place, GridCell::Face(_))) {
            panels.push(published);
        }
        let axes = (&*block.row_axis, &*block.column_axis);
        Layout::new(&block.title, &block.rows, &block.columns, axes, panels)
    }

    pub fn of_gaps(gaps: &'a Comparison) -> Self {
        let panel = |name, face: fn(&Gap) -> Option<Face>| {
            let place = |r, c| GridCell::new(gaps.gap(r, c).and_then(face), gaps.has_place(r, c));
            Panel { name, places: places(&gaps.rows, &gaps.columns, place) }
        };
        let mut panels = vec![panel("Measured gap", |gap| Some(Face::measured_gap(gap)))];
        if gaps.is_published() {
            panels.push(panel("Published gap", Face::published_gap));
        }
        let axes = (&*gaps.row_axis, &*gaps.column_axis);
        Layout::new(&gaps.title, &gaps.rows, &gaps.columns, axes, panels)
    }

    fn new(
        title: &'a str,
        rows: &'a [String],
        columns: &'a [String],
        axes: (&'a str, &'a str),
        panels: Vec<Panel>,
    ) -> Self {
        let corner = format!("{} \\ {}", axes.0, axes.1);
        let widest = |texts: &[String]| texts.iter().map(|text| text_width(text, LABEL)).max().unwrap_or(0);
        let faces = || {
            panels.iter().flat_map(|panel| panel.places.iter().flatten()).filter_map(|place| match place {
                GridCell::Face(face) => Some(face),
                GridCell::Missing | GridCell::Nothing => None,
            })
        };
        let widest_face = faces().map(|face| widest(&face.lines)).max().unwrap_or(0);
        let tallest_face = faces().map(|face| face.lines.len()).max().unwrap_or(1);
        // A panel of one column must still have room for its heading.
        let heading = panels.iter().map(|panel| text_width(panel.name, LABEL)).max().unwrap_or(0);
        let heading = heading / columns.len().max(1) as i32;
        let width = widest_face.max(widest(columns)).max(heading) + 2 * GUTTER;
        let height = FACE_LEADING * tallest_face as i32 + 16;
        let label_width = widest(rows).max(text_width(&corner, LABEL));
        Layout { title, rows, columns, axes, corner, label_width, cell: (width, height), panels }
    }

    fn panel_width(&self) -> i32 {
        self.columns.len() as i32 * (self.cell.0 + GAP) - GAP
    }

    pub fn width(&self) -> i32 {
        self.label_width + GUTTER + self.panels.len() as i32 * (self.panel_width() + PANEL_GAP) - PANEL_GAP
    }

    /// Whether something is hatched.
    pub fn has_missing(&self) -> bool {
        let hatched = |place: &GridCell| match place {
            GridCell::Face(face) => !face.value.is_finite(),
            GridCell::Missing => true,
            GridCell::Nothing => false,
        };
        self.panels.iter().any(|panel| panel.places.iter().flatten().any(hatched))
    }

    /// Draws it below `y`; returns where the next thing goes.
    pub fn draw(&self, page: &mut Page, mut y: i32) -> i32 {
        y += GUTTER + HEADING as i32 / 2;
        page.text((MARGIN, y), Align::Left, self.title, bold(HEADING, INK));
        y += 24;
        let first = MARGIN + self.label_width + GUTTER;
        for (i, panel) in (0..).zip(&self.panels) {
            let x = first + i * (self.panel_width() + PANEL_GAP);
            page.text((x, y), Align::Left, panel.name, bold(LABEL, MUTED));
            for (c, column) in (0..).zip(self.columns) {
                let centre = x + c * (self.cell.0 + GAP) + self.cell.0 / 2;
                page.text((centre, y + LEADING), Align::Centre, column, font(LABEL, INK));
            }
        }
        page.text((first - GUTTER, y + LEADING), Align::Right, &self.corner, font(LABEL, MUTED));
        y += LEADING + 12;
        for (r, label) in self.rows.iter().enumerate() {
            page.text((first - GUTTER, y + self.cell.1 / 2), Align::Right, label, font(LABEL, INK));
            for (i, panel) in (0..).zip(&self.panels) {
                let x = first + i * (self.panel_width() + PANEL_GAP);
                self.draw_row(page, (x, y), &panel.places[r]);
            }
            y += self.cell.1 + GAP;
        }
        y + 2 * GUTTER
    }

    fn draw_row(&self, page: &mut Page, (x, y): (i32, i32), places: &[GridCell]) {
        for (c, place) in (0..).zip(places) {
            let at = (x + c * (self.cell.0 + GAP), y);
            match place {
                GridCell::Face(face) => face.draw(page, at, self.cell),
                GridCell::Missing => {
                    page.hatch(at, self.cell);
                    let centre = (at.0 + self.cell.0 / 2, at.1 + self.cell.1 / 2);
                    page.text(centre, Align::Centre, ABSENT, font(LABEL, MUTED));
                }
                GridCell::Nothing => {}
            }
        }
    }
}

fn places(rows: &[String], columns: &[String], place: impl Fn(usize, usize) -> GridCell) -> Vec<Vec<GridCell>> {
    (0..rows.len()).map(|r| (0..columns.len()).map(|c| place(r, c)).collect()).collect()
}
