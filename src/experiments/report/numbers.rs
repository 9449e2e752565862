//! How numbers look in every output: two decimals as the paper prints, NaN visible, absent values as a dash.

use super::{Gap, Summary};

/// The sign for a missing value.
pub const ABSENT: &str = "–";

/// The text of a cell without a value; empty where there cannot be one.
pub fn absent(has_place: bool) -> String {
    if has_place { ABSENT.to_string() } else { String::new() }
}

/// Marks a cell whose seeds all collapsed.
pub const COLLAPSED: &str = "†";

/// Rounded to two decimals, halves away from zero; never negative zero.
pub fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0 + 0.0
}

/// `95.40`.
pub fn percent(value: f64) -> String {
    format!("{:.2}", round2(value))
}

/// Measured `natural/adversarial`: `95.40/88.12`.
pub fn measured(cell: &Summary) -> String {
    format!("{}/{}", percent(cell.natural), percent(cell.adversarial))
}

/// Accuracy under AutoAttack, `70.40` or `70.40 ± 0.31`; `None` where it was not asked for.
pub fn autoattack(cell: &Summary) -> Option<String> {
    let spread = cell.autoattack_std.map_or(String::new(), |std| format!(" ± {}", percent(std)));
    Some(format!("{}{spread}", percent(cell.autoattack?)))
}

/// Published `natural/adversarial`, a dash for the half that the paper does not print; `None` if it prints neither.
pub fn published(cell: &Summary) -> Option<String> {
    published_pair(cell.paper_natural, cell.paper_adversarial)
}

/// The same of two halves.
pub fn published_pair(natural: Option<f64>, adversarial: Option<f64>) -> Option<String> {
    let half = |value: Option<f64>| value.map_or_else(|| ABSENT.to_string(), percent);
    (natural.is_some() || adversarial.is_some()).then(|| format!("{}/{}", half(natural), half(adversarial)))
}

/// `+0.40`.
pub fn signed(points: f64) -> String {
    format!("{:+.2}", round2(points))
}

/// A pair of differences, `+0.40/-1.20`, a dash for a missing half; `None` without either.
fn signed_pair(natural: Option<f64>, adversarial: Option<f64>) -> Option<String> {
    let half = |value: Option<f64>| value.map_or_else(|| ABSENT.to_string(), signed);
    (natural.is_some() || adversarial.is_some()).then(|| format!("{}/{}", half(natural), half(adversarial)))
}

/// Measured minus published: `+0.40/-1.20`; `None` if nothing is published.
pub fn difference(cell: &Summary) -> Option<String> {
    let half = |measured: f64, paper: Option<f64>| paper.map(|paper| measured - paper);
    signed_pair(half(cell.natural, cell.paper_natural), half(cell.adversarial, cell.paper_adversarial))
}

/// Measured gap: `+1.62/+0.85`.
pub fn measured_gap(gap: &Gap) -> String {
    format!("{}/{}", signed(gap.natural), signed(gap.adversarial))
}

/// Published gap: `+1.62/+0.85`; `None` if there is none.
pub fn published_gap(gap: &Gap) -> Option<String> {
    signed_pair(gap.paper_natural, gap.paper_adversarial)
}

/// Seeds that trained, of all: `7/10`; `None` for a single seed, where [`COLLAPSED`] says it all.
pub fn success(cell: &Summary) -> Option<String> {
    (cell.seeds > 1).then(|| format!("{}/{}", cell.trained(), cell.seeds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::report::sample;

    #[test]
    fn rounding_is_that_of_the_paper() {
        assert_eq!(percent(95.4), "95.40");
        assert_eq!(percent(100.0 / 3.0), "33.33");
        assert_eq!(percent(200.0 / 3.0), "66.67");
        // Exact halves.
        assert_eq!((percent(0.125), percent(50.375), signed(-0.125)), ("0.13".into(), "50.38".into(), "-0.13".into()));
        assert_eq!(percent(f64::NAN), "NaN");
        assert_eq!(percent(-0.001), "0.00");
    }

    #[test]
    fn natural_comes_before_adversarial() {
        let mut cell = sample::summary(&[(90.0, 80.0), (91.0, 82.0)], Some((95.0, 70.0)));
        assert_eq!(measured(&cell), "90.50/81.00");
        assert_eq!(published(&cell).unwrap(), "95.00/70.00");
        assert_eq!(difference(&cell).unwrap(), "-4.50/+11.00");
        assert_eq!(success(&cell).unwrap(), "2/2");
        assert_eq!(success(&sample::summary(&[(90.0, 80.0)], None)), None);
        assert_eq!(autoattack(&cell), None);
        (cell.autoattack, cell.autoattack_std) = (Some(70.4), None);
        assert_eq!(autoattack(&cell).unwrap(), "70.40");
        cell.autoattack_std = Some(0.306);
        assert_eq!(autoattack(&cell).unwrap(), "70.40 ± 0.31");
    }

    #[test]
    fn gaps_have_their_signs() {
        let gap = |paper_natural, paper_adversarial| Gap {
            natural: -1.25,
            adversarial: 2.5,
            natural_spread: None,
            adversarial_spread: None,
            paper_natural,
            paper_adversarial,
        };
        assert_eq!(measured_gap(&gap(None, None)), "-1.25/+2.50");
        assert_eq!(published_gap(&gap(None, None)), None);
        assert_eq!(published_gap(&gap(Some(3.9), Some(-1.8))).unwrap(), "+3.90/-1.80");
        assert_eq!(published_gap(&gap(None, Some(1.8))).unwrap(), "–/+1.80");
        assert_eq!((absent(true), absent(false)), ("–".to_string(), String::new()));
    }

    #[test]
    fn halves_without_a_published_value_are_dashes() {
        let mut cell = sample::summary(&[(95.5, 88.25)], None);
        assert_eq!((published(&cell), difference(&cell)), (None, None));
        cell.paper_adversarial = Some(89.0);
        assert_eq!(published(&cell).unwrap(), "–/89.00");
        assert_eq!(difference(&cell).unwrap(), "–/-0.75");
        cell.paper_natural = Some(95.501);
        assert_eq!(difference(&cell).unwrap(), "+0.00/-0.75", "no negative zero");
    }
}
