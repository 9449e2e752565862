//! `table.md`: each block as a grid in the paper's layout, measured over published; then the comparisons.

use super::numbers::{
    COLLAPSED, absent, autoattack, difference, measured, measured_gap, percent, published, published_gap, signed,
    success,
};
use super::{Block, Comparison, Gap, Report, Summary, legend::legend};

/// The table as GitHub-flavoured Markdown. Each row of a block takes one line for the measured values and, where the
/// paper has numbers, one for the published ones and one for the difference.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# {}\n", report.title);
    text += &list(&report.notes);
    for block in &report.blocks {
        text += &format!("\n## {}\n\n{}", block.title, grid(&lines(block)));
    }
    for comparison in &report.comparisons {
        text += &format!("\n## {}\n\n{}", comparison.title, grid(&gap_lines(comparison)));
    }
    text += &list(&legend(report));
    for (title, lines) in
        [("How it was made", &report.settings), ("Settings that are not the paper's", &report.differences)]
    {
        if !lines.is_empty() {
            text += &format!("\n## {title}\n{}", list(lines));
        }
    }
    text
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    "\n".to_string() + &items.iter().map(|item| format!("- {item}\n")).collect::<String>()
}

/// One line of the grid: the row's label, what the line shows, a value for each column.
fn line(label: &str, what: &str, values: impl Iterator<Item = String>) -> Vec<String> {
    [label.to_string(), what.to_string()].into_iter().chain(values).collect()
}

fn header(row_axis: &str, column_axis: &str, columns: &[String]) -> Vec<String> {
    line(&format!("{row_axis} \\ {column_axis}"), "", columns.iter().cloned())
}

fn lines(block: &Block) -> Vec<Vec<String>> {
    let columns = 0..block.columns.len();
    let mut lines = vec![header(&block.row_axis, &block.column_axis, &block.columns)];
    for (r, label) in block.rows.iter().enumerate() {
        let mut push = |label: &str, what: &str, show: fn(&Summary) -> Option<String>| {
            let value = |c| block.cell(r, c).and_then(show).unwrap_or_else(|| absent(block.has_place(r, c)));
            lines.push(line(label, what, columns.clone().map(value)));
        };
        push(label, "measured", |cell| Some(with_spread(cell)));
        if columns.clone().filter_map(|c| block.cell(r, c)).any(|cell| cell.autoattack.is_some()) {
            push("", "AutoAttack", autoattack);
        }
        if columns.clone().filter_map(|c| block.cell(r, c)).any(Summary::is_published) {
            push("", "published", published);
            push("", "difference", difference);
        }
    }
    lines
}

fn gap_lines(comparison: &Comparison) -> Vec<Vec<String>> {
    let columns = 0..comparison.columns.len();
    let mut lines = vec![header(&comparison.row_axis, &comparison.column_axis, &comparison.columns)];
    for (r, label) in comparison.rows.iter().enumerate() {
        let mut push = |label: &str, what: &str, show: fn(&Gap) -> Option<String>| {
            let value = |c| comparison.gap(r, c).and_then(show).unwrap_or_else(|| absent(comparison.has_place(r, c)));
            lines.push(line(label, what, columns.clone().map(value)));
        };
        push(label, "measured", |gap| Some(gap_with_spread(gap)));
        if columns.clone().filter_map(|c| comparison.gap(r, c)).any(Gap::is_published) {
            push("", "published", published_gap);
        }
    }
    lines
}

/// `+1.62/+0.85`, between several seeds `+1.62 ± 0.50 / +0.85 ± 0.40`.
fn gap_with_spread(gap: &Gap) -> String {
    match (gap.natural_spread, gap.adversarial_spread) {
        (Some(natural), Some(adversarial)) => format!(
            "{} ± {} / {} ± {}",
            signed(gap.natural),
            percent(natural),
            signed(gap.adversarial),
            percent(adversarial)
        ),
        _ => measured_gap(gap),
    }
}

/// `95.40/88.12`, over several seeds `95.40 ± 0.31 / 88.12 ± 0.52 (3/3)`; a dagger if all of them collapsed.
fn with_spread(cell: &Summary) -> String {
    let mut text = match (cell.natural_std, cell.adversarial_std) {
        (Some(natural), Some(adversarial)) => format!(
            "{} ± {} / {} ± {}",
            percent(cell.natural),
            percent(natural),
            percent(cell.adversarial),
            percent(adversarial)
        ),
        _ => measured(cell),
    };
    if let Some(success) = success(cell) {
        text += &format!(" ({success})");
    }
    if cell.collapsed() {
        text += &format!(" {COLLAPSED}");
    }
    text
}

/// A Markdown table whose columns line up in the source as well; the first line is the header.
fn grid(lines: &[Vec<String>]) -> String {
    let lines: Vec<Vec<String>> =
        lines.iter().map(|line| line.iter().map(|cell| cell.replace('|', "\\|")).collect()).collect();
    let columns = lines[0].len();
    let width = |c: usize| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let render = |line: &Vec<String>| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
    let body: String = lines[1..].iter().map(render).collect();
    format!("{}| {} |\n{body}", render(&lines[0]), rule.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    #[test]
    fn golden() {
        assert_eq!(markdown(&sample::report()), include_str!("sample/table.md"));
    }

    #[test]
    fn golden_of_a_triangle() {
        assert_eq!(markdown(&sample::widths()), include_str!("sample/widths.md"));
    }

    /// The line stands where some cell has a value, with dashes for the others.
    #[test]
    fn autoattack_is_a_line_of_its_row() {
        let mut report = sample::report();
        let cell = report.blocks[0].cells[1][1].as_mut().unwrap();
        (cell.autoattack, cell.autoattack_std) = (Some(70.4), Some(0.306));
        let text = markdown(&report);
        let line = text.lines().find(|line| line.contains("AutoAttack |")).unwrap();
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells, ["", "AutoAttack", "–", "70.40 ± 0.31"]);
        assert_eq!(text.matches("AutoAttack |").count(), 1);
        let above = text.lines().take_while(|other| *other != line).last().unwrap();
        assert!(above.contains("kaiming_normal") && above.contains("92.00/80.00"), "{above}");
    }

    #[test]
    fn a_bar_in_a_label_does_not_split_its_cell() {
        let mut report = sample::report();
        report.blocks[0].rows[0] = "a|b".into();
        assert!(markdown(&report).contains("| a\\|b "));
    }
}
