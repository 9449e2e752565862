//! The table as plain text for the terminal, measured and published side by side.

use super::numbers::{ABSENT, COLLAPSED, measured, percent, published, success};
use super::{Block, Report, Summary, legend::legend, wrap::wrap};

/// Lines are at most this wide; a block with more columns than fit continues below.
const WIDTH: usize = 100;

/// Between columns.
const GAP: usize = 2;

/// The table as an aligned grid of at most 100 columns, ending in a newline. No colours or control sequences.
pub fn terminal(report: &Report) -> String {
    let mut lines = Vec::new();
    lines.extend(wrap(&report.title, WIDTH));
    lines.extend(report.notes.iter().flat_map(|note| wrap(note, WIDTH)));
    for block in &report.blocks {
        lines.push(String::new());
        lines.push(block.title.clone());
        lines.extend(grid(block));
    }
    lines.push(String::new());
    lines.extend(legend(report).iter().flat_map(|line| wrap(line, WIDTH)));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// One column of a block, laid out.
struct Column {
    width: usize,
    /// The column's name, then what its halves are, then a rule.
    header: Vec<String>,
    /// For each row of the block, one line or two.
    cells: Vec<Vec<String>>,
}

impl Column {
    fn new(block: &Block, column: usize) -> Self {
        let cells: Vec<Option<&Summary>> = (0..block.rows.len()).map(|r| block.cell(r, column)).collect();
        let left: Vec<String> = cells.iter().map(|c| c.map_or(ABSENT.to_string(), marked)).collect();
        let left_width = chars("measured").max(left.iter().map(|text| chars(text)).max().unwrap_or(0));
        let beside = |left: &str, right: &str| format!("{left:<left_width$}{:GAP$}{right}", "");

        let compared = block.summaries().any(Summary::is_published);
        let mut header = vec![block.columns[column].clone()];
        header.push(if compared { beside("measured", "published") } else { "measured".to_string() });
        let lines = |(left, cell): (&String, &Option<&Summary>)| {
            let right = cell.and_then(published).unwrap_or_else(|| ABSENT.to_string());
            let first = if compared { beside(left, &right) } else { left.clone() };
            [first].into_iter().chain(cell.and_then(spread)).collect()
        };
        let cells: Vec<Vec<String>> = left.iter().zip(&cells).map(lines).collect();
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

fn grid(block: &Block) -> Vec<String> {
    let labels = [&block.column_axis, &block.row_axis].into_iter().chain(&block.rows);
    let label_width = labels.map(|label| chars(label)).max().unwrap_or(0);
    let columns: Vec<Column> = (0..block.columns.len()).map(|c| Column::new(block, c)).collect();
    panels(&columns, WIDTH.saturating_sub(label_width))
        .into_iter()
        .enumerate()
        .flat_map(|(i, panel)| {
            // A blank line between the panels of one block.
            let gap = (i > 0).then(String::new);
            gap.into_iter().chain(panel_lines(block, panel, label_width))
        })
        .collect()
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

fn panel_lines(block: &Block, columns: &[Column], label_width: usize) -> Vec<String> {
    let line = |label: &str, text: &dyn Fn(&Column) -> String| {
        columns.iter().fold(format!("{label:<label_width$}"), |line, column| {
            format!("{line}{:GAP$}{:<width$}", "", text(column), width = column.width)
        })
    };
    let rule = "-".repeat(label_width);
    let labels = [block.column_axis.as_str(), &block.row_axis, &rule];
    let mut lines: Vec<String> =
        labels.iter().enumerate().map(|(i, label)| line(label, &|column| column.header[i].clone())).collect();
    for (r, label) in block.rows.iter().enumerate() {
        let height = columns.iter().map(|column| column.cells[r].len()).max().unwrap_or(0);
        for i in 0..height {
            let text = |column: &Column| column.cells[r].get(i).cloned().unwrap_or_default();
            lines.push(line(if i == 0 { label } else { "" }, &text));
        }
    }
    lines
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn golden() {
        assert_eq!(terminal(&sample::report()), include_str!("sample/table.txt"));
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
