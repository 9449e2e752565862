//! `table.csv`: one row a seed, then one row a cell with the means.
//!
//! Accuracies and seconds are rounded to two decimals, as the paper prints, and written in the shortest form that
//! reads back as the same number: `95.4`, `11.35`. Published values are written as they are given. What does not
//! apply is empty; a number that is not one is `NaN`.

use std::io::{self, Write};

use serde::Serialize;

use super::numbers::round2;
use super::{Report, Row, Summary, group};

/// A line of the file. The field names are the columns, in the order of the contract with the scripts that read it.
#[derive(Serialize)]
struct Line<'a> {
    table: &'a str,
    dataset: &'a str,
    network: &'a str,
    method: &'a str,
    init: Option<&'a str>,
    optimizer: Option<&'a str>,
    original_w: Option<usize>,
    pruned_w: Option<usize>,
    seed: String,
    natural: String,
    adversarial: String,
    attack: &'a str,
    collapsed: bool,
    paper_natural: Option<String>,
    paper_adversarial: Option<String>,
    profile: &'a str,
    backend: &'a str,
    precision: &'a str,
    epochs: usize,
    seconds: String,
    stage: &'a str,
    natural_std: Option<String>,
    adversarial_std: Option<String>,
    success_rate: Option<String>,
    autoattack: Option<String>,
    autoattack_std: Option<String>,
}

impl<'a> Line<'a> {
    fn seed(row: &'a Row) -> Self {
        Line {
            table: &row.table,
            dataset: &row.dataset,
            network: &row.network,
            method: &row.method,
            init: row.init.as_deref(),
            optimizer: row.optimizer.as_deref(),
            original_w: row.original_w,
            pruned_w: row.pruned_w,
            seed: row.seed.to_string(),
            natural: rounded(row.natural),
            adversarial: rounded(row.adversarial),
            attack: &row.attack,
            collapsed: row.collapsed,
            paper_natural: row.paper_natural.map(|v| v.to_string()),
            paper_adversarial: row.paper_adversarial.map(|v| v.to_string()),
            profile: &row.profile,
            backend: &row.backend,
            precision: &row.precision,
            epochs: row.epochs,
            seconds: rounded(row.seconds),
            stage: &row.stage,
            natural_std: None,
            adversarial_std: None,
            success_rate: None,
            autoattack: row.autoattack.map(rounded),
            autoattack_std: None,
        }
    }

    /// The `seed=mean` line: mean accuracies and seconds, `collapsed` if every seed is, no stage.
    fn mean(first: &'a Row, cell: &Summary, seconds: f64) -> Self {
        Line {
            seed: "mean".to_string(),
            natural: rounded(cell.natural),
            adversarial: rounded(cell.adversarial),
            collapsed: cell.collapsed(),
            seconds: rounded(seconds),
            stage: "",
            natural_std: cell.natural_std.map(rounded),
            adversarial_std: cell.adversarial_std.map(rounded),
            // Four decimals: thirds of the seeds stay apart from percents.
            success_rate: Some(((cell.success_rate * 1e4).round() / 1e4).to_string()),
            autoattack: cell.autoattack.map(rounded),
            autoattack_std: cell.autoattack_std.map(rounded),
            ..Line::seed(first)
        }
    }
}

fn rounded(value: f64) -> String {
    round2(value).to_string()
}

/// Writes `table.csv`: cells in the order of the report's rows, the seeds of a cell in ascending order, then its mean.
///
/// # Errors
/// Those of the writer.
pub fn write_csv(report: &Report, writer: impl Write) -> io::Result<()> {
    let mut csv = ::csv::Writer::from_writer(writer);
    for rows in group(&report.rows) {
        for row in &rows {
            csv.serialize(Line::seed(row))?;
        }
        if let Some(cell) = Summary::of(&rows) {
            let seconds = rows.iter().map(|row| row.seconds).sum::<f64>() / rows.len() as f64;
            csv.serialize(Line::mean(rows[0], &cell, seconds))?;
        }
    }
    csv.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    fn text(report: &Report) -> String {
        let mut bytes = Vec::new();
        write_csv(report, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn golden() {
        assert_eq!(text(&sample::report()), include_str!("sample/table.csv"));
    }

    #[test]
    fn columns_are_the_contract() {
        let contract = "table,dataset,network,method,init,optimizer,original_w,pruned_w,seed,natural,adversarial,\
            attack,collapsed,paper_natural,paper_adversarial,profile,backend,precision,epochs,seconds,stage,\
            natural_std,adversarial_std,success_rate,autoattack,autoattack_std";
        assert_eq!(text(&sample::report()).lines().next().unwrap(), contract);
    }

    /// With a value of its own in every column.
    #[test]
    fn every_value_is_in_its_column() {
        let row = |seed, natural, adversarial, seconds, autoattack| Row {
            table: "t9".into(),
            dataset: "cifar10".into(),
            network: "resnet18".into(),
            method: "say \"admm\"".into(),
            init: Some("orthogonal".into()),
            optimizer: Some("sgd".into()),
            original_w: Some(16),
            pruned_w: Some(4),
            seed,
            natural,
            adversarial,
            attack: "pgd-40".into(),
            collapsed: seed == 7,
            paper_natural: Some(78.5),
            paper_adversarial: Some(45.25),
            profile: "paper".into(),
            backend: "cuda".into(),
            precision: "bf16".into(),
            epochs: 340,
            seconds,
            stage: format!("key-{seed}"),
            autoattack: Some(autoattack),
        };
        let rows = vec![row(7, 80.0, 40.0, 10.0, 30.0), row(3, 83.0, 46.0, 24.5, 31.0)];
        let text = text(&Report { rows, ..sample::report() });
        let [_, first, second, mean] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let what = r#"t9,cifar10,resnet18,"say ""admm""",orthogonal,sgd,16,4"#;
        let how = "78.5,45.25,paper,cuda,bf16,340";
        assert_eq!(first, format!("{what},3,83,46,pgd-40,false,{how},24.5,key-3,,,,31,"));
        assert_eq!(second, format!("{what},7,80,40,pgd-40,true,{how},10,key-7,,,,30,"));
        // Means of 81.5, 43, 17.25 s and 30.5; deviations 3, 6 and 1 over the root of two.
        assert_eq!(mean, format!("{what},mean,81.5,43,pgd-40,false,{how},17.25,,2.12,4.24,0.5,30.5,0.71"));
    }

    #[test]
    fn order_of_the_rows_within_a_cell_does_not_matter() {
        let mut report = sample::report();
        report.rows[..3].reverse();
        assert_eq!(text(&report), text(&sample::report()));
    }

    #[test]
    fn nan_is_written_as_such_and_a_comma_is_quoted() {
        let mut report = sample::report();
        report.rows.truncate(1);
        report.rows[0].natural = f64::NAN;
        report.rows[0].attack = "pgd-40, margin".into();
        let text = text(&report);
        assert_eq!(text.matches(",NaN,88.1,\"pgd-40, margin\",false,").count(), 2, "seed and mean:\n{text}");
    }

    #[test]
    fn a_failing_writer_is_an_error() {
        let mut full = [0u8; 16];
        assert!(write_csv(&sample::report(), &mut full[..]).is_err());
    }
}
