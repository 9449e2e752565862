//! Two methods, cell by cell: what one gains over the other.

use super::{Block, Summary};

/// Minuend minus subtrahend in one cell, in points of accuracy.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// Difference of the mean natural accuracies.
    pub natural: f64,
    /// Difference of the mean adversarial accuracies.
    pub adversarial: f64,
    /// Standard deviation of [`Gap::natural`] as a difference of two means; `None` where a method has one seed.
    pub natural_spread: Option<f64>,
    /// The same of [`Gap::adversarial`].
    pub adversarial_spread: Option<f64>,
    /// Difference of the published natural accuracies, where both are published.
    pub paper_natural: Option<f64>,
    /// The same of the adversarial ones.
    pub paper_adversarial: Option<f64>,
}

/// A grid of gaps between two methods.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// "ADMM − post-prune", …
    pub title: String,
    /// Title of the row axis: "Original width".
    pub row_axis: String,
    /// Title of the column axis: "Pruned width".
    pub column_axis: String,
    /// Labels of the minuend's rows.
    pub rows: Vec<String>,
    /// Labels of the minuend's columns.
    pub columns: Vec<String>,
    /// `cells[row][column]`; `None` where one of the two was not run.
    pub cells: Vec<Vec<Option<Gap>>>,
}

impl Gap {
    fn of(minuend: &Summary, subtrahend: &Summary) -> Self {
        let published = |half: fn(&Summary) -> Option<f64>| Some(half(minuend)? - half(subtrahend)?);
        // The variance of a mean of n seeds is that of a seed by n; those of independent means add up.
        let of_mean = |cell: &Summary, std: Option<f64>| std.map(|std| std * std / cell.seeds as f64);
        let spread = |half: fn(&Summary) -> Option<f64>| {
            Some((of_mean(minuend, half(minuend))? + of_mean(subtrahend, half(subtrahend))?).sqrt())
        };
        Gap {
            natural: minuend.natural - subtrahend.natural,
            adversarial: minuend.adversarial - subtrahend.adversarial,
            natural_spread: spread(|cell| cell.natural_std),
            adversarial_spread: spread(|cell| cell.adversarial_std),
            paper_natural: published(|cell| cell.paper_natural),
            paper_adversarial: published(|cell| cell.paper_adversarial),
        }
    }

    /// True if the paper has numbers for both methods.
    pub fn is_published(&self) -> bool {
        self.paper_natural.is_some() || self.paper_adversarial.is_some()
    }
}

impl Comparison {
    /// `minuend` − `subtrahend`, cells matched by the labels of their row and column; `None` if no cell has both.
    pub fn of(title: &str, minuend: &Block, subtrahend: &Block) -> Option<Comparison> {
        let gap = |r: usize, c: usize| {
            let row = subtrahend.rows.iter().position(|label| *label == minuend.rows[r])?;
            let column = subtrahend.columns.iter().position(|label| *label == minuend.columns[c])?;
            Some(Gap::of(minuend.cell(r, c)?, subtrahend.cell(row, column)?))
        };
        let cells: Vec<Vec<Option<Gap>>> =
            (0..minuend.rows.len()).map(|r| (0..minuend.columns.len()).map(|c| gap(r, c)).collect()).collect();
        cells.iter().flatten().any(Option::is_some).then(|| Comparison {
            title: title.into(),
            row_axis: minuend.row_axis.clone(),
            column_axis: minuend.column_axis.clone(),
            rows: minuend.rows.clone(),
            columns: minuend.columns.clone(),
            cells,
        })
    }

    /// True if the paper has numbers for both methods in some cell.
    pub fn is_published(&self) -> bool {
        self.gaps().any(Gap::is_published)
    }

    /// The gap at (`row`, `column`); `None` where one of the two was not run.
    pub fn gap(&self, row: usize, column: usize) -> Option<&Gap> {
        self.cells.get(row)?.get(column)?.as_ref()
    }

    /// Whether there could be a gap at (`row`, `column`), as [`Block::has_place`].
    pub fn has_place(&self, row: usize, column: usize) -> bool {
        super::has_place(&self.rows[row], &self.columns[column])
    }

    /// All gaps.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.cells.iter().flatten().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    fn block(rows: &[&str], columns: &[&str], cells: Vec<Vec<Option<Summary>>>) -> Block {
        let labels = |labels: &[&str]| labels.iter().map(|s| s.to_string()).collect();
        Block {
            title: "a method".into(),
            row_axis: "Original width".into(),
            column_axis: "Pruned width".into(),
            rows: labels(rows),
            columns: labels(columns),
            cells,
            not_run: vec![],
        }
    }

    #[test]
    fn means_and_their_spreads() {
        // Deviations of 1 and 2 over two seeds, 3 and 4 over three.
        let admm = sample::summary(&[(90.0, 80.0), (90.0 + 2f64.sqrt(), 80.0 + 8f64.sqrt())], Some((91.0, 85.0)));
        let post = sample::summary(&[(85.0, 70.0), (88.0, 74.0), (91.0, 78.0)], Some((90.0, 86.5)));
        let gap = Gap::of(&admm, &post);
        assert!((gap.natural - (90.0 + 0.5f64.sqrt() - 88.0)).abs() < 1e-12);
        assert!((gap.adversarial - (80.0 + 2f64.sqrt() - 74.0)).abs() < 1e-12);
        assert!((gap.natural_spread.unwrap() - (1.0f64 / 2.0 + 9.0 / 3.0).sqrt()).abs() < 1e-12);
        assert!((gap.adversarial_spread.unwrap() - (4.0f64 / 2.0 + 16.0 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!((gap.paper_natural, gap.paper_adversarial), (Some(1.0), Some(-1.5)));
    }

    #[test]
    fn one_seed_has_no_spread_and_one_published_value_no_gap() {
        let one = sample::summary(&[(90.0, 80.0)], Some((91.0, 85.0)));
        let two = sample::summary(&[(90.0, 80.0), (92.0, 84.0)], None);
        let gap = Gap::of(&one, &two);
        assert_eq!((gap.natural_spread, gap.adversarial_spread), (None, None));
        assert_eq!((gap.paper_natural, gap.paper_adversarial), (None, None));
        assert_eq!((gap.natural, gap.adversarial), (-1.0, -2.0));
    }

    /// Most of the paper's tables have adversarial accuracies alone.
    #[test]
    fn one_of_the_two_accuracies_is_enough_to_be_published() {
        let both = sample::summary(&[(90.0, 80.0)], Some((91.0, 85.0)));
        let adversarial = Summary { paper_natural: None, ..both.clone() };
        let natural = Summary { paper_adversarial: None, ..both.clone() };
        assert!(natural.is_published() && adversarial.is_published());
        assert!(Gap::of(&both, &adversarial).is_published());
        assert!(Gap::of(&natural, &both).is_published());
        assert!(!Gap::of(&natural, &adversarial).is_published(), "nothing that both have");
    }

    #[test]
    fn cells_are_matched_by_label() {
        let cell = |natural: f64| Some(sample::summary(&[(natural, natural - 10.0)], None));
        let admm = block(&["w=4", "w=8"], &["1", "2"], vec![vec![cell(90.0), cell(91.0)], vec![cell(92.0), None]]);
        let post = block(&["w=8", "w=4"], &["2", "1"], vec![vec![cell(50.0), cell(60.0)], vec![cell(70.0), None]]);
        let comparison = Comparison::of("ADMM − post-prune", &admm, &post).unwrap();
        let natural = |r, c| comparison.gap(r, c).map(|gap| gap.natural);
        assert_eq!((natural(0, 0), natural(0, 1), natural(1, 0), natural(1, 1)), (None, Some(21.0), Some(32.0), None));
        assert_eq!((comparison.rows, comparison.columns), (admm.rows.clone(), admm.columns.clone()));

        let other = block(&["w=16"], &["1"], vec![vec![cell(50.0)]]);
        assert_eq!(Comparison::of("nothing in common", &admm, &other), None);
    }
}
