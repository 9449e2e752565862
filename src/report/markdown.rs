//! `table.md`: each block as a grid in the paper's layout, measured over published.

use super::numbers::{ABSENT, COLLAPSED, difference, measured, percent, published, success};
use super::{Block, Report, Summary, legend::legend};

/// The table as GitHub-flavoured Markdown. Each row of a block takes one line for the measured values and, where the
/// paper has numbers, one for the published ones and one for the difference.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# {}\n", report.title);
    text += &list(&report.notes);
    for block in &report.blocks {
        text += &format!("\n## {}\n\n{}", block.title, grid(&lines(block)));
    }
    text + &list(&legend(report))
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    "\n".to_string() + &items.iter().map(|item| format!("- {item}\n")).collect::<String>()
}

/// One line of the grid: the row's label, what the line shows, a value for each column.
fn lines(block: &Block) -> Vec<Vec<String>> {
    let corner = format!("{} \\ {}", block.row_axis, block.column_axis);
    let mut lines = vec![[corner, String::new()].into_iter().chain(block.columns.iter().cloned()).collect()];
    for (r, label) in block.rows.iter().enumerate() {
        let cells: Vec<Option<&Summary>> = (0..block.columns.len()).map(|c| block.cell(r, c)).collect();
        let mut push = |label: &str, what: &str, show: fn(&Summary) -> Option<String>| {
            let values = cells.iter().map(|cell| cell.and_then(show).unwrap_or_else(|| ABSENT.to_string()));
            lines.push([label.to_string(), what.to_string()].into_iter().chain(values).collect());
        };
        push(label, "measured", |cell| Some(with_spread(cell)));
        if cells.iter().flatten().any(|cell| cell.is_published()) {
            push("", "published", published);
            push("", "difference", difference);
        }
    }
    lines
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
    use crate::report::sample;

    #[test]
    fn golden() {
        assert_eq!(markdown(&sample::report()), include_str!("sample/table.md"));
    }

    #[test]
    fn a_bar_in_a_label_does_not_split_its_cell() {
        let mut report = sample::report();
        report.blocks[0].rows[0] = "a|b".into();
        assert!(markdown(&report).contains("| a\\|b "));
    }
}
