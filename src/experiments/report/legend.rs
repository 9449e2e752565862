//! The lines under a table that say how to read it; only those that the table needs.

use super::{
    Comparison, Report, Summary,
    numbers::{COLLAPSED, percent},
};
use crate::data::DatasetName;

/// Lines for under the table, in the order in which a reader meets what they explain.
pub fn legend(report: &Report) -> Vec<String> {
    let any = |test: fn(&Summary) -> bool| report.blocks.iter().flat_map(|b| b.summaries()).any(test);
    let mut lines = vec![units(report)];
    if any(|cell| cell.seeds > 1) {
        lines.push(
            "±: sample standard deviation over the seeds. k/n: k of n seeds trained, the others collapsed.".into(),
        );
    }
    if any(Summary::collapsed) {
        lines.push(format!(
            "{COLLAPSED} every seed collapsed: the accuracy on clean images is not above that of the best constant answer, {} %, \
             by more than chance (one-sided binomial test at 1 %).",
            percent(report.majority)
        ));
    }
    if any(|cell| cell.autoattack.is_some()) {
        lines.push("AutoAttack (AA): accuracy under the standard ensemble, on the images that the notes name.".into());
    }
    lines.extend(published_collapse(report));
    lines.extend(gaps(report));
    lines
}

/// How to read the comparisons, and how not to.
fn gaps(report: &Report) -> Option<String> {
    let gaps = || report.comparisons.iter().flat_map(Comparison::gaps);
    gaps().next()?;
    let mut text = "Gaps: difference of the means in points, natural/adversarial".to_string();
    if gaps().any(|gap| gap.natural_spread.is_some()) {
        text += "; ±: standard deviation of that difference";
    }
    let caution = "a gap within its spread says nothing.";
    Some(match report.comparisons.iter().any(Comparison::is_published) {
        true => format!("{text}. Most published gaps are below 2 points: {caution}"),
        false => format!("{text}; {caution}"),
    })
}

fn units(report: &Report) -> String {
    let text = "Natural/adversarial accuracy in percent";
    match report.rows.split_first() {
        Some((first, rest)) if rest.iter().all(|row| row.attack == first.attack) => {
            format!("{text}; adversarial: under {}.", first.attack)
        }
        _ => format!("{text}."),
    }
}

/// The paper prints a collapsed network as a number; this says which.
fn published_collapse(report: &Report) -> Option<String> {
    let dataset = &report.rows.first()?.dataset;
    let info = dataset.parse::<DatasetName>().ok()?.info();
    let counts = info.test_class_counts;
    let most = *counts.iter().max()?;
    let value = 100.0 * most as f64 / info.test_images() as f64;
    let why = match counts.iter().position(|count| *count != most) {
        None => format!("any one answer is right on {value} % of the test images"),
        Some(_) => {
            let class = info.class_names[counts.iter().position(|count| *count == most)?];
            format!("always answering {class} is right on {value} % of the {} test images", info.title)
        }
    };
    let is_collapse = |cell: &Summary| {
        cell.is_published() && [cell.paper_natural, cell.paper_adversarial].iter().flatten().all(|v| *v == value)
    };
    let found = report.blocks.iter().flat_map(|b| b.summaries()).any(is_collapse);
    found.then(|| format!("Published {value:.2} is a collapsed network too: {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    #[test]
    fn only_what_the_table_needs() {
        let mut report = sample::report();
        assert_eq!(legend(&report).len(), 4);
        report.blocks.remove(0);
        assert_eq!(legend(&report).len(), 2, "no collapse left: {:?}", legend(&report));
        report.blocks[0].cells[0][0] = Some(sample::summary(&[(95.0, 88.0)], Some((95.0, 88.0))));
        assert_eq!(legend(&report), ["Natural/adversarial accuracy in percent; adversarial: under pgd-40."]);
    }

    /// A half of 11.35 is chance; and only rows of one attack have a name for it.
    #[test]
    fn a_published_collapse_has_both_halves_and_an_attack_is_named_if_it_is_the_only_one() {
        let mut report = sample::report();
        let explains = |report: &Report| legend(report).iter().any(|line| line.starts_with("Published 11.35 is"));
        assert!(explains(&report));
        for cell in report.blocks.iter_mut().flat_map(|block| block.cells.iter_mut().flatten().flatten()) {
            cell.paper_natural = cell.paper_natural.map(|_| 95.0);
        }
        assert!(!explains(&report));
        assert_eq!(legend(&report)[0], "Natural/adversarial accuracy in percent; adversarial: under pgd-40.");
        report.rows[1].attack = "cw-40".into();
        assert_eq!(legend(&report)[0], "Natural/adversarial accuracy in percent.");
        let cell = report.blocks[0].cells[0][0].as_mut().unwrap();
        cell.autoattack = Some(70.0);
        assert!(legend(&report).iter().any(|line| line.starts_with("AutoAttack (AA)")));
    }

    #[test]
    fn a_published_collapse_is_named_by_data_set() {
        let mut report = sample::report();
        report.blocks[0].cells[0][0] = Some(sample::summary(&[(50.0, 30.0)], Some((10.0, 10.0))));
        report.blocks[0].cells[0][1] = None;
        report.blocks[0].cells[1][1] = None;
        let says = |report: &Report| legend(report).iter().any(|line| line.starts_with("Published 10.00 is"));
        assert!(!says(&report), "10 % is not MNIST's collapse");
        report.rows.iter_mut().for_each(|row| row.dataset = "cifar10".into());
        assert!(says(&report));
    }
}
