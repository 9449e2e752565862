//! The table as plain text for the terminal, measured and published side by side.

use super::numbers::{
    ABSENT, COLLAPSED, absent, autoattack, measured, measured_gap, percent, published, published_gap, success,
};
use super::{Block, Comparison, Gap, Report, Summary, legend::legend, wrap::wrap};

/// Lines are at most this wide; a grid with more columns than fit continues below.
const WIDTH: usize = 100;

/// Between columns.
const GAP: usize = 2;

/// The table as an aligned grid of at most 100 columns, ending in a newline. No colours or control sequences.
pub fn terminal(report: &Report) -> String {
    let mut lines = Vec::new();
    lines.extend(wrap(&report.title, WIDTH));
    lines.extend(report.notes.iter().flat_map(|note| wrap(note, WIDTH)));
    let blocks = report.blocks.iter().map(|block| (&block.title, Grid::of_block(block)));
    let gaps = report.comparisons.iter().map(|comparison| (&comparison.title, Grid::of_gaps(comparison)));
    for (title, grid) in blocks.chain(gaps) {
        lines.push(String::new());
        lines.push(title.clone());
        lines.extend(grid.lines());
    }
    lines.push(String::new());
    lines.extend(legend(report).iter().chain(&report.settings).flat_map(|line| wrap(line, WIDTH)));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The text of a cell.
struct Entry {
    measured: String,
    published: String,
    /// Lines below.
    more: Vec<String>,
}

impl Entry {
    fn of_cell(cell: &Summary) -> Self {
        let published = published(cell).unwrap_or_else(|| ABSENT.to_string());
        let autoattack = autoattack(cell).map(|accuracy| format!("AutoAttack {accuracy}"));
        Entry { measured: marked(cell), published, more: spread(cell).into_iter().chain(autoattack).collect() }
    }

    fn of_gap(gap: &Gap) -> Self {
        let published = published_gap(gap).unwrap_or_else(|| ABSENT.to_string());
        Entry { measured: measured_gap(gap), published, more: gap_spread(gap).into_iter().collect() }
    }

    fn absent(has_place: bool) -> Self {
        Entry { measured: absent(has_place), published: absent(has_place), more: Vec::new() }
    }
}

/// One column, laid out.
struct Column {
    width: usize,
    /// The column's name, then what its halves are, then a rule.
    header: Vec<String>,
    /// For each row, one line or more.
    cells: Vec<Vec<String>>,
}

impl Column {
    /// With published values beside the measured ones if `compared`.
    fn new(name: &str, compared: bool, entries: &[Entry]) -> Self {
        let left = entries.iter().map(|entry| chars(&entry.measured)).max().unwrap_or(0).max(chars("measured"));
        let beside = |measured: &str, published: &str| match compared {
            true => format!("{measured:<left$}{:GAP$}{published}", ""),
            false => measured.to_string(),
        };
        let mut header = vec![name.to_string(), beside("measured", "published")];
        let lines = |entry: &Entry| -> Vec<String> {
            [beside(&entry.measured, &entry.published)].into_iter().chain(entry.more.iter().cloned()).collect()
        };
        let cells: Vec<Vec<String>> = entries.iter().map(lines).collect();
        let width = header.iter().chain(cells.iter().flatten()).map(|text| chars(text)).max().unwrap_or(0);
        header.push("-".repeat(width));
        Column { width, header, cells }
    }
}

/// `95.40/88.12`, with a dagger if every seed collapsed.
fn marked(cell: &Summary) -> String {
    if cell.collapsed() { format!("{}{COLLAPSED}", measured(cell)) } else { measured(cell) }
}

/// The second line of a cell with several seeds: `±0.31/0.52 (3/3)`.
fn spread(cell: &Summary) -> Option<String> {
    let (natural, adversarial) = (cell.natural_std?, cell.adversarial_std?);
    Some(format!("±{}/{} ({})", percent(natural), percent(adversarial), success(cell)?))
}

/// `±0.50/0.40`, of a difference.
fn gap_spread(gap: &Gap) -> Option<String> {
    Some(format!("±{}/{}", percent(gap.natural_spread?), percent(gap.adversarial_spread?)))
}

/// A block or a comparison, laid out.
struct Grid<'a> {
    row_axis: &'a str,
    column_axis: &'a str,
    rows: &'a [String],
    columns: Vec<Column>,
}

impl<'a> Grid<'a> {
    fn of_block(block: &'a Block) -> Self {
        let compared = block.summaries().any(Summary::is_published);
        let entry = |r, c| block.cell(r, c).map_or_else(|| Entry::absent(block.has_place(r, c)), Entry::of_cell);
        let column = |(c, name): (usize, &String)| {
            let entries: Vec<Entry> = (0..block.rows.len()).map(|r| entry(r, c)).collect();
            Column::new(name, compared, &entries)
        };
        let columns = block.columns.iter().enumerate().map(column).collect();
        Grid { row_axis: &block.row_axis, column_axis: &block.column_axis, rows: &block.rows, columns }
    }

    fn of_gaps(gaps: &'a Comparison) -> Self {
        let entry = |r, c| gaps.gap(r, c).map_or_else(|| Entry::absent(gaps.has_place(r, c)), Entry::of_gap);
        let column = |(c, name): (usize, &String)| {
            let entries: Vec<Entry> = (0..gaps.rows.len()).map(|r| entry(r, c)).collect();
            Column::new(name, gaps.is_published(), &entries)
        };
        let columns = gaps.columns.iter().enumerate().map(column).collect();
        Grid { row_axis: &gaps.row_axis, column_axis: &gaps.column_axis, rows: &gaps.rows, columns }
    }

    fn lines(&self) -> Vec<String> {
        let labels = [self.column_axis, self.row_axis].into_iter().chain(self.rows.iter().map(String::as_str));
        let label_width = labels.map(chars).max().unwrap_or(0);
        panels(&self.columns, WIDTH.saturating_sub(label_width))
            .into_iter()
            .enumerate()
            .flat_map(|(i, panel)| {
                // A blank line between the panels of one grid.
                let gap = (i > 0).then(String::new);
                gap.into_iter().chain(self.panel_lines(panel, label_width))
            })
            .collect()
    }

    fn panel_lines(&self, columns: &[Column], label_width: usize) -> Vec<String> {
        let line = |label: &str, text: &dyn Fn(&Column) -> String| {
            columns.iter().fold(format!("{label:<label_width$}"), |line, column| {
                format!("{line}{:GAP$}{:<width$}", "", text(column), width = column.width)
            })
        };
        let rule = "-".repeat(label_width);
        let labels = [self.column_axis, self.row_axis, &rule];
        let mut lines: Vec<String> =
            labels.iter().enumerate().map(|(i, label)| line(label, &|column| column.header[i].clone())).collect();
        for (r, label) in self.rows.iter().enumerate() {
            let height = columns.iter().map(|column| column.cells[r].len()).max().unwrap_or(0);
            for i in 0..height {
                let text = |column: &Column| column.cells[r].get(i).cloned().unwrap_or_default();
                lines.push(line(if i == 0 { label } else { "" }, &text));
            }
        }
        lines
    }
}

/// Splits the columns into runs that fit into `width` side by side; at least one column each.
fn panels(columns: &[Column], width: usize) -> Vec<&[Column]> {
    let mut panels = Vec::new();
    let mut start = 0;
    let mut used = 0;
    for (i, column) in columns.iter().enumerate() {
        if i > start && used + GAP + column.width > width {
            panels.push(&columns[start..i]);
            (start, used) = (i, 0);
        }
        used += GAP + column.width;
    }
    if start < columns.len() {
        panels.push(&columns[start..]);
    }
    panels
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    #[test]
    fn golden() {
        assert_eq!(terminal(&sample::report()), include_str!("sample/table.txt"));
    }

    #[test]
    fn golden_of_a_triangle() {
        assert_eq!(terminal(&sample::widths()), include_str!("sample/widths.txt"));
    }

    /// Table B1 with ten seeds and every initialiser fits side by side.
    #[test]
    fn seven_by_three_fits_100_columns() {
        let cell = sample::summary(&[(95.0, 85.0), (11.35, 11.35)], Some((11.35, 11.35)));
        let mut report = sample::report();
        report.blocks[0].rows = vec!["kaiming_uniform".into(); 7];
        report.blocks[0].columns = vec!["cosanneal".into(); 3];
        report.blocks[0].cells = vec![vec![Some(cell); 3]; 7];
        report.blocks.truncate(1);
        let text = terminal(&report);
        assert!(text.lines().all(|line| chars(line) <= WIDTH), "\n{text}");
        assert_eq!(text.matches("cosanneal").count(), 3);
        assert_eq!(text.matches("Optimiser").count(), 1, "one panel:\n{text}");
    }

    #[test]
    fn columns_that_do_not_fit_continue_below() {
        let cell = sample::summary(&[(95.0, 85.0)], Some((11.35, 11.35)));
        let mut report = sample::report();
        report.blocks[0].rows = vec!["w=16".into()];
        report.blocks[0].columns = (0..9).map(|w| format!("column-{w}")).collect();
        report.blocks[0].cells = vec![vec![Some(cell); 9]];
        let text = terminal(&report);
        assert!(text.lines().all(|line| chars(line) <= WIDTH), "\n{text}");
        assert!((0..9).all(|w| text.contains(&format!("column-{w}"))), "\n{text}");
    }

    #[test]
    fn nan_is_shown() {
        let mut report = sample::report();
        report.blocks[0].cells[1][1] = Some(sample::summary(&[(f64::NAN, 12.0)], None));
        assert!(terminal(&report).contains("NaN/12.00"));
    }
}
